"""What a number of test rows can show: the smallest detectable difference, and the rows that would decide a
pair.

Normal approximations for paired differences (Connor 1987, Biometrics 43:207-211, for right/wrong scores).
They are estimates: they take the variance seen so far for the true one.
"""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.special import ndtri

from tuneworth.decision.records import Comparison

POWER = 0.8


def smallest_detectable_difference(mean_square: float, rows: int, alpha: float, binary: bool) -> float | None:
    """The true difference (0..1) that `rows` rows show to be above zero, two-sided `alpha`, with 80 % power.

    `mean_square` is that of the rows' differences: for right/wrong (`binary`) scores, the share of rows on
    which exactly one arm is right. None when even a difference of 1 would not show.
    """
    z_alpha, z_power = float(ndtri(1 - alpha / 2)), float(ndtri(POWER))

    def missing(difference: float) -> float:
        # A mean difference d needs a mean square of at least d^2; at least d where rows add 0, 1 or -1.
        square = max(mean_square, difference if binary else difference**2)
        spread = math.sqrt(max(square - difference**2, 0.0))
        return z_alpha * math.sqrt(square) + z_power * spread - difference * math.sqrt(rows)

    if missing(1.0) > 0:
        return None
    return float(brentq(missing, 1e-12, 1.0))


def rows_to_decide(comparison: Comparison, alpha: float, minimum_effect: float) -> int | None:
    """Test rows with which the comparison would come out, with 80 % power, if the difference is as estimated.

    It comes out when `a` is shown to be better, or when `b` is shown to be worse by less than
    `minimum_effect`; the smaller number counts. None when no number of rows would do (both arms equal, no
    minimum effect).
    """
    z_alpha, z_power = float(ndtri(1 - alpha / 2)), float(ndtri(POWER))
    # No difference seen in n rows does not mean none in more: one row in n + 1 keeps the estimate finite.
    variance = max(comparison.variance, 1 / (comparison.rows + 1))
    difference = comparison.difference
    needed = []
    if difference > 0:
        square = variance + difference**2
        needed.append(((z_alpha * math.sqrt(square) + z_power * math.sqrt(variance)) / difference) ** 2)
    if difference < minimum_effect:
        needed.append((z_alpha + z_power) ** 2 * variance / (minimum_effect - difference) ** 2)
    if not needed:
        return None
    return max(comparison.rows + 1, math.ceil(min(needed)))
