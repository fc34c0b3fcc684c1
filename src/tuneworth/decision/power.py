"""The number of test rows that would decide a pair; the smallest difference that rows show is in `tuneworth.power`.

Normal approximations for paired differences (Connor 1987, Biometrics 43:207-211, for right/wrong scores).
They are estimates: they take the variance seen so far for the true one.
"""

from __future__ import annotations

import math

from scipy.special import ndtri

from tuneworth.decision.records import Comparison
from tuneworth.power import POWER, smallest_detectable_difference

__all__ = ["rows_to_decide", "smallest_detectable_difference"]


def rows_to_decide(comparison: Comparison, alpha: float, minimum_effect: float) -> int | None:
    """Test rows with which the comparison would come out, with 80 % power, if the difference is as estimated.

    It comes out when `a` is shown to be better, or when `b` is shown to be worse by less than
    `minimum_effect`; the smaller number counts. None when no number of rows would do (both arms equal, no
    minimum effect).
    """
    z_alpha, z_power = float(ndtri(1 - alpha / 2)), float(ndtri(POWER))
    # No difference seen in n rows does not mean none in more: one row in n + 1 keeps the estimate finite.
    variance = max(comparison.variance, 1 / (comparison.rows + 1))
    difference = comparison.difference  # negative where `b` scored higher
    needed = []
    if difference > 0:
        square = variance + difference**2
        needed.append(((z_alpha * math.sqrt(square) + z_power * math.sqrt(variance)) / difference) ** 2)
    if difference < minimum_effect:
        needed.append((z_alpha + z_power) ** 2 * variance / (minimum_effect - difference) ** 2)
    if not needed:
        return None
    return max(comparison.rows + 1, math.ceil(min(needed)))
