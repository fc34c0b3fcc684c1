"""What the loop does when something goes wrong or enough is enough: LAWS 3, 4, 14, 29, faults F6, F7 and F14."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from by_hand import UNEVEN, first_gradients
from torch import Tensor

from tiny import all_parameters, close, hooks, random_row, settings, tiny_model
from tuneworth.errors import MachineError
from tuneworth.models.adapters import add_lora, trainable
from tuneworth.training import Checkpoint, DivergedError, Pack, Settings, answer_loss, learning_rate, train
from tuneworth.training.alarms import alarm
from tuneworth.training.pace import Pace

ROWS = [random_row(f"{i}", 3, 4, i) for i in range(6)]


def rates(schedule: str, steps: int, warmup: int) -> list[float]:
    chosen = settings(steps=steps, warmup_steps=warmup, learning_rate=2.0, schedule=schedule)
    return [learning_rate(chosen, step) for step in range(steps)]


def test_law_4_the_cosine_is_its_closed_form() -> None:
    after = [1 + math.cos(math.pi * n / 8) for n in range(8)]
    assert rates("cosine", 10, 2) == pytest.approx([1.0, 2.0, *after], rel=1e-12)


def test_law_4_warmup_stable_decay_is_flat_and_falls_over_the_last_fifth() -> None:
    assert rates("warmup-stable-decay", 10, 2) == pytest.approx([1, 2, 2, 2, 2, 2, 2, 2, 2, 1], rel=1e-12)
    assert rates("warmup-stable-decay", 20, 0) == pytest.approx([2.0] * 17 + [1.5, 1.0, 0.5], rel=1e-12)
    assert rates("warmup-stable-decay", 3, 3) == pytest.approx([2 / 3, 4 / 3, 2])


@pytest.mark.parametrize("schedule", ["linear", "cosine", "warmup-stable-decay"])
def test_law_4_no_schedule_exceeds_its_peak_or_turns_negative(schedule: str) -> None:
    for steps, warmup in itertools.product((1, 2, 7, 50), (0, 1, 5)):
        assert all(0 <= rate <= 2.0 for rate in rates(schedule, steps, min(warmup, steps)))
        assert max(rates(schedule, steps, min(warmup, steps))) == pytest.approx(2.0)


def scored(scores: list[float]) -> Any:
    left = iter(scores)
    return lambda: {"validation_loss": 0.0, "validation_score": next(left)}


def test_patience_stops_after_that_many_evaluations_without_a_better_score() -> None:
    model = tiny_model()
    on = hooks(evaluate=scored([0.1, 0.5, 0.5, 0.2, 0.3, 0.9]))
    outcome = train(model, all_parameters(model), ROWS, settings(steps=6, patience=3), answer_loss, on)
    assert (outcome.steps, outcome.ended, outcome.best_score) == (5, "patience", 0.5)
    assert outcome.best_step == 3  # the later of two equal ones; only a better one counts as progress


def test_without_patience_no_score_ends_a_training() -> None:
    model = tiny_model()
    on = hooks(evaluate=scored([0.9, 0.1, 0.1, 0.1, 0.1, 0.1]))
    outcome = train(model, all_parameters(model), ROWS, settings(steps=6), answer_loss, on)
    assert (outcome.steps, outcome.ended, outcome.best_step) == (6, "steps", 1)


def test_law_48_a_training_that_ran_out_of_patience_does_not_go_on_when_resumed() -> None:
    saved: list[Checkpoint] = []
    model = tiny_model()
    on = hooks(evaluate=scored([0.5, 0.1, 0.1]), save=saved.append)
    first = train(model, all_parameters(model), ROWS, settings(steps=9, patience=2), answer_loss, on)
    model = tiny_model()
    chosen = settings(steps=9, patience=2)
    again = train(model, all_parameters(model), ROWS, chosen, answer_loss, hooks(evaluate=scored([])), saved[-1])
    assert (first.steps, first.ended) == (again.steps, again.ended) == (3, "patience")


def test_law_14_the_rows_that_make_the_loss_no_number_are_named_and_the_state_before_is_saved() -> None:
    def loss(model: torch.nn.Module, part: Pack) -> Tensor:
        value = answer_loss(model, part)
        return value * float("nan") if "4" in part.row_ids and seen else value

    model = add_lora(tiny_model(), rank=2, alpha=4, seed=0)
    seen: list[int] = []
    saved: list[Checkpoint] = []

    def save(checkpoint: Checkpoint) -> None:
        saved.append(replace(checkpoint, tensors={n: t.clone() for n, t in checkpoint.tensors.items()}))

    def on_record(record: Mapping[str, Any]) -> None:
        if record["step"] == 4:  # after the first epoch row 4 goes bad
            seen.append(1)

    chosen = settings(steps=9, batch_size=2, evaluate_every=100)
    with pytest.raises(DivergedError, match="rows 4") as caught:
        train(model, trainable(model), ROWS, chosen, loss, hooks(on_record=on_record, save=save))
    assert caught.value.row_ids == ("4",)
    assert "learning_rate" in caught.value.problems[0].cure
    (kept,) = saved
    assert f"step {kept.step + 1}" in str(caught.value)
    assert all(torch.equal(p, kept.tensors[f"master/{n}"]) for n, p in trainable(model).items())
    assert all(torch.isfinite(t).all() for t in kept.tensors.values())


def test_law_14_at_the_very_first_step_nothing_is_saved() -> None:
    model = tiny_model()
    saved: list[Checkpoint] = []
    with pytest.raises(DivergedError):
        train(
            model, all_parameters(model), ROWS, settings(), lambda m, p: answer_loss(m, p) / 0, hooks(save=saved.append)
        )
    assert not saved


def test_f14_a_loss_spike_is_in_its_step_record_and_the_loss_is_not_smoothed() -> None:
    model = tiny_model()
    calls = itertools.count(1)

    def loss(model: torch.nn.Module, part: Pack) -> Tensor:
        return answer_loss(model, part) * (50 if next(calls) == 9 else 1)

    records: list[Mapping[str, Any]] = []
    chosen = settings(steps=12, learning_rate=0.0, batch_size=6, evaluate_every=4)
    train(model, all_parameters(model), ROWS, chosen, loss, hooks(on_record=records.append))
    steps = [record for record in records if "loss" in record]
    assert [record["step"] for record in steps if "warning" in record] == [9]
    assert steps[8]["warning"].startswith("loss spike")
    assert steps[8]["loss"] == pytest.approx(50 * steps[7]["loss"])


def test_f14_spikes_need_five_steps_twice_the_median_and_half_a_nat() -> None:
    assert alarm(9.0, [1.0] * 4, 5, 100) is None
    assert alarm(9.0, [1.0] * 5, 6, 100) is not None
    assert alarm(1.9, [1.0] * 20, 30, 100) is None
    assert alarm(2.1, [1.0] * 20, 30, 100) is not None
    assert alarm(0.4, [0.1] * 20, 30, 100) is None  # four times as much of very little
    assert alarm(2.1, [1.0] * 19 + [30.0], 30, 100) is not None  # an earlier spike hides no later one


def test_law_29_a_loss_that_starts_at_nothing_is_warned_of() -> None:
    assert "answers may stand in the prompts" in str(alarm(0.009, [], 1, 10))
    assert alarm(0.009, [], 2, 10) is None
    assert alarm(0.009, [0.02], 2, 100) is not None
    assert alarm(0.02, [], 1, 100) is None


def failing(fits: int, kind: str, seen: list[int]) -> Any:
    """A loss that runs out of memory, halfway into its work, in micro-batches of more than `fits` tokens."""

    def loss(model: torch.nn.Module, part: Pack) -> Tensor:
        slots = part.ids.shape[1]
        seen.append(slots)
        if slots > fits:
            answer_loss(model, part).backward()  # gradients of a pass that did not end must not count
            raise {
                "gpu": torch.OutOfMemoryError("CUDA out of memory."),
                "cpu": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
                "python": MemoryError(),
            }[kind]
        return answer_loss(model, part)

    return loss


@pytest.mark.parametrize("kind", ["gpu", "cpu", "python"])
def test_f7_out_of_memory_halves_the_micro_batch_and_the_gradients_stay_the_same(kind: str) -> None:
    wanted = first_gradients(tiny_model(), UNEVEN, {})
    model, seen, records = tiny_model(), [], []
    found: dict[str, Tensor] = {}

    def save(checkpoint: Checkpoint) -> None:
        if not found:
            found.update({n[6:]: t / 0.1 for n, t in checkpoint.tensors.items() if n.startswith("first/")})

    chosen = settings(steps=2, batch_size=4)
    on = hooks(save=save, on_record=records.append)
    train(model, all_parameters(model), UNEVEN, chosen, failing(100, kind, seen), on)
    assert all(close(found[name], wanted[name]) for name in wanted)
    first, _, second, _ = records
    assert "out of memory" in first["warning"]
    assert "warning" not in second
    assert sum(slots > 100 for slots in seen) == 1  # the second step is cut small from the start


@pytest.mark.parametrize("kind", ["gpu", "python"])
def test_f6_out_of_memory_twice_is_exit_code_3_and_says_what_would_fit(kind: str) -> None:
    model = tiny_model()
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(MachineError, match="out of memory at step 1") as caught:
        train(model, all_parameters(model), UNEVEN, settings(batch_size=4), failing(9, kind, []), hooks())
    assert caught.value.exit_code == 3
    assert "has 50 tokens" in str(caught.value)
    assert "LoRA" in caught.value.problems[0].cure
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_another_fault_of_torch_is_not_taken_for_missing_memory() -> None:
    def loss(model: torch.nn.Module, part: Pack) -> Tensor:
        raise RuntimeError("shapes cannot be multiplied")

    model = tiny_model()
    with pytest.raises(RuntimeError, match="multiplied"):
        train(model, all_parameters(model), ROWS, settings(), loss, hooks())


def simulated(chosen: Settings, step_seconds: list[float], a_look: float) -> list[tuple[float, float]]:
    """(seconds left as shown, seconds that were left) at every step."""
    pace, now, shown = Pace(chosen), 0.0, []
    for step, took in enumerate(step_seconds, 1):
        now += took
        pace.step_took(took)
        shown.append((pace.seconds_left(step, now), now))
        if step % chosen.evaluate_every == 0 or step == chosen.steps:
            now += a_look
            pace.evaluation_took(a_look)
    return [(left, now - at) for left, at in shown]


def test_f11_the_time_left_is_never_negative_settles_and_ends_at_the_last_evaluation() -> None:
    chosen = settings(steps=40, evaluate_every=10, evaluation_seconds=21.0)
    times = [9.0, *([1.0, 2.0, 1.5] * 13)]  # a slow first step, then rows of uneven length
    told = simulated(chosen, times, a_look=20.0)
    assert all(left >= 0 for left, _ in told)
    assert all(abs(left - true) <= 0.25 * true for left, true in told[3:])
    changes = [before[0] - after[0] for before, after in itertools.pairwise(told[3:])]
    assert all(-3.0 < change < 30.0 for change in changes)  # it falls by what a step or an evaluation takes
    assert told[-1][0] == pytest.approx(20.0)


def test_the_time_left_keeps_to_the_clock() -> None:
    pace = Pace(settings(steps=100, evaluate_every=50, maximum_seconds=30.0))
    pace.step_took(1.0)
    assert pace.seconds_left(1, 10.0) == pytest.approx(20.0)
    assert pace.seconds_left(90, 31.0) == 0.0


def test_every_look_settles_how_many_steps_fit_into_the_time_that_is_left() -> None:
    chosen = settings(steps=100, evaluate_every=25, maximum_seconds=240.0, evaluation_seconds=5.0, most_steps=200)

    def after_a_quarter(step_seconds: float, *, most: int = 200) -> Settings:
        pace = Pace(chosen)
        for _ in range(25):
            pace.step_took(step_seconds)
        pace.evaluation_took(8.0)
        pace.saving_took(2.0)
        return pace.settled(replace(chosen, most_steps=most), 25, 25 * step_seconds + 10.0)

    quick, slow, slowest = after_a_quarter(1.0), after_a_quarter(4.0), after_a_quarter(10.0)
    assert (quick.steps, quick.evaluate_every, quick.settled_at) == (200, 59, 25)  # 205 s less three looks: 175 steps
    assert slow.steps == 25 + 25  # 130 s less three looks are 100 s
    assert slowest.steps == 26
    assert after_a_quarter(1.0, most=120).steps == 120
    endless = replace(chosen, maximum_seconds=math.inf)
    assert Pace(endless).settled(endless, 25, 10.0) == endless


def test_a_training_gives_up_the_time_that_answers_after_it_really_take() -> None:
    chosen = settings(steps=100, evaluate_every=25, maximum_seconds=240.0, most_steps=200, seconds_after=60.0)
    pace = Pace(chosen)
    for _ in range(25):
        pace.step_took(2.0)
    pace.evaluation_took(10.0)
    assert pace.settled(chosen, 25, 60.0).steps == 25 + 75  # 180 s less three looks
    pace.after_takes(100.0)  # a model that has learnt something answers more slowly
    assert pace.settled(chosen, 25, 60.0).steps == 25 + 55
    pace.after_takes(40.0)
    assert pace.settled(chosen, 25, 60.0).steps == 25 + 85


def test_the_loop_gives_up_time_for_what_an_evaluation_says_comes_after() -> None:
    def steps(after: float) -> tuple[int, list[Mapping[str, Any]]]:
        model, records = tiny_model(), []
        chosen = settings(steps=8, evaluate_every=2, maximum_seconds=1e6, most_steps=8, seconds_after=10.0)
        scores = {"validation_loss": 0.0, "validation_score": 0.0, "seconds_after": after}
        watched = hooks(evaluate=lambda: scores, on_record=records.append)
        return train(model, all_parameters(model), ROWS, chosen, answer_loss, watched).steps, records

    assert steps(10.0)[0] == 8
    taken, records = steps(2e6)
    assert taken == 3  # after the look at 2 there is time for nothing, and one step is the least
    assert not any("seconds_after" in record for record in records)
    assert [(record["step"], record["steps"]) for record in records if "steps" in record] == [(2, 3), (3, 3)]


@pytest.mark.parametrize(("step_seconds", "expected"), [(1.0, None), (4.0, None), (2.0, (8.0, 0.0)), (2.0, (4.0, 9.0))])
def test_a_training_with_one_look_settles_its_steps_half_way(
    monkeypatch: pytest.MonkeyPatch, step_seconds: float, expected: tuple[float, float] | None
) -> None:
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr("tuneworth.training.loop.time", clock)
    chosen = settings(
        steps=8, evaluate_every=8, maximum_seconds=40.0, most_steps=20, evaluation_seconds=4.0, warmup_steps=0,
        seconds_after=3.0,
    )  # fmt: skip
    model, records = tiny_model(), []

    def evaluate() -> dict[str, float]:
        clock.now += 4.0
        return {"validation_loss": 0.0, "validation_score": 0.0}

    def slow_loss(model: torch.nn.Module, pack: Pack) -> Tensor:
        clock.now += step_seconds
        return answer_loss(model, pack)

    def expect(a_row: float) -> dict[str, float]:
        assert expected is not None and a_row == step_seconds / chosen.batch_size
        clock.now += 2.0
        return dict(zip(("evaluation_seconds", "seconds_after"), expected, strict=True))

    watched = hooks(evaluate=evaluate, on_record=records.append, expect=expect if expected else None)
    outcome = train(model, all_parameters(model), ROWS, chosen, slow_loss, watched)
    # Seconds left after 4 steps: 36, 24, 30 (32 less the 2 that were measured) and 3 more, and 6 fewer; less the look.
    wanted = {(1.0, None): 20, (4.0, None): 4 + 5, (2.0, (8.0, 0.0)): 4 + 12, (2.0, (4.0, 9.0)): 4 + 10}
    assert outcome.steps == wanted[step_seconds, expected]
    assert [record["step"] for record in records if "steps" in record] == [outcome.steps]
    assert clock.now <= 40.0 + (0.0 if expected is None else 3.0 - expected[1])
    rates = [record["learning_rate"] for record in records if "learning_rate" in record]
    assert rates[-1] == min(rates)  # the rate falls to the end that was settled


@pytest.mark.parametrize("changes", [{"most_steps": None, "maximum_seconds": 1e6}, {"most_steps": 8}])
def test_a_training_whose_length_is_fixed_times_no_answers_half_way(changes: dict[str, Any]) -> None:
    def expect(a_row: float) -> dict[str, float]:
        raise AssertionError("nothing can be settled with it")

    model = tiny_model()
    chosen = settings(steps=4, evaluate_every=4, **changes)
    assert train(model, all_parameters(model), ROWS, chosen, answer_loss, hooks(expect=expect)).steps == 4


def test_a_length_that_was_settled_half_way_is_saved_with_a_training_that_diverges() -> None:
    model, saved, steps = tiny_model(), [], []

    def loss(model: torch.nn.Module, pack: Pack) -> Tensor:
        steps.append(pack)
        return answer_loss(model, pack) * (float("nan") if len(steps) >= 7 else 1.0)

    chosen = settings(steps=8, evaluate_every=8, maximum_seconds=1e6, most_steps=20)
    with pytest.raises(DivergedError):
        train(model, all_parameters(model), ROWS, chosen, loss, hooks(save=saved.append))
    assert [(each.step, each.length) for each in saved] == [(6, (20, 16, 4))]


def test_time_is_up_when_a_step_and_the_look_after_it_no_longer_fit() -> None:
    pace = Pace(settings(steps=100, evaluate_every=50, maximum_seconds=30.0, evaluation_seconds=5.0))
    pace.step_took(2.0)
    assert not pace.is_up(23.0)
    assert pace.is_up(23.5)
    pace.evaluation_took(10.0)
    assert pace.is_up(18.5)
