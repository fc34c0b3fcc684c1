"""Batches, accumulation, the loss, the learning rate, masters, refusal of NaN, and the choice of the best step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from by_hand import UNEVEN, first_gradients, hand_gradients, hand_loss
from torch import Tensor

from tiny import (
    VOCABULARY,
    all_parameters,
    close,
    hooks,
    plain_logits,
    plain_twin,
    random_ids,
    random_row,
    settings,
    tiny_model,
)
from tuneworth.errors import InputError, TuneworthError
from tuneworth.inference import Engine
from tuneworth.models.adapters import add_lora, trainable
from tuneworth.training import (
    Checkpoint,
    Pack,
    Row,
    Settings,
    answer_loss,
    epoch_batches,
    learning_rate,
    micro_batches,
    pack,
    train,
)
from tuneworth.training.loss import total_loss


@pytest.mark.parametrize(("maximum_tokens", "parts"), [(10**6, [4]), (1, [1, 1, 1, 1]), (110, [2, 2]), (140, [3, 1])])
def test_law_1_and_3_gradients_do_not_depend_on_how_a_batch_is_cut(maximum_tokens: int, parts: list[int]) -> None:
    assert [len(part) for part in micro_batches(UNEVEN, maximum_tokens)] == parts
    model = tiny_model()
    wanted = hand_gradients(model, UNEVEN)
    found = first_gradients(model, UNEVEN, {"maximum_tokens": maximum_tokens})
    assert set(found) == set(wanted)
    for name in wanted:
        assert close(found[name], wanted[name]), name


def test_law_1_a_logged_loss_is_the_sum_over_all_parts_divided_once() -> None:
    model = tiny_model()
    with torch.no_grad():
        wanted = float(hand_loss(plain_twin(model), UNEVEN)) / 65
    records: list[Mapping[str, Any]] = []
    chosen = settings(steps=1, batch_size=4, maximum_tokens=1)
    train(model, all_parameters(model), UNEVEN, chosen, answer_loss, hooks(on_record=records.append))
    assert records[0]["loss"] == pytest.approx(wanted, rel=1e-10)
    assert records[0]["trained_tokens"] == 65
    assert records[0]["rows"] == 4
    assert records[0]["tokens"] == 9 + 39 + 44 + 49  # of each row the last token predicts nothing


class Watched:
    """`answer_loss` that notes which rows and which order it saw."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, model: torch.nn.Module, part: Pack) -> Tensor:
        self.seen += part.row_ids
        return answer_loss(model, part)


@pytest.mark.parametrize(("count", "batch", "steps"), [(7, 4, 2), (3, 4, 1), (8, 4, 2), (5, 1, 5)])
def test_law_3_every_row_of_an_epoch_is_in_exactly_one_step(count: int, batch: int, steps: int) -> None:
    rows = [random_row(f"{i}", 2 + i, 1 + i % 3, i) for i in range(count)]
    model, watched, records = tiny_model(), Watched(), []
    boundaries: list[int] = []

    def on_record(record: Mapping[str, Any]) -> None:
        if "loss" in record:
            records.append(record)
            boundaries.append(len(watched.seen))

    chosen = settings(steps=2 * steps, batch_size=batch, learning_rate=0.0)
    train(model, all_parameters(model), rows, chosen, watched, hooks(on_record=on_record))
    names = sorted(row.id for row in rows)
    half = boundaries[steps - 1]
    assert sorted(watched.seen[:half]) == names
    assert sorted(watched.seen[half:]) == names
    assert records[steps - 1]["epoch"] == pytest.approx(1.0)
    assert records[-1]["epoch"] == pytest.approx(2.0)


def test_law_3_a_last_partial_batch_is_divided_by_its_own_tokens_and_inherits_nothing() -> None:
    rows = [random_row(f"{i}", 2 + i, 1 + 2 * i, i) for i in range(7)]
    by_id = {row.id: row for row in rows}
    model, watched, records = tiny_model(), Watched(), []
    start = 0

    def on_record(record: Mapping[str, Any]) -> None:
        nonlocal start
        if "loss" in record:
            records.append((record, [by_id[name] for name in watched.seen[start:]]))
            start = len(watched.seen)

    # At learning rate 0 the weights stay, so that every step can be checked against the first weights.
    chosen = settings(steps=4, batch_size=4, learning_rate=0.0, maximum_tokens=20)
    train(model, all_parameters(model), rows, chosen, watched, hooks(on_record=on_record))
    assert [len(part) for _, part in records] in ([4, 3, 4, 3], [3, 4, 4, 3], [4, 3, 3, 4], [3, 4, 3, 4])
    for record, part in records:
        gradients = hand_gradients(model, part)
        norm = math.sqrt(sum(float(g.pow(2).sum()) for g in gradients.values()))
        assert record["grad_norm"] == pytest.approx(norm, rel=1e-9)
        tokens = sum(row.trained_tokens for row in part)
        assert record["loss"] == pytest.approx(float(hand_loss(plain_twin(model), part).detach()) / tokens, rel=1e-10)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_law_4_the_learning_rate_is_its_closed_form_at_every_step() -> None:
    records: list[float] = []

    def on_record(record: Mapping[str, Any]) -> None:
        if "learning_rate" in record:
            records.append(record["learning_rate"])

    rows = [random_row(f"{i}", 3, 2, i) for i in range(5)]
    chosen = settings(steps=9, warmup_steps=3, learning_rate=0.6, batch_size=2, evaluate_every=100)
    model = tiny_model()
    train(model, all_parameters(model), rows, chosen, answer_loss, hooks(on_record=on_record))
    assert records == pytest.approx([0.2, 0.4, 0.6, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1], rel=1e-12)
    assert records == [learning_rate(chosen, step) for step in range(9)]


def test_law_4_without_warm_up_the_first_step_is_at_the_peak() -> None:
    chosen = settings(steps=4, warmup_steps=0, learning_rate=1.0)
    assert [learning_rate(chosen, step) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]


def test_law_4_a_share_of_the_learning_rate_is_exactly_that_for_the_parameters_it_names() -> None:
    def moved(shares: dict[str, float], steps: int) -> dict[str, Tensor]:
        model = add_lora(tiny_model(), rank=4, alpha=8, seed=0)
        before = {name: p.detach().clone() for name, p in trainable(model).items()}
        chosen = settings(steps=steps, warmup_steps=0, schedule="cosine", learning_rate=1e-3, rate_shares=shares)
        train(model, trainable(model), [random_row("a", 3, 4, 0)], chosen, answer_loss, hooks())
        return {name: p.detach() - before[name] for name, p in trainable(model).items()}

    alike, faster = moved({}, 1), moved({"lora_B": 8.0}, 1)
    assert all(torch.equal(8 * alike[name], faster[name]) for name in alike if "lora_B" in name)
    assert all(step.abs().max() > 0 for name, step in faster.items() if "lora_B" in name)
    after_two = moved({"lora_B": 8.0}, 2)  # A has no gradient before B has left zero; Adam's first step is the rate
    assert all(0 < step.abs().max() <= 1e-3 for name, step in after_two.items() if "lora_A" in name)


def test_law_5_an_overfitted_sequence_is_generated_to_its_end() -> None:
    a, b, c, d, e, eos = 10, 11, 12, 13, 14, 15
    row = Row("abc", (a, b, c, d, e, eos), (False, True, True, True, True, True))
    model = tiny_model(dtype=torch.float32)
    records: list[float] = []

    def on_record(record: Mapping[str, Any]) -> None:
        if "loss" in record:
            records.append(record["loss"])

    chosen = settings(steps=100, batch_size=1, learning_rate=1e-2, evaluate_every=100, clip_norm=1.0)
    train(model, all_parameters(model), [row], chosen, answer_loss, hooks(on_record=on_record))
    assert records[-1] < 1e-3
    written = Engine(model, end_id=eos).generate([[a]], max_new_tokens=10)[0]
    assert written.ids == (b, c, d, e)
    assert written.finish_reason == "stop"


def test_law_7_rows_whose_pad_is_the_end_token_learn_to_stop() -> None:
    # SmolLM2's pad token is its end token. Nothing here may mask by id: every one of 8 uneven rows must stop.
    end = 299
    rows = []
    for index in range(8):
        answer = (*random_ids(1 + index % 4, seed=50 + index), end)
        rows.append(Row(f"{index}", (end, 20 + index, *answer), (False, False) + (True,) * len(answer)))
    model = tiny_model(dtype=torch.float32)
    model.config.pad_token_id = end
    chosen = settings(steps=80, batch_size=8, learning_rate=1e-2, evaluate_every=80, clip_norm=1.0)
    train(model, all_parameters(model), rows, chosen, answer_loss, hooks())
    written = Engine(model, end_id=end).generate([row.ids[:2] for row in rows], max_new_tokens=12)
    assert [answer.finish_reason for answer in written] == ["stop"] * 8
    assert [answer.ids for answer in written] == [row.ids[2:-1] for row in rows]


def test_law_12_rows_that_train_nothing_are_named_before_anything_moves() -> None:
    rows = [random_row("good", 3, 2, 1), Row("bad", (1, 2, 3), (False,) * 3), Row("first", (1, 2), (True, False))]
    model = tiny_model()
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(InputError, match=r"2 rows.*'bad', 'first'"):
        train(model, all_parameters(model), rows, settings(), answer_loss, hooks())
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_law_13_no_rows_at_all_is_an_error_not_a_loss_of_zero() -> None:
    model = tiny_model()
    with pytest.raises(InputError):
        train(model, all_parameters(model), [], settings(), answer_loss, hooks())


@pytest.mark.parametrize("fault", ["loss", "gradient", "weight"])
def test_law_14_not_a_number_stops_before_the_step(fault: str) -> None:
    model = add_lora(tiny_model(), rank=2, alpha=4, seed=0)
    rows = [random_row(f"{i}", 3, 4, i) for i in range(6)]
    calls, snapshot, records = 0, {}, []

    def loss(model: torch.nn.Module, part: Pack) -> Tensor:
        nonlocal calls
        calls += 1
        value = answer_loss(model, part)
        if calls == 3 and fault == "loss":
            return value * float("nan")
        if calls == 3 and fault == "gradient":  # a finite value whose derivative is inf * 0
            some = next(iter(trainable(model).values()))
            return value + torch.sqrt(some * 0).sum()
        return value

    def on_record(record: Mapping[str, Any]) -> None:
        records.append(record)
        if record["step"] == 2 and "loss" in record:
            snapshot.update({n: p.detach().clone() for n, p in trainable(model).items()})
            if fault == "weight":
                with torch.no_grad():
                    model.get_base_model().lm_head.weight.view(-1)[5] = float("nan")

    chosen = settings(steps=6, evaluate_every=100)
    with pytest.raises(TuneworthError, match="not finite at step 3") as caught:
        train(model, trainable(model), rows, chosen, loss, hooks(on_record=on_record))
    assert caught.value.exit_code == 1
    assert "rows" in str(caught.value)
    assert [record["step"] for record in records] == [1, 2, 3]
    assert "loss" not in records[2]  # the step was not taken, and the record says why
    assert "not finite" in records[2]["warning"]
    assert all(torch.equal(p, snapshot[name]) for name, p in trainable(model).items())


@pytest.mark.parametrize("maximum_tokens", [1, 60, 110, 10**6])
def test_law_15_validation_loss_does_not_depend_on_how_rows_are_batched(maximum_tokens: int) -> None:
    model = tiny_model()
    with torch.no_grad():
        wanted = float(hand_loss(plain_twin(model), UNEVEN)) / 65
    assert total_loss(model, UNEVEN, maximum_tokens, "cpu") == pytest.approx(wanted, rel=1e-10)


def test_law_5_the_loss_is_log_softmax_by_hand_in_numpy() -> None:
    model = tiny_model()
    row = random_row("a", 4, 3, 8)
    with torch.no_grad():
        logits = plain_logits(plain_twin(model), row.ids).numpy()
        found = float(answer_loss(model, pack([row])))
    wanted = 0.0
    for index in (4, 5, 6):
        scores = logits[index - 1]
        wanted -= scores[row.ids[index]] - scores.max() - np.log(np.exp(scores - scores.max()).sum())
    assert logits.shape == (7, VOCABULARY)
    assert found == pytest.approx(wanted, rel=1e-12)


def test_law_16_a_longer_row_beside_it_leaves_a_rows_loss_and_gradient() -> None:
    model = tiny_model()
    row = random_row("a", 4, 3, 8)
    alone = first_gradients(tiny_model(), [row], {})
    silent = Row("long", tuple(random_ids(80, 3)), (False,) * 80)
    parameters = all_parameters(model)
    (answer_loss(model, pack([row, silent])) / 3).backward()
    assert all(close(parameter.grad, alone[name]) for name, parameter in parameters.items())


def test_clipping_scales_the_whole_gradient_to_the_given_norm() -> None:
    plain = first_gradients(tiny_model(), UNEVEN, {})
    norm = math.sqrt(sum(float(g.pow(2).sum()) for g in plain.values()))
    clipped = first_gradients(tiny_model(), UNEVEN, {"clip_norm": norm / 7})
    assert all(close(7 * clipped[name], plain[name], 1e-9) for name in plain)


def test_law_43_every_adapter_tensor_gets_a_gradient_and_every_b_moves() -> None:
    model = add_lora(tiny_model(), rank=4, alpha=8, seed=0)
    rows = [random_row(f"{i}", 3, 4, i) for i in range(6)]
    moments: list[dict[str, Tensor]] = []

    def save(checkpoint: Checkpoint) -> None:
        moments.append({n[6:]: t.clone() for n, t in checkpoint.tensors.items() if n.startswith("first/")})

    chosen = settings(steps=20, learning_rate=1e-3)
    assert len(trainable(model)) == 2 * 2 * 7  # A and B of 7 linear layers in 2 blocks, never the head
    train(model, trainable(model), rows, chosen, answer_loss, hooks(save=save))
    assert all(t.abs().max() > 0 for name, t in moments[0].items() if "lora_B" in name)
    assert all(t.abs().max() > 0 for t in moments[1].values())  # A moves once B is not zero any more
    assert all(p.norm() > 0 for name, p in trainable(model).items() if "lora_B" in name)


def test_law_44_bfloat16_parameters_have_float32_masters_that_all_move() -> None:
    model = tiny_model(dtype=torch.bfloat16)
    parameters = {n: p.requires_grad_(True) for n, p in model.named_parameters() if "proj" in n}
    before = {name: p.detach().float().clone() for name, p in parameters.items()}
    after: dict[str, Tensor] = {}

    def save(checkpoint: Checkpoint) -> None:
        after.update({n[7:]: t.clone() for n, t in checkpoint.tensors.items() if n.startswith("master/")})

    rows = [random_row(f"{i}", 3, 9, i) for i in range(8)]
    chosen = settings(steps=20, batch_size=4, learning_rate=1e-5, evaluate_every=20)
    train(model, parameters, rows, chosen, answer_loss, hooks(save=save))
    moved = sum(int((after[name].float() != before[name]).sum()) for name in parameters)
    assert all(master.dtype == torch.float32 for master in after.values())
    assert moved / sum(p.numel() for p in parameters.values()) > 0.99
    assert all(torch.equal(p, after[name].to(torch.bfloat16)) for name, p in parameters.items())


@pytest.mark.parametrize("best", [1, 2, 4, 5])
def test_law_47_the_model_ends_with_the_weights_of_its_best_evaluation(best: int) -> None:
    model = add_lora(tiny_model(), rank=2, alpha=4, seed=0)
    rows = [random_row(f"{i}", 3, 4, i) for i in range(6)]
    saved: dict[int, dict[str, Tensor]] = {}
    evaluated = 0

    def evaluate() -> dict[str, float]:
        nonlocal evaluated
        evaluated += 1
        assert not model.training
        return {"validation_loss": 1.0, "validation_score": 0.9 if evaluated == best else 0.1 * evaluated}

    def save(checkpoint: Checkpoint) -> None:
        saved[checkpoint.step] = {n[7:]: t.clone() for n, t in checkpoint.tensors.items() if n.startswith("master/")}

    outcome = train(model, trainable(model), rows, settings(steps=5), answer_loss, hooks(evaluate=evaluate, save=save))
    assert (outcome.steps, outcome.best_step, outcome.best_score) == (5, best, 0.9)
    assert not outcome.stopped_early
    assert not model.training
    assert all(torch.equal(p, saved[best][name]) for name, p in trainable(model).items())
    assert best == 5 or any(not torch.equal(p, saved[5][name]) for name, p in trainable(model).items())


def test_out_of_time_stops_after_a_step_with_an_evaluation_and_a_checkpoint() -> None:
    model = tiny_model()
    steps: list[int] = []
    chosen = settings(steps=9, evaluate_every=100, maximum_seconds=1e-9)
    rows = [random_row(f"{i}", 3, 4, i) for i in range(6)]
    limited = hooks(save=lambda checkpoint: steps.append(checkpoint.step))
    outcome = train(model, all_parameters(model), rows, chosen, answer_loss, limited)
    assert outcome.stopped_early
    assert (outcome.steps, outcome.best_step) == (1, 1)
    assert steps == [1]


def test_law_49_orders_differ_by_epoch_are_permutations_and_follow_seed_and_epoch_alone() -> None:
    lengths = [5 + i % 7 for i in range(40)]
    orders = [epoch_batches(lengths, 4, seed=3, epoch=epoch) for epoch in range(6)]
    for batches in orders:
        assert sorted(i for batch in batches for i in batch) == list(range(40))
        assert all(len(batch) == 4 for batch in batches)
    assert len({str(batches) for batches in orders}) == 6
    assert orders[2] == epoch_batches(lengths, 4, seed=3, epoch=2)
    assert orders[2] != epoch_batches(lengths, 4, seed=4, epoch=2)


def test_law_49_the_loop_walks_those_orders() -> None:
    rows = [random_row(f"{i}", 2 + i, 2, i) for i in range(6)]
    watched, model = Watched(), tiny_model()
    chosen = settings(steps=6, batch_size=2, evaluate_every=100, seed=5)
    train(model, all_parameters(model), rows, chosen, watched, hooks())
    lengths = [len(row.ids) for row in rows]
    wanted = [batch for epoch in (0, 1) for batch in epoch_batches(lengths, 2, 5, epoch)]
    assert [sorted(map(int, watched.seen[i : i + 2])) for i in range(0, 12, 2)] == [sorted(b) for b in wanted]


def test_law_3_micro_batches_keep_to_the_bound_and_lose_no_row() -> None:
    rows = [random_row(f"{i}", 1 + (7 * i) % 23, 2, i) for i in range(20)]
    parts = list(micro_batches(rows, 60))
    assert sorted(row.id for part in parts for row in part) == sorted(row.id for row in rows)
    assert all(len(part) * max(len(row.ids) for row in part) <= 60 for part in parts)
    assert len(list(micro_batches(rows, 1))) == 20


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        settings().steps = 3  # type: ignore[misc]
    assert isinstance(settings(), Settings)
