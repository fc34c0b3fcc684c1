"""What a number of test rows can show: one definition, for the audit before anything is trained and for the verdict.

Right/wrong scores: exact, from the chances of each number of rows that differ and of how they fall (the power of the
score test, to which Tango's interval is equal at zero), and Connor's normal approximation (1987, Biometrics
43:207-211) for many rows. Graded scores: the t test that allows for skewness.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import scipy  # its parts are loaded when they are used

POWER = 0.8
_MOST_EXACT = 20_000  # rows above which the normal approximation is as good
_DEVIATIONS = 7


def power_to_show(
    difference: float, mean_square: float, rows: float, alpha: float, binary: bool, skewness: float = 0.0
) -> float:
    """The chance (0..1) that `rows` rows show a true `difference` above zero to be above zero, two-sided `alpha`.

    `mean_square` is that of the rows' differences: for right/wrong (`binary`) scores, the share of rows on which
    exactly one arm is right. A mean difference d needs at least d^2, and d where rows add 0, 1 or -1. `skewness` is
    that of the rows' differences.
    """
    square = max(mean_square, difference if binary else difference**2)
    spread = math.sqrt(max(square - difference**2, 0.0))
    if not binary:
        return _graded_power(difference, spread, rows, alpha, skewness)
    if rows <= _MOST_EXACT and rows == int(rows):
        return _paired_power(difference, min(square, 1.0), int(rows), alpha)
    surplus = difference * math.sqrt(rows) - NormalDist().inv_cdf(1 - alpha / 2) * math.sqrt(square)
    return NormalDist().cdf(surplus / spread) if spread > 0 else float(surplus > 0)


def _paired_power(difference: float, discordant: float, rows: int, alpha: float) -> float:
    """Over each likely number of rows that differ, the chance that enough of them fall to one side."""
    expected, deviation = rows * discordant, math.sqrt(rows * discordant * (1 - discordant))
    low, high = (round(expected + side * (_DEVIATIONS * deviation + 4)) for side in (-1, 1))
    differ = np.arange(max(low, 1), min(high, rows) + 1, dtype=np.float64)
    special = scipy.special
    # Shown where (a_only - b_only)^2 > z^2 (a_only + b_only).
    needed = np.floor((differ + NormalDist().inv_cdf(1 - alpha / 2) * np.sqrt(differ)) / 2)
    falls = min(1.0, (discordant + difference) / (2 * discordant))
    chance = np.exp(
        special.gammaln(rows + 1) - special.gammaln(differ + 1) - special.gammaln(rows - differ + 1)
        + special.xlogy(differ, discordant) + special.xlogy(rows - differ, 1 - discordant)
    )  # fmt: skip
    enough = np.where(needed < differ, special.betainc(needed + 1, np.maximum(differ - needed, 1e-9), falls), 0.0)
    return float((chance * enough).sum())


def _graded_power(difference: float, spread: float, rows: float, alpha: float, skewness: float) -> float:
    if rows < 2:
        return 0.0
    if spread == 0:
        return float(difference > 0)
    freedom, tail = rows - 1, skewness / math.sqrt(rows)
    level = float(scipy.special.stdtrit(freedom, 1 - alpha / 2))
    # The studentised mean from which on the interval lies above zero, and where that is seen from the true mean.
    bound = level if abs(tail) < 1e-9 else 3 / tail * (math.cbrt(1 + tail * (level - tail / 6)) - 1)
    lead = difference * math.sqrt(rows) / spread
    # With skewness, samples whose mean is high spread more, which takes from their lead.
    from_truth = (bound - lead) / max(1 - tail * lead / 2, 0.1)
    cubic = from_truth + tail / 3 * from_truth**2 + tail**2 / 27 * from_truth**3 + tail / 6
    return float(scipy.special.stdtr(freedom, -cubic))


def smallest_detectable_difference(
    mean_square: float, rows: float, alpha: float, binary: bool, skewness: float = 0.0
) -> float | None:
    """The true difference (0..1) that `rows` rows show to be above zero, two-sided `alpha`, with 80 % power.

    Arguments are those of `power_to_show`. None when even a difference of 1 would not show, and when graded scores
    differ on no row, since nothing is then known of their spread.
    """

    def missing(difference: float) -> float:
        return POWER - power_to_show(difference, mean_square, rows, alpha, binary, skewness)

    if (mean_square == 0 and not binary) or missing(1.0) > 0:
        return None
    low, high = 0.0, 1.0
    for _ in range(60):  # halved so often, the interval is smaller than what a float can tell
        middle = (low + high) / 2
        low, high = (middle, high) if missing(middle) > 0 else (low, middle)
    return high
