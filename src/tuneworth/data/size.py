"""Would more rows help? A first answer before anything is trained: how a plain classifier's score grows with the rows.

The plain classifier learns from an eighth, a quarter, half and all of the rows left when some are held out, several
times over; a curve is laid through the points. That its forecast from half of a data set holds at all of it, for
logistic regression too, is measured in docs/results.md ("Size").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuneworth.data.plain import Features, answers

FEWEST_ROWS = 80
"""Rows below which no curve is drawn: an eighth of them would show nothing."""
MOST_ROWS = 10_000
"""Rows that the curve is drawn from, at most."""
SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
CONFIDENCE = 0.9

_HELD_OUT = 0.2
_MOST_HELD_OUT = 2_000
_DRAWS = 4
_MISFIT = 0.01  # how far (0..1) a true curve may lie from the law, as seen on banking77, snips and sms_spam

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Point:
    """Accuracy (0..1) of the plain classifier after so many rows, the mean of several draws."""

    rows: int
    score: float


@dataclass(frozen=True, slots=True)
class Curve:
    """Points measured, and what doubling `rows` is expected to add to the accuracy (0..1), with its 90 % interval."""

    points: tuple[Point, ...]
    rows: int
    gain: float
    interval: tuple[float, float]

    def to_json(self) -> dict[str, object]:
        """The shape of `learning_curve` in verdict.json."""
        return {
            "points": [{"rows": point.rows, "score": point.score} for point in self.points],
            "at_double": {"rows": 2 * self.rows, "gain": self.gain, "interval": list(self.interval)},
        }


def learning_curve(features: Features, labels: Sequence[str], rows: int, seed: int = 0) -> Curve | None:
    """The curve of the plain classifier on these rows, a sample of `rows`, which the forecast starts from.

    None for fewer than 80 rows or one class.
    """
    if len(labels) < FEWEST_ROWS or len(set(labels)) < 2:
        return None
    random = np.random.default_rng(seed)
    wanted = np.unique(np.array(labels), return_inverse=True)[1]
    held = min(_MOST_HELD_OUT, int(_HELD_OUT * min(len(labels), MOST_ROWS)))
    learnt = min(len(labels), MOST_ROWS) - held
    sizes = [max(8, round(share * learnt)) for share in SHARES]
    draws = [random.permutation(len(labels))[: held + learnt] for _ in range(_DRAWS)]
    scores = np.array([[_score(features, wanted, order, held, size) for size in sizes] for order in draws]).mean(axis=0)
    tested = min(len(labels), held * _DRAWS)
    gain, interval = _gain_at_double(np.array(sizes), scores, tested, rows)
    points = tuple(Point(rows, float(score)) for rows, score in zip(sizes, scores, strict=True))
    return Curve(points, rows, gain, interval)


def _score(features: Features, labels: NDArray[np.int64], order: NDArray[np.int64], held: int, size: int) -> float:
    """Accuracy on the first `held` rows of an order after learning from the `size` rows that follow."""
    asked = order[:held]
    return float((answers(features, labels, order[held : held + size], asked) == labels[asked]).mean())


def _gain_at_double(
    sizes: NDArray[np.int64], scores: Floats, tested: int, rows: int
) -> tuple[float, tuple[float, float]]:
    """What twice `rows` add, from the scores [sizes], each of about `tested` rows held out.

    score = ceiling * logistic(level + rate * log(size)): slow at first, steepest in the middle, and close to the
    ceiling an error that falls as a power of the size. Each of a grid of such curves is weighted by how well it fits,
    and by how high its ceiling is (ceilings just above the last score would explain any slope away). The result is the
    weighted mean and quantiles of what the curves add; the upper one is at least what the last doubling added and
    a standard error more, for some curves become steeper.
    """
    ceiling = np.linspace(scores.max(), 1, 25)[:, None, None, None]
    level = np.linspace(-4, 7, 111)[None, :, None, None]
    rate = np.linspace(0.05, 2.5, 50)[None, None, :, None]
    # Three times the binomial variance: which rows are learnt from is chance too, and the sizes share held-out rows.
    noise = 3 * (scores * (1 - scores) + 1 / tested) / tested + _MISFIT**2
    fitted = ceiling * _logistic(level + rate * np.log(sizes / rows))
    misfit = ((scores - fitted) ** 2 / noise).sum(-1)
    room = (ceiling[..., 0] - scores.max() + 1e-3) / (1 - scores.max() + 1e-3)
    weight = (np.exp(-0.5 * (misfit - misfit.min())) * room**3).ravel()
    now, doubled = _logistic(level), _logistic(level + rate * np.log(2))
    gains = (ceiling * (doubled - now)).ravel()
    order = np.argsort(gains)
    below = np.cumsum(weight[order]) / weight.sum()
    low, high = (
        float(gains[order][np.searchsorted(below, level)]) for level in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    )
    last = float(scores[-1] - scores[-2] + np.sqrt((scores[-2:] * (1 - scores[-2:])).sum() / tested))
    return float((weight * gains).sum() / weight.sum()), (low, max(high, last))


def _logistic(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))
