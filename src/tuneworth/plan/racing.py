"""How much a race among models may take, and how it is divided: successive halving under a limit.

The candidates are trained a little on the same rows, the worse half is dropped, and so on (Jamieson & Talwalkar
2016). What all rounds together take stays under half of what training the cheapest candidate that is still in it
would take: the winner is among those, so a race costs at most about half of training the winner alone. Short
trainings are no reason not to race: it may always take a tenth of the budget, up to a minute and a half; up to three
where that is half of the dearest candidate's training, which mostly wins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

RACE_SHARE = 0.5  # of the training of the cheapest candidate that is left
# Who asks for a race gives it that much, however short the training.
_FREE_SECONDS, _FREE_SHARE = (90.0, 180.0), 0.10
_SLACK = 1.12  # as in budget: rates are measured on a few batches
_LEAST_STEPS, _LEAST_JUDGED = 4, 50
_JUDGING_SHARE = 0.5  # of a round's time that answering validation may take, beyond the least


@dataclass(frozen=True, slots=True)
class Pace:
    """Measured wall seconds of a candidate: to load it, to train on a row, to answer a row; and of its whole training
    as it would be if it won."""

    load: float
    train_a_row: float
    answer_a_row: float
    training: float


@dataclass(frozen=True, slots=True)
class Round:
    """Rows that each candidate learns from, and validation rows that it is judged on; `seconds` of all together."""

    rows: int
    judged: int
    seconds: float


def race_limit(paces: Sequence[Pace], budget_seconds: float) -> float:
    """Seconds that all rounds together may take when these candidates are left."""
    dearest = max(pace.training for pace in paces)
    least, most = _FREE_SECONDS
    free = min(_FREE_SHARE * budget_seconds, max(least, min(most, RACE_SHARE * dearest)))
    return max(RACE_SHARE * min(pace.training for pace in paces), free)


def next_round(
    paces: Sequence[Pace], spent: float, budget_seconds: float, train: int, validation: int, batch_size: int
) -> Round | None:
    """The next round among `paces`, after `spent` seconds of racing; None when there is no time for a fair one.

    `train` and `validation` are the rows that there are.
    """
    rounds_left = math.ceil(math.log2(len(paces)))
    allowance = (race_limit(paces, budget_seconds) - spent) / rounds_left
    load = sum(pace.load for pace in paces)
    learning, judging = sum(p.train_a_row for p in paces), sum(p.answer_a_row for p in paces)
    room = allowance / _SLACK - load
    judged = min(validation, max(_LEAST_JUDGED, int(_JUDGING_SHARE * room / judging)))
    rows = min(train, int((room - judged * judging) / learning) // batch_size * batch_size)
    if rows < min(train, _LEAST_STEPS * batch_size):
        return None
    return Round(rows, judged, (load + rows * learning + judged * judging) * _SLACK)
