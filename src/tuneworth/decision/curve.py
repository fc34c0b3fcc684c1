"""A learning curve through measured points: its band, what twice the rows would add, and whether to label more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import ndtri

from tuneworth.decision.probes import CurvePoint, Interval, LearningCurve
from tuneworth.decision.wording import about, points
from tuneworth.growth import MISFIT, Growth

CONFIDENCE = 0.9
_POINT_CONFIDENCE = 0.95
_PLACES = 25
_FURTHEST = 4  # times the rows that the curve is looked along for when to stop


def fitted_curve(measured: LearningCurve, minimum_effect: float) -> LearningCurve:
    """The curve with its 90 % band, gain at double the rows, and advice; as it was with fewer than three points."""
    if len(measured.points) < 3:
        return measured
    growth = _through(measured.points)
    most = max(point.rows for point in measured.points)
    least = min(point.rows for point in measured.points)
    band = [
        (float(rows), *score_band(measured.points, rows, growth)) for rows in np.geomspace(least, 2 * most, _PLACES)
    ]
    gains = growth.scores(2 * most) - growth.scores(most)
    low, high = growth.quantiles(gains, _tails())
    gain = growth.mean(gains)
    interval = (low - MISFIT if low > 0 else low, high + MISFIT)
    return replace(
        measured,
        band=tuple(band),
        gain=gain,
        interval=interval,
        advice=_advice(growth, most, gain, interval, minimum_effect),
    )


def score_band(measured: Sequence[CurvePoint], rows: float, growth: Growth | None = None) -> Interval:
    """The 90 % band of the score that would be measured after `rows` rows, on the rows that judged the points.

    The band carries which curve is true, and the chance of the new point's training rows.
    """
    growth = growth or _through(measured)
    chance = float(ndtri((1 + CONFIDENCE) / 2)) * math.hypot(MISFIT, _deviation(measured))
    low, high = growth.quantiles(growth.scores(rows), _tails())
    middle = growth.mean(growth.scores(rows))
    return max(0.0, middle - math.hypot(middle - low, chance)), min(1.0, middle + math.hypot(high - middle, chance))


def _through(measured: Sequence[CurvePoint]) -> Growth:
    spread = _deviation(measured)
    return Growth.through([p.rows for p in measured], [p.score for p in measured], [spread**2] * len(measured))


def _deviation(measured: Sequence[CurvePoint]) -> float:
    """Standard deviation of a point around the curve.

    All points were judged on the same rows, so most of what their intervals carry moves the curve as a whole; half of
    it, which is about the share of rows on which two neighbouring points differ, is left to each.
    """
    z = float(ndtri((1 + _POINT_CONFIDENCE) / 2))
    spans = [(p.interval[1] - p.interval[0]) / (2 * z) for p in measured if p.interval is not None]
    return 0.5 * (sum(spans) / len(spans)) if spans else MISFIT


def _tails() -> tuple[float, float]:
    return (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2


def _advice(growth: Growth, rows: int, gain: float, interval: Interval, minimum_effect: float) -> str:
    span = f"{points(gain)} points (90 % interval {points(interval[0])} to {points(interval[1])})"
    if interval[1] < minimum_effect:
        return (
            f"Stop labelling: twice the rows are expected to add {span}, less than the {points(minimum_effect)} that "
            "matter."
        )
    if gain < minimum_effect:
        return (
            f"Labelling more hardly pays: twice the rows are expected to add {span}, but "
            f"{points(minimum_effect)} or more are not ruled out."
        )
    # The rows until doubling once more would add less than what matters.
    grid = np.geomspace(rows, _FURTHEST * rows, 40)
    means = [growth.mean(growth.scores(2 * more) - growth.scores(more)) for more in grid]
    enough = next((more for more, mean in zip(grid, means, strict=True) if mean < max(minimum_effect, 1e-3)), grid[-1])
    more = max(enough - rows, 0.1 * rows)
    sure = "" if interval[0] > 0 else ", which is not certain"
    return f"Label about {about(more)} more: twice the rows are expected to add {span}{sure}."
