"""Choosing among prompt forms: on validation alone, within the time that there is, and on the same rows for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rows import raw

from tuneworth.data import Example, Message
from tuneworth.evaluation import choosing
from tuneworth.evaluation.arms import Bench
from tuneworth.evaluation.choosing import choose
from tuneworth.evaluation.local import Scoring
from tuneworth.evaluation.metrics import choose_metric
from tuneworth.evaluation.prompted import prompt_arm
from tuneworth.evaluation.records import RawAnswer
from tuneworth.evaluation.watching import Silent
from tuneworth.plan import rows_asked
from tuneworth.store.run import RunFolder, read_arm
from tuneworth.task import Task

LABELS = ("late", "pay")
VALIDATION, TEST = 200, 50


@dataclass
class Form:
    """A prompt form that gets this share of the rows right."""

    name: str
    right: float


@dataclass
class Model:
    """Takes so many seconds a row by a clock of its own, and as many as `once` whenever a form is new."""

    a_row: float
    once: float = 0.0
    now: float = 0.0
    asked: dict[str, list[str]] = field(default_factory=dict)
    name: str = "slow"

    def answer(
        self, form: Form, examples: Sequence[Example], scoring: Scoring, on_done: Callable[[int], None]
    ) -> list[RawAnswer]:
        self.now += self.a_row * len(examples) + (self.once if form.name not in self.asked else 0.0)
        self.asked.setdefault(form.name, []).extend(example.id for example in examples)
        limit = form.right * VALIDATION
        return [raw(row.answer if int(row.id[1:]) < limit else "neither") for row in examples]

    def suited(self, scoring: Scoring) -> Scoring:
        return scoring

    def usd(self, answers: Sequence[RawAnswer]) -> float:
        return 0.0


class Notes(Silent):
    """Keeps what a person is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def rows(part: str, count: int) -> tuple[Example, ...]:
    return tuple(Example(f"{part}{n}", (Message("user", f"{part} {n}"),), LABELS[n % 2], part, n) for n in range(count))


def bench(folder: Path) -> Bench:
    scoring = Scoring(choose_metric(Task(), "classification", LABELS), LABELS, 8, "constrained", "classification")
    return Bench(
        Task(),
        "classification",
        scoring,
        rows("a", 20),
        rows("v", VALIDATION),
        rows("t", TEST),
        RunFolder(folder),
        Notes(),
    )


FORMS: Any = [Form("poor", 0.4), Form("good", 0.8)]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Model], Any]:
    def with_clock_of(model: Model) -> Any:
        monkeypatch.setattr(choosing, "time", SimpleNamespace(perf_counter=lambda: model.now))
        return model

    return with_clock_of


def test_law_7_choosing_asks_validation_alone_and_each_row_once(tmp_path: Path, timed: Callable[[Model], Any]) -> None:
    model = timed(Model(0.1))
    choice = choose(bench(tmp_path), "few-shot", model, FORMS)
    assert choice.form.name == "good"
    assert [one["rows"] for one in choice.tried] == [VALIDATION, VALIDATION]
    for asked in model.asked.values():
        assert sorted(asked) == sorted(row.id for row in rows("v", VALIDATION))


def test_law_7_sixteen_forms_take_the_answers_that_halving_plans(tmp_path: Path, timed: Callable[[Model], Any]) -> None:
    forms: Any = [Form(f"f{n}", n / 20) for n in range(16)]
    for seconds in (float("inf"), 1e9):  # asked in parts or at once, the same rows
        model = timed(Model(0.1))
        assert choose(bench(tmp_path), "searched", model, forms, seconds).form.name == "f15"
        assert sum(map(len, model.asked.values())) == rows_asked(16, VALIDATION)


def test_a_budget_is_kept_where_rows_take_longer_than_planned(tmp_path: Path, timed: Callable[[Model], Any]) -> None:
    planned = (2 * VALIDATION + TEST) * 0.1
    for slower in (2.0, 3.0):
        model, at = timed(Model(0.1 * slower)), bench(tmp_path)
        choice = choose(at, "few-shot", model, FORMS, planned)
        assert choice.form.name == "good"
        assert model.now + TEST * model.a_row <= planned
        counts = {one["rows"] for one in choice.tried}
        assert len(counts) == 1 and 16 < counts.pop() < VALIDATION
        assert sorted(model.asked["poor"]) == sorted(model.asked["good"])
        assert isinstance(at.watcher, Notes) and "more than planned" in at.watcher.said[0]


def test_a_prompt_that_would_take_the_time_of_what_comes_after_is_left_out_and_says_why(
    tmp_path: Path, timed: Callable[[Model], Any]
) -> None:
    model, at = timed(Model(1.0)), bench(tmp_path)
    prompt_arm(at, "few-shot", model, FORMS, 40.0, 100.0)  # 64 answers choose, 50 more are test
    record = read_arm(at.folder, "few-shot")
    assert record["status"] == "skipped"
    assert record["why"] == (
        "40 s were planned for it, and it would take 114 s, since a row takes 1 s; a budget 15s longer would do"
    )
    assert not any(name.startswith("t") for asked in model.asked.values() for name in asked)


def test_what_a_prompt_shares_is_no_reason_to_leave_it_out_where_few_rows_choose(
    tmp_path: Path, timed: Callable[[Model], Any]
) -> None:
    at = replace(bench(tmp_path), validation=rows("v", 10))
    assert choose(at, "few-shot", timed(Model(0.1, once=50.0)), FORMS, 300.0).a_row == 0
    assert choose(bench(tmp_path), "few-shot", timed(Model(0.1, once=50.0)), FORMS, 300.0).a_row == pytest.approx(0.1)


def test_what_a_prompt_shares_is_no_reason_to_choose_by_fewer_rows(
    tmp_path: Path, timed: Callable[[Model], Any]
) -> None:
    model, at = timed(Model(0.01, once=5.0)), bench(tmp_path)
    choice = choose(at, "few-shot", model, FORMS, seconds=1.12 * (10.0 + (2 * VALIDATION + TEST) * 0.01))
    assert {one["rows"] for one in choice.tried} == {VALIDATION}
    assert isinstance(at.watcher, Notes) and not at.watcher.said


def test_forms_that_are_far_too_slow_are_still_told_apart_by_a_few_rows(
    tmp_path: Path, timed: Callable[[Model], Any]
) -> None:
    choice = choose(bench(tmp_path), "few-shot", timed(Model(100.0)), FORMS, seconds=45.0)
    assert {one["rows"] for one in choice.tried} == {32}
