"""The wall time of a run, allotted before anything starts: which rows are asked, which arms run, how long they train.

When time is short one seeded test subset serves all arms, the short form is trained before the full one, and an arm
that cannot be afforded is skipped with the reason. Nothing else shrinks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tuneworth.errors import InputError

EVALUATIONS = 4  # looks at validation during a training
_RESERVE_SHARE, _RESERVE_SECONDS = 0.03, 6.0  # verdict, report, saving; and machines are never quite even
_SLACK = 1.12  # measured rates are of a few batches; later ones may be slower
_TEST_SHARE = 0.4  # answering may take this much of the time before the test set is cut to a subset
_MINIMUM_TEST_ROWS = 100
_MINIMUM_STEPS = 20
_MINIMUM_EPOCHS = 0.5


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

    def seconds(self, rows: int, passes: int = 1) -> float:
        """Seconds of `passes` passes over `rows` rows, with slack for rates measured on a few batches."""
        return passes * (self.once + rows * self.a_row) * _SLACK


@dataclass(frozen=True, slots=True)
class Rates:
    """Measured: `answer` by arm, `train` in seconds per row by arm, `classical` in seconds for its whole arm."""

    answer: Mapping[str, Rate]
    train: Mapping[str, float]
    classical: float


@dataclass(frozen=True, slots=True)
class Trained:
    """A training that is afforded: optimiser steps and the epochs that they make, of each seed; `seconds` of all seeds,
    evaluations included, and of one evaluation.
    """

    steps: int
    epochs: float
    seconds: float
    evaluation_seconds: float


@dataclass(frozen=True, slots=True)
class Allotment:
    """Seconds of each stage, rows of the test subset, trainings by arm, and arms left out with the reason."""

    seconds: Mapping[str, float]
    test_rows: int
    trainings: Mapping[str, Trained]
    skipped: Mapping[str, str]


def allot(
    budget_seconds: float,
    spent_seconds: float,
    rows: Rows,
    rates: Rates,
    wanted: Mapping[str, tuple[float, int]],
    choices: Mapping[str, int],
    seeds: int = 1,
) -> Allotment:
    """Divide what is left of the budget.

    `wanted` gives (epochs, batch size) of each arm to train, in order of importance; each training runs `seeds`
    times. `choices` gives for each prompting arm how many candidates are tried on validation. Raises InputError when
    the time is too short to answer even the smallest subset of the test rows.
    """
    left = budget_seconds - spent_seconds - reserve_seconds(budget_seconds)
    left -= rates.classical
    prompts = {arm: rate for arm, rate in rates.answer.items() if arm not in rates.train}
    choosing = {arm: rate.seconds(rows.validation, choices.get(arm, 0)) for arm, rate in prompts.items()}
    asked = [*prompts.values(), *(rates.answer[arm] for arm in list(wanted)[:1])]
    fixed = sum(choosing.values()) + sum(rate.seconds(0) for rate in asked)
    per_row = sum(rate.a_row * _SLACK for rate in asked)
    test_rows = _test_rows(left, fixed, per_row, rows.test)
    if left <= 0 or per_row * test_rows + fixed > left:
        least = budget_seconds - left + per_row * min(rows.test, _MINIMUM_TEST_ROWS) + fixed
        raise InputError(
            f"a budget of {budget_seconds:.0f} s is too short to ask the model even {test_rows} test rows",
            where="budget",
            cure=f"give it at least {math.ceil(least * 1.3)}s",
        )
    seconds = {"before": spent_seconds, "tfidf": rates.classical}
    seconds |= {arm: choosing[arm] + rate.seconds(test_rows) for arm, rate in prompts.items()}
    left -= sum(seconds[arm] for arm in prompts)
    trainings: dict[str, Trained] = {}
    skipped: dict[str, str] = {}
    for arm, (epochs, batch_size) in wanted.items():
        judging = rates.answer[arm].seconds(test_rows)
        looking = 1.5 * rates.answer[arm].seconds(rows.validation, EVALUATIONS * seeds)  # scores, and the loss
        a_step = seeds * batch_size * rates.train[arm] * _SLACK
        room = left - judging - looking
        all_steps = math.ceil(epochs * rows.train / batch_size)
        steps = min(all_steps, int(room / a_step))
        affordable = steps * batch_size / rows.train
        # A small set may need fewer steps than the minimum: it is trained as asked.
        if steps < min(_MINIMUM_STEPS, all_steps) or affordable < min(_MINIMUM_EPOCHS, epochs):
            least = min(_MINIMUM_EPOCHS, epochs)
            skipped[arm] = (
                f"the budget leaves {max(0.0, room):.0f} s for this training, "
                f"{least:g} epochs need {least * rows.train * rates.train[arm] * seeds:.0f} s"
            )
            continue
        trainings[arm] = Trained(steps, affordable, steps * a_step + looking, looking / EVALUATIONS / seeds)
        seconds[arm] = trainings[arm].seconds + judging
        left -= seconds[arm]
    seconds["reserve"] = budget_seconds - sum(seconds.values())
    return Allotment(seconds, test_rows, trainings, skipped)


def reserve_seconds(budget_seconds: float) -> float:
    """What is kept back for verdict, report, saving, and machines that are never quite even."""
    return max(_RESERVE_SECONDS, _RESERVE_SHARE * budget_seconds)


def _test_rows(left: float, choosing: float, per_row: float, available: int) -> int:
    """All test rows, or as many as fit their share of the time, but never fewer than the minimum."""
    affordable = int((left * _TEST_SHARE - choosing) / per_row) if per_row else available
    return min(available, max(affordable, _MINIMUM_TEST_ROWS))
