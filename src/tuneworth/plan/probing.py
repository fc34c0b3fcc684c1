"""What the probes after the arms will take, and which of them the budget affords.

The arms come first: probes get only what is left when every arm has all that it wants. They are afforded in a fixed
order, each whole or not at all. What the classical curve takes is set aside before where it is next to nothing: it says
whether more data would help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuneworth.plan.budget import FORWARD_SHARE, Rate, looks_seconds

AT_ONCE, OUT_OF_SCOPE, FORGETTING, ROBUSTNESS = "at_once", "out_of_scope", "forgetting", "robustness"
CLASSICAL_CURVE, CURVE = "classical_curve", "learning_curve"
PROBES = (CLASSICAL_CURVE, AT_ONCE, OUT_OF_SCOPE, FORGETTING, ROBUSTNESS, CURVE)
"""Every probe, the cheaper ones first: the order in which they are afforded and run."""

_CLASSICAL_CURVE_SHARE = 1.9  # of a fit on all rows: 1/8 + 1/4 + 1/2 + 1
_SMALL_SHARE = 0.02  # of the budget, up to which the classical curve goes before the last epochs of a training


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the learning curve: optimiser steps of so many rows, and how often validation is looked at."""

    steps: int
    batch_size: int
    looks: int


@dataclass(frozen=True, slots=True)
class Work:
    """How much the probes have to do: rows and passes by probe, as the probes themselves count them.

    `moments` maps requests at once to how often they are sent; `passes` maps each arm to how often robustness asks it;
    `points` are the trainings of the curve, `judging_rows` the rows that score each.
    """

    strangers: int
    general_tokens: int
    robustness_rows: int
    passes: Mapping[str, int]
    moments: Mapping[int, int]
    points: Sequence[Point]
    validation_rows: int
    judging_rows: int


@dataclass(frozen=True, slots=True)
class Speeds:
    """Measured: answering by arm; training seconds a row by arm, and a token; the fit of the classical arm."""

    answer: Mapping[str, Rate]
    train: Mapping[str, float]
    train_token: float
    classical: float


def set_aside(classical: float, budget_seconds: float) -> float:
    """Seconds for the classical curve that no arm gets, from those of one fit: all that it takes, or none."""
    seconds = _CLASSICAL_CURVE_SHARE * classical
    return seconds if seconds <= _SMALL_SHARE * budget_seconds else 0.0


def probe_seconds(work: Work, speeds: Speeds) -> dict[str, float]:
    """Predicted wall seconds of each probe; probes that have nothing to probe are absent.

    The curve is predicted for the dearest of the trained arms, since which one it will be is not known yet.
    """
    seconds = {}
    rates = speeds.answer.values()
    if speeds.classical:
        seconds[CLASSICAL_CURVE] = _CLASSICAL_CURVE_SHARE * speeds.classical
    if rates:
        requests = {n: n * moments for n, moments in work.moments.items()}
        # A request alone shares its beginning with nobody: it pays for all of it.
        moments = sum(work.moments.values()) + 1
        seconds[AT_ONCE] = sum(moments * r.once + r.seconds(sum(requests.values())) for r in rates)
        # Strangers and as many test rows are answered, and read again for the confidence.
        seconds[OUT_OF_SCOPE] = sum(r.seconds(2 * work.strangers, 2) for r in rates)
    if speeds.train:
        seconds[FORGETTING] = (1 + len(speeds.train)) * work.general_tokens * speeds.train_token * FORWARD_SHARE
    if rates:
        seconds[ROBUSTNESS] = sum(r.seconds(work.robustness_rows, work.passes[arm]) for arm, r in speeds.answer.items())
    if speeds.train and work.points:
        seconds[CURVE] = max(_curve(work, speeds.answer[arm], rate) for arm, rate in speeds.train.items())
    return seconds


def _curve(work: Work, answer: Rate, a_row: float) -> float:
    """Seconds of the trainings, their looks at validation (for score and loss), and the answers of all points."""
    steps = 1.12 * sum(point.steps * point.batch_size * a_row for point in work.points)
    looks = sum(looks_seconds(answer, a_row, work.validation_rows, point.looks) for point in work.points)
    return steps + looks + answer.seconds(work.judging_rows, len(work.points) + 1)


def afford_probes(
    left_seconds: float, seconds: Mapping[str, float], needed: str | None = None
) -> tuple[dict[str, float], dict[str, str]]:
    """The probes that `left_seconds` suffice for, with their seconds, and of the others why not. The one that is
    `needed` (the verdict asks for it) comes first.
    """
    planned, skipped = {}, {}
    for name in sorted(PROBES, key=lambda name: name != needed):
        if name not in seconds:
            continue
        if seconds[name] <= left_seconds:
            planned[name] = seconds[name]
            left_seconds -= seconds[name]
        else:
            skipped[name] = (
                f"it needs {seconds[name]:.0f} s, and the arms leave {max(0.0, left_seconds):.0f} s of the budget; "
                "give a longer budget, or run `tuneworth probe RUN` afterwards"
            )
    return planned, skipped
