"""The wall time of a run, allotted before anything starts: which rows are asked, which arms run, how long they train.

When time is short one seeded test subset serves all arms, the short form is trained before the full one, and an arm
that cannot be afforded is skipped with the reason. Where the first training just misses what it takes at least, test
rows make room for it, up to half of them: without it there is no question to answer. Nothing else shrinks.

Who goes first: the classical arm and the plain prompts, then the first training with all its epochs, since without
those there is no question to answer; then dearer prompts in order of cost; then further trainings, of which half is
the least. A dearer prompt that takes at most a tenth of the budget goes before the last epochs of the first training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tuneworth.errors import InputError
from tuneworth.plan.halving import rounds, rows_asked
from tuneworth.task.schema import format_seconds

EVALUATIONS = 4  # looks at validation during a training
_LOOKS = (EVALUATIONS, 2, 1)  # where more would leave no time for the least training
_RESERVE_SHARE, _RESERVE_SECONDS = 0.03, 6.0  # verdict, report, saving; and machines are never quite even
_SLACK = 1.12  # measured rates are of a few batches; later ones may be slower
_TEST_SHARE = 0.4  # answering may take this much of the time before the test set is cut to a subset
_MINIMUM_TEST_ROWS = 100
_TEST_ROWS_KEPT = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # while the first training does not fit
FORWARD_SHARE = 0.45  # of a training step is its forward pass; the rest of what makes it slower comes on top
_MINIMUM_STEPS = 20
_MINIMUM_EPOCHS, _WORTHWHILE_STEPS = 0.5, 50  # of a large set fifty steps are worth their time, before half of it
_FURTHER_SHARE = 0.5  # of the steps wished for
_LONGER, _LONGER_TRIES = 1.05, 100  # budgets that are tried for a training that is left out: up to 125 times as long
_SMALL_SHARE = 0.1  # a dearer prompt of at most this share of the budget may take from the first training


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows to train on, to choose with and to judge with."""

    train: int
    validation: int
    test: int


@dataclass(frozen=True, slots=True)
class Rate:
    """Wall seconds of answering a set of rows: once for what all share, and for each row."""

    once: float
    a_row: float

    def seconds(self, rows: float, passes: int = 1) -> float:
        """Seconds of `passes` passes over `rows` rows, with slack for rates measured on a few batches."""
        return passes * (self.once + rows * self.a_row) * _SLACK


def looks_seconds(answer: Rate, train: float, rows: int, looks: int) -> float:
    """Seconds of so many looks at validation rows during a training of `train` seconds a row: their answers, and their
    loss without gradients."""
    return answer.seconds(rows, looks) + looks * rows * FORWARD_SHARE * train * _SLACK


@dataclass(frozen=True, slots=True)
class Rates:
    """Measured: `answer` by arm, `train` in seconds per row by arm, `classical` in seconds for its whole arm.
    `read_first`: see Course."""

    answer: Mapping[str, Rate]
    train: Mapping[str, float]
    classical: float
    read_first: bool = False


@dataclass(frozen=True, slots=True)
class Trained:
    """A training that is afforded: optimiser steps and the epochs that they make, of each seed; `seconds` of all seeds,
    evaluations included, of one evaluation, and of what each seed reads before its first step; `evaluations` are those
    of each seed.
    """

    steps: int
    epochs: float
    seconds: float
    evaluation_seconds: float
    evaluations: int = EVALUATIONS
    reading_seconds: float = 0.0

    def steps_in(self, seconds: float, seeds: int) -> int:
        """How many steps fit into other `seconds`."""
        beside = seeds * (self.evaluations * self.evaluation_seconds + self.reading_seconds)
        return max(1, int((seconds - beside) / (self.seconds - beside) * self.steps + 1e-6))


@dataclass(frozen=True, slots=True)
class Allotment:
    """Seconds of each stage, rows of the test subset, how many forms each prompting arm chooses among, trainings by
    arm, arms left out with the reason, and how many requests a teacher answers for a distilled arm.
    """

    seconds: Mapping[str, float]
    test_rows: int
    forms: Mapping[str, int]
    trainings: Mapping[str, Trained]
    skipped: Mapping[str, str]
    taught: int = 0


@dataclass(frozen=True, slots=True)
class Prompts:
    """A prompting arm: the numbers of forms that it may choose among on validation, most first, and whether a run can
    do without it.
    """

    forms: tuple[int, ...] = (1,)
    optional: bool = False


def allot(
    budget_seconds: float,
    spent_seconds: float,
    rows: Rows,
    rates: Rates,
    wanted: Mapping[str, tuple[float, int]],
    prompts: Mapping[str, Prompts],
    seeds: int = 1,
) -> Allotment:
    """Divide what is left of the budget.

    `wanted` gives (epochs, batch size) of each arm to train, in order of importance; each training runs `seeds`
    times. `prompts` are the prompting arms in order of cost; when time is too short for those that are not optional,
    the dearest is left out. Raises InputError when the time is too short to answer even the smallest subset of the
    test rows with one of them.
    """

    def at(budget: float) -> Allotment:
        return _allot(budget, spent_seconds, rows, rates, wanted, prompts, seeds)

    found = at(budget_seconds)
    skipped = dict(found.skipped)
    for arm in filter(skipped.__contains__, wanted):
        longer = (math.ceil(budget_seconds * _LONGER**tries) for tries in range(1, _LONGER_TRIES))
        enough = next((budget for budget in longer if arm in at(budget).trainings), None)
        if enough is not None:
            skipped[arm] += f"; a budget of about {format_seconds(enough)} would do"
    return replace(found, skipped=skipped)


def _allot(
    budget_seconds: float,
    spent_seconds: float,
    rows: Rows,
    rates: Rates,
    wanted: Mapping[str, tuple[float, int]],
    prompts: Mapping[str, Prompts],
    seeds: int,
) -> Allotment:
    """`allot`, without the budgets that would do for what is left out."""
    left = budget_seconds - spent_seconds - reserve_seconds(budget_seconds)
    left -= rates.classical
    needed = {arm: prompt.forms[-1] for arm, prompt in prompts.items() if not prompt.optional}
    skipped: dict[str, str] = {}
    test_rows, least = _least(left, needed, list(wanted)[:1], rates, rows)
    while least > left and len(needed) > 1:
        dearest = max(needed, key=lambda arm: _asking(rates.answer[arm], needed[arm], replace(rows, test=test_rows)))
        would_do = format_seconds(budget_seconds + 1.1 * (least - left))
        skipped[dearest] = (
            f"with it the budget is too short to ask even {test_rows} test rows; one of about {would_do} would do"
        )
        del needed[dearest]
        test_rows, least = _least(left, needed, list(wanted)[:1], rates, rows)
    if least > left:
        raise InputError(
            f"a budget of {budget_seconds:.0f} s is too short to ask the model even {test_rows} test rows",
            where="budget",
            cure=f"give it at least {math.ceil((budget_seconds - left + least) * 1.3)}s",
        )
    rows = replace(rows, test=test_rows)
    courses = {
        arm: Course(epochs, batch_size, seeds, rates.answer[arm], rates.train[arm], rates.read_first)
        for arm, (epochs, batch_size) in wanted.items()
    }
    rows = _for_the_first(left, needed, next(iter(courses.values()), None), rates, rows)
    seconds, forms = {}, {}
    for arm, count in needed.items():
        seconds[arm] = _asking(rates.answer[arm], count, rows)
        forms[arm] = count
        left -= seconds[arm]
    first = next((course.wish(rows) for course in courses.values()), 0.0)
    for arm in (arm for arm, prompt in prompts.items() if prompt.optional):
        room = max(left - first, min(left, _SMALL_SHARE * budget_seconds))
        costs = {count: _asking(rates.answer[arm], count, rows) for count in prompts[arm].forms}
        afforded = [count for count in prompts[arm].forms if costs[count] <= room]
        if afforded:
            forms[arm], seconds[arm] = afforded[0], costs[afforded[0]]
            left -= seconds[arm]
        else:
            skipped[arm] = _too_dear(min(costs.values()), room, budget_seconds)
    trainings: dict[str, Trained] = {}
    for arm, course in courses.items():
        found = course.fit(left, rows, further=bool(trainings))
        if isinstance(found, str):
            skipped[arm] = found
            continue
        trainings[arm] = found
        seconds[arm] = found.seconds + course.answer.seconds(rows.test)
        left -= seconds[arm]
    ordered = {"before": spent_seconds, "classical": rates.classical}
    ordered |= {arm: seconds[arm] for arm in (*prompts, *courses) if arm in seconds}
    ordered["reserve"] = budget_seconds - sum(ordered.values())
    return Allotment(ordered, rows.test, forms, trainings, skipped)


@dataclass(frozen=True, slots=True)
class Course:
    """A training that is wanted, and the measured rates of its arm. `read_first` where all rows are read once before
    the first step: what the model says of pairs as it is holds a training on preferences.
    """

    epochs: float
    batch_size: int
    seeds: int
    answer: Rate
    train: float
    read_first: bool = False

    @property
    def a_step(self) -> float:
        return self.seeds * self.batch_size * self.train * _SLACK

    def steps(self, rows: Rows) -> int:
        return math.ceil(self.epochs * rows.train / self.batch_size)

    def looking(self, rows: Rows, evaluations: int = EVALUATIONS) -> float:
        """Seconds of all looks at validation."""
        return looks_seconds(self.answer, self.train, rows.validation, evaluations * self.seeds)

    def reading(self, rows: Rows) -> float:
        """Seconds of what is read before the first steps."""
        read = rows.train + rows.validation if self.read_first else 0
        return self.seeds * read * FORWARD_SHARE * self.train * _SLACK

    def wish(self, rows: Rows) -> float:
        """Seconds of the whole training as it is wanted, and of answering test."""
        beside = self.reading(rows) + self.looking(rows) + self.answer.seconds(rows.test)
        return self.steps(rows) * self.a_step + beside

    def least_steps(self, rows: Rows, further: bool = False) -> int:
        """Steps with which a training is worth its time. A set so small that it needs fewer is trained as asked. Of a
        `further` training half is the least: it is held against one that had all its epochs."""
        least = math.ceil(min(_MINIMUM_EPOCHS, self.epochs) * rows.train / self.batch_size)
        least = max(min(_MINIMUM_STEPS, self.steps(rows)), min(least, _WORTHWHILE_STEPS))
        return max(least, math.ceil(_FURTHER_SHARE * self.steps(rows))) if further else least

    def fit(self, left: float, rows: Rows, further: bool = False) -> Trained | str:
        """As much of it as `left` seconds afford, with fewer looks at validation if there is no other way, or why that
        is too little. `further`: beside another training.
        """
        reading = self.reading(rows)
        for looks in _LOOKS:
            looking = self.looking(rows, looks)
            room = left - self.answer.seconds(rows.test) - looking - reading
            steps = min(self.steps(rows), int(room / self.a_step))
            if steps >= self.least_steps(rows, further):
                break
        else:
            steps = self.least_steps(rows, further)
            first = "reading all pairs first, " if self.read_first else ""
            return (
                f"the budget leaves {max(0.0, left):.0f} s for this training, {steps} steps "
                f"({steps * self.batch_size / rows.train:.1f} epochs) need {steps * self.a_step:.0f} s, {first}looking "
                f"at validation and answering test {left - room:.0f} s"
            )
        epochs, a_look = steps * self.batch_size / rows.train, looking / looks / self.seeds
        return Trained(steps, epochs, steps * self.a_step + looking + reading, a_look, looks, reading / self.seeds)


def _too_dear(seconds: float, room: float, budget_seconds: float) -> str:
    would_do = format_seconds(budget_seconds + 1.1 * (seconds - room))
    return (
        f"it needs {seconds:.0f} s, the budget leaves {max(0.0, room):.0f} s for it beside the first training; "
        f"a budget of about {would_do} would do"
    )


def _choosing(rate: Rate, forms: int, validation_rows: int) -> float:
    passes = sum(left for left, _ in rounds(forms, validation_rows))
    return rate.seconds(0, passes) + rate.seconds(rows_asked(forms, validation_rows)) - rate.seconds(0)


def _asking(rate: Rate, forms: int, rows: Rows) -> float:
    """Seconds of a prompting arm: choosing among `forms` on validation, and answering test."""
    return _choosing(rate, forms, rows.validation) + rate.seconds(rows.test)


def reserve_seconds(budget_seconds: float) -> float:
    """What is kept back for verdict, report, saving, and machines that are never quite even."""
    return max(_RESERVE_SECONDS, _RESERVE_SHARE * budget_seconds)


def _least(left: float, needed: Mapping[str, int], first: Sequence[str], rates: Rates, rows: Rows) -> tuple[int, float]:
    """(rows of the test subset, seconds) of what a run cannot do without: the prompts that are `needed` chosen and
    asked, and the `first` trained arm asked."""
    asked = [*(rates.answer[arm] for arm in needed), *(rates.answer[arm] for arm in first)]
    choosing = sum(_choosing(rates.answer[arm], forms, rows.validation) for arm, forms in needed.items())
    fixed = choosing + sum(rate.seconds(0) for rate in asked)
    per_row = sum(rate.a_row * _SLACK for rate in asked)
    test_rows = _test_rows(left, fixed, per_row, rows.test)
    return test_rows, fixed + per_row * test_rows


def _for_the_first(left: float, needed: Mapping[str, int], course: Course | None, rates: Rates, rows: Rows) -> Rows:
    """`rows` with as many test rows as let the first training begin, if giving up some of them does."""
    for share in _TEST_ROWS_KEPT if course is not None else ():
        fewer = replace(rows, test=max(min(_MINIMUM_TEST_ROWS, rows.test), round(share * rows.test)))
        asking = sum(_asking(rates.answer[arm], count, fewer) for arm, count in needed.items())
        if course is not None and isinstance(course.fit(left - asking, fewer), Trained):
            return fewer
    return rows


def _test_rows(left: float, choosing: float, per_row: float, available: int) -> int:
    """All test rows, or as many as fit their share of the time, but never fewer than the minimum."""
    affordable = int((left * _TEST_SHARE - choosing) / per_row) if per_row else available
    return min(available, max(affordable, _MINIMUM_TEST_ROWS))
