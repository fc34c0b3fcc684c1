"""Direct preference optimisation: LAWS 1, 2, 3, 19 to 22, 47 and 48 for pairs."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tiny import (
    CHATML,
    MISTRAL,
    all_parameters,
    close,
    hooks,
    plain_logits,
    plain_twin,
    random_ids,
    settings,
    tiny_model,
    tiny_renderer,
)
from tuneworth.errors import InputError
from tuneworth.models.adapters import add_lora, trainable
from tuneworth.training import (
    Checkpoint,
    Pair,
    Row,
    pair_packs,
    preference_loss,
    preference_scores,
    train,
    with_reference,
)
from tuneworth.training.preference import margins

BETA = 0.3
SYSTEM = random_ids(6, seed=80)


def answered(name: str, prompt: list[int], answer: list[int]) -> Row:
    return Row(name, (*prompt, *answer), (False,) * len(prompt) + (True,) * len(answer))


def pair(name: str, prompt: int, chosen: int, rejected: int, seed: int) -> Pair:
    asked = [*SYSTEM, *random_ids(prompt, seed)]
    return Pair.of(
        answered(name, asked, random_ids(chosen, seed + 100)), answered(name, asked, random_ids(rejected, seed + 200))
    )


PAIRS = [pair("a", 4, 3, 9, 1), pair("b", 11, 8, 1, 2), pair("c", 2, 17, 2, 3), pair("d", 6, 5, 5, 4)]


def hand_sum(twin: torch.nn.Module, row: Row) -> Tensor:
    """Sum of log p over the answer, one plain forward pass."""
    predicted = torch.log_softmax(plain_logits(twin, row.ids), -1)
    return sum((predicted[i - 1, row.ids[i]] for i in range(1, len(row.ids)) if row.trained[i]), torch.zeros(()))


def hand_loss(twin: torch.nn.Module, reference: torch.nn.Module, pairs: list[Pair]) -> Tensor:
    """The formula of the paper, summed over pairs."""
    total = torch.zeros((), dtype=torch.float64)
    for each in pairs:
        policy = hand_sum(twin, each.chosen) - hand_sum(twin, each.rejected)
        with torch.no_grad():
            held = hand_sum(reference, each.chosen) - hand_sum(reference, each.rejected)
        total = total + torch.log(1 + torch.exp(-BETA * (policy - held)))
    return total


def first_gradients(model: Any, pairs: list[Pair], maximum_tokens: int) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def save(checkpoint: Checkpoint) -> None:
        found.update({n[6:]: t / 0.1 for n, t in checkpoint.tensors.items() if n.startswith("first/")})

    chosen = settings(steps=1, batch_size=len(pairs), maximum_tokens=maximum_tokens)
    train(model, all_parameters(model), pairs, chosen, preference_loss(BETA), hooks(save=save), batches=pair_packs)
    return found


@pytest.mark.parametrize("maximum_tokens", [1, 70, 10**6])
def test_law_2_and_3_gradients_of_pairs_do_not_depend_on_how_a_batch_is_cut(maximum_tokens: int) -> None:
    reference, model = tiny_model(seed=5), tiny_model(seed=6)
    pairs = with_reference(reference, PAIRS, 100, "cpu")
    twin = plain_twin(model)
    loss = hand_loss(twin, plain_twin(reference), PAIRS) / len(PAIRS)
    loss.backward()
    found = first_gradients(model, pairs, maximum_tokens)
    for name, parameter in twin.named_parameters():
        assert close(found[name], parameter.grad), name


def test_law_2_a_logged_loss_of_pairs_is_their_sum_divided_once_by_their_number() -> None:
    reference, model = tiny_model(seed=5), tiny_model(seed=6)
    pairs = with_reference(reference, PAIRS, 100, "cpu")
    with torch.no_grad():
        wanted = float(hand_loss(plain_twin(model), plain_twin(reference), PAIRS)) / 4
    records: list[Mapping[str, Any]] = []
    chosen = settings(steps=1, batch_size=4, maximum_tokens=50)
    train(
        model, all_parameters(model), pairs, chosen, preference_loss(BETA), hooks(on_record=records.append),
        batches=pair_packs,
    )  # fmt: skip
    assert records[0]["loss"] == pytest.approx(wanted, rel=1e-10)
    assert (records[0]["rows"], records[0]["trained_tokens"]) == (4, 50)


@pytest.mark.parametrize("maximum_tokens", [1, 60, 10**6])
def test_law_19_and_20_margins_are_sums_over_answer_tokens_whatever_stands_beside(maximum_tokens: int) -> None:
    model = tiny_model()
    twin = plain_twin(model)
    with torch.no_grad():
        wanted = {p.id: hand_sum(twin, p.chosen) - hand_sum(twin, p.rejected) for p in PAIRS}
        seen = []
        for packed in pair_packs(PAIRS, maximum_tokens, "cpu"):
            for name, found in zip(packed.row_ids[::2], margins(model, packed), strict=True):
                assert close(found, wanted[name])
                seen.append(name)
    assert sorted(seen) == ["a", "b", "c", "d"]


def test_law_19_a_pair_with_an_empty_answer_is_refused_by_name() -> None:
    asked = [1, 2, 3]
    empty = Pair.of(answered("bad", asked, [4, 5]), Row("bad", (1, 2, 3), (False,) * 3))
    model = tiny_model()
    with pytest.raises(InputError, match=r"1 rows.*'bad'"):
        train(
            model, all_parameters(model), [PAIRS[0], empty], settings(), preference_loss(BETA), hooks(),
            batches=pair_packs,
        )  # fmt: skip


def test_law_21_two_prompts_in_one_pair_are_refused() -> None:
    with pytest.raises(InputError, match="different prompts"):
        Pair.of(answered("a", [1, 2, 3], [4]), answered("a", [1, 2], [3, 4]))


TEXT = st.text(st.sampled_from("aé \n日🙂the<|im_end|>"), max_size=12)


@pytest.mark.parametrize("template", [CHATML, MISTRAL])
@given(prompt=TEXT, chosen=TEXT, rejected=TEXT)
def test_law_21_both_answers_stand_behind_the_same_prompt_ids(
    template: str, prompt: str, chosen: str, rejected: str
) -> None:
    renderer = tiny_renderer(template)
    rows = []
    for answer in (chosen, rejected):
        told = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        rendered = renderer.training(told)
        rows.append(Row("a", rendered.ids, rendered.trained))
    made = Pair.of(*rows)  # refuses prompts that differ
    asked = renderer.prompt([{"role": "user", "content": prompt}])
    assert list(made.chosen.ids[: len(asked)]) == list(made.rejected.ids[: len(asked)]) == asked


@pytest.mark.parametrize("method", ["lora", "full", "dropout"])
def test_law_22_before_the_first_step_the_loss_is_ln_2_and_every_margin_zero(method: str) -> None:
    model: Any = tiny_model() if method == "full" else add_lora(tiny_model(), rank=2, alpha=4, seed=0)
    if method == "dropout":
        for module in model.modules():
            if hasattr(module, "lora_dropout"):
                module.lora_dropout["default"] = torch.nn.Dropout(0.5)
                vars(module).pop("forward", None)  # peft's own forward, which applies it
                with torch.no_grad():
                    module.lora_B["default"].weight.normal_(std=0.2)
        model.train()
    parameters = all_parameters(model) if method == "full" else trainable(model)
    pairs = with_reference(model, PAIRS, 70, "cpu")
    again = with_reference(model.train(), PAIRS, 70, "cpu")
    assert pairs == again
    records: list[Mapping[str, Any]] = []
    chosen = settings(steps=2, batch_size=4, maximum_tokens=10**6, learning_rate=1e-3)
    on = hooks(on_record=records.append)
    train(model, parameters, pairs, chosen, preference_loss(BETA), on, batches=pair_packs)
    losses = [record["loss"] for record in records if "loss" in record]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-12)
    assert losses[1] < losses[0] - 1e-3
    assert any(pair.reference != 0 for pair in pairs)


def test_preferences_are_learnt_and_scored_on_pairs() -> None:
    model = tiny_model()
    pairs = with_reference(model, PAIRS, 200, "cpu")
    start = preference_scores(model, pairs, BETA, 200, "cpu")
    assert start["validation_loss"] == pytest.approx(math.log(2), abs=1e-12)
    chosen = settings(steps=30, batch_size=4, learning_rate=3e-3, evaluate_every=30)
    train(model, all_parameters(model), pairs, chosen, preference_loss(BETA), hooks(), batches=pair_packs)
    end = preference_scores(model, pairs, BETA, 200, "cpu")
    assert end["validation_reward_accuracy"] == 1.0
    assert 0 <= start["validation_score"] <= end["validation_score"] <= 1
    assert end["validation_loss"] < 0.3


def test_law_48_a_training_on_pairs_resumes_bit_for_bit() -> None:
    saved: dict[int, Checkpoint] = {}

    def save(checkpoint: Checkpoint) -> None:
        tensors = {name: tensor.detach().clone() for name, tensor in checkpoint.tensors.items()}
        saved[checkpoint.step] = replace(checkpoint, tensors=tensors)

    def run(resume: Checkpoint | None) -> dict[str, Tensor]:
        model = add_lora(tiny_model(dtype=torch.bfloat16), rank=2, alpha=4, seed=0)
        pairs = with_reference(model, PAIRS, 70, "cpu")  # asked before anything is restored
        torch.manual_seed(random.randrange(10**6))
        chosen = settings(steps=6, maximum_tokens=70)
        on = hooks(save=save)
        train(model, trainable(model), pairs, chosen, preference_loss(BETA), on, resume, batches=pair_packs)
        return {name: p.detach().clone() for name, p in trainable(model).items()}

    whole = run(None)
    again = run(saved[3])
    assert all(torch.equal(again[name], whole[name]) for name in whole)
