"""What is timed before a plan: answers by their parts, a training by its own steps, requests asked alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tiny import settings, tiny_model, tiny_renderer
from tuneworth.data.example import Example, Message
from tuneworth.evaluation import fitting
from tuneworth.evaluation import local as local_module
from tuneworth.evaluation.fitting import Fit, fit_preferences, fit_rows
from tuneworth.evaluation.forecast import training_rate
from tuneworth.evaluation.local import LocalModel, Scoring
from tuneworth.evaluation.metrics import choose_metric
from tuneworth.evaluation.prompts import PromptForm
from tuneworth.models.sources import ModelFolder
from tuneworth.models.tuning import Recipe
from tuneworth.plan import Rate
from tuneworth.task import Task
from tuneworth.training import Hooks, Outcome

FORM = PromptForm("full", "")
ROWS = [Example(f"{i}", (Message("user", "q" * (3 + i)),), "ab", "rows.csv", 2 + i) for i in range(16)]
MANY = [*ROWS, *(replace(row, id=f"{row.id}-again") for row in ROWS)]
LENGTH = 30  # tokens of every answer that is not cut


def scoring(labels: tuple[str, ...] = ()) -> Scoring:
    kind = "classification" if labels else "generation"
    return Scoring(
        choose_metric(Task.model_validate({"data": {"train": "x"}}), kind, labels), labels, 100, "generate", kind
    )


def a_model() -> LocalModel:
    return LocalModel(ModelFolder("tiny", Path("/nowhere"), "0" * 64, None, 512), tiny_renderer(), tiny_model(), "cpu")


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> LocalModel:
    """A model on a clock: reading takes 0.5 s a row (but none in a batch that was asked before), each further token 0.2
    s a pass and 0.01 s a row; the first call takes 10 s more."""
    clock = SimpleNamespace(now=0.0, first=True)
    read: set[str] = set()

    def answer(
        self: LocalModel, form: Any, rows: Sequence[Example], scoring: Scoring, on_done: Any = None
    ) -> list[Any]:
        tokens = min(LENGTH, scoring.max_new_tokens)
        new = {row.id for row in rows} - (read if len(rows) > 1 else set())
        clock.now += 10 * clock.first + 0.5 * len(new) + (tokens - 1) * (0.2 + 0.01 * len(rows))
        clock.first = False
        read.update(new)
        return [SimpleNamespace(output_tokens=tokens, text="ab", score=1.0) for _ in rows]

    for module in (local_module, fitting):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(LocalModel, "answer", answer)
    monkeypatch.setattr(local_module, "score", lambda rows, raw, metric: raw)
    return a_model()


def test_a_written_answer_is_timed_as_it_is_side_by_side_with_many(local: LocalModel) -> None:
    rate = local.answer_rate(FORM, MANY, scoring())
    assert rate.a_row == pytest.approx((16 * 0.5 + (LENGTH - 1) * 0.36) / 16)
    assert rate.once == pytest.approx(10 + 4 * 0.5 + (LENGTH - 1) * 0.24 - 4 * rate.a_row)


def test_an_answer_that_is_to_be_learnt_is_as_long_as_those_that_teach_it(local: LocalModel) -> None:
    assert local.answer_rate(FORM, MANY, scoring(), 11.0).a_row == pytest.approx((16 * 0.5 + 10 * 0.36) / 16)


def test_an_answer_that_is_chosen_is_timed_whole(local: LocalModel) -> None:
    rate = local.answer_rate(FORM, MANY, scoring(("a", "b")))  # 5 rows first, then the other 16 that are timed
    assert rate.a_row == pytest.approx((16 * 0.5 + (LENGTH - 1) * 0.36) / 16)


@pytest.mark.parametrize("labels", [("a", "b"), ()])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_few_rows_are_timed_too(local: LocalModel, labels: tuple[str, ...], count: int) -> None:
    rate = local.answer_rate(FORM, ROWS[:count], scoring(labels))
    assert rate.a_row > 0.2 and rate.once > 0


@pytest.mark.parametrize("labels", [("a", "b"), ()])
def test_requests_asked_alone_are_fewer_where_they_are_slow(local: LocalModel, labels: tuple[str, ...]) -> None:
    slow = local.details(FORM, ROWS, scoring(labels))  # 6.6 s each
    assert slow["flip_rows"] == 5
    quick = local.details(FORM, ROWS, replace(scoring(labels), max_new_tokens=1))  # 0.5 s each, over 5 s after the 11th
    assert quick["flip_rows"] == 11


def test_a_look_says_what_the_answers_after_the_training_will_take(
    local: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Mapping[str, float]] = []

    def train(*given: Any, **more: Any) -> Outcome:
        hooks: Hooks = given[5]
        local.answer(FORM, [], scoring())  # the first call is over
        seen.append(hooks.evaluate())
        return Outcome(1, 1, 0.0, 0.0, "steps")

    monkeypatch.setattr(fitting, "train", train)
    monkeypatch.setattr(fitting, "total_loss", lambda *given: 0.0)
    rows, _ = local.training_rows(FORM, ROWS)
    with local.tuned(Recipe("lora", 2, 4, 0)):
        fit = Fit(settings(steps=1), scoring(), lambda record: None, lambda checkpoint: None, answers_after=100.0)
        fit_rows(local, FORM, rows, ROWS, fit)
    a_row = (16 * 0.5 + (LENGTH - 1) * 0.36) / 16
    assert seen[0]["seconds_after"] == pytest.approx(1.12 * (4 + 100 * a_row))


@pytest.mark.parametrize("labels", [("a", "b"), ()])
def test_half_way_answers_that_are_written_are_timed(
    local: LocalModel, monkeypatch: pytest.MonkeyPatch, labels: tuple[str, ...]
) -> None:
    asked: list[Hooks] = []

    def train(*given: Any, **more: Any) -> Outcome:
        asked.append(given[5])
        if given[5].expect is not None:
            found = given[5].expect(2.0)
            assert found["evaluation_seconds"] == pytest.approx(1.12 * (3.0 + len(MANY) * (0.5 + 0.45 * 2.0)))
            assert found["seconds_after"] == pytest.approx(1.12 * (4 + 3.0 + 100 * 0.5))
        return Outcome(1, 1, 0.0, 0.0, "steps")

    monkeypatch.setattr(fitting, "train", train)
    monkeypatch.setattr(LocalModel, "answer_rate", lambda *given: Rate(3.0, 0.5))
    rows, _ = local.training_rows(FORM, ROWS)
    with local.tuned(Recipe("lora", 2, 4, 0)):
        chosen = replace(scoring(labels), decoding="constrained")
        fit = Fit(settings(steps=1), chosen, lambda record: None, lambda checkpoint: None, answers_after=100.0)
        fit_rows(local, FORM, rows, MANY, fit)
    assert (asked[0].expect is None) == bool(labels)  # what is chosen takes as long as planned


@pytest.mark.parametrize("method", ["lora", "full"])
def test_timing_a_training_leaves_the_model_as_it_was(method: str) -> None:
    model = a_model()
    before = {name: weight.clone() for name, weight in model.model.state_dict().items()}
    assert training_rate(model, FORM, ROWS, "generation", 4, Recipe(method, 2, 4, 0), 4096) > 0
    after = model.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_what_a_training_is_timed_by_are_whole_steps_of_the_loop_and_the_second_time_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def train(model: Any, parameters: Any, rows: Any, chosen: Any, loss: Any, hooks: Hooks, **more: Any) -> None:
        assert (chosen.steps, chosen.batch_size, chosen.learning_rate) == (8, 4, 0.0)
        for step in range(chosen.steps):
            hooks.on_record({"step": step + 1, "rows": 4, "step_seconds": 9.0 if step < 4 else 2.0})
        hooks.on_record({"step": chosen.steps, "validation_score": 0.0})

    monkeypatch.setattr("tuneworth.evaluation.forecast.train", train)
    assert training_rate(a_model(), FORM, ROWS, "generation", 4, Recipe("lora", 2, 4, 0), 4096) == 0.5


def test_what_pairs_take_before_the_first_step_is_part_of_a_trainings_time(
    local: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    def train(*given: Any, **more: Any) -> Outcome:
        seen.append(given[3].maximum_seconds)
        return Outcome(1, 1, 0.0, 0.0, "steps")

    def with_reference(*given: Any) -> list[Any]:
        local.answer(FORM, ROWS[:2], replace(scoring(), max_new_tokens=1))  # 11 s, then 1 s
        return []

    monkeypatch.setattr(fitting, "train", train)
    monkeypatch.setattr(fitting, "with_reference", with_reference)
    with local.tuned(Recipe("lora", 2, 4, 0)):
        chosen = replace(settings(steps=1), maximum_seconds=60.0)
        fit_preferences(local, [], [], 0.1, Fit(chosen, scoring(), lambda record: None, lambda checkpoint: None))
    assert seen[0] <= 60.0 - 11.0
