"""What a number of test rows can show: one formula, for the audit before anything is trained and for the verdict.

Normal approximation for paired differences (Connor 1987, Biometrics 43:207-211, for right/wrong scores).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import scipy  # its parts are loaded when they are used

POWER = 0.8


def smallest_detectable_difference(mean_square: float, rows: int, alpha: float, binary: bool) -> float | None:
    """The true difference (0..1) that `rows` rows show to be above zero, two-sided `alpha`, with 80 % power.

    `mean_square` is that of the rows' differences: for right/wrong (`binary`) scores, the share of rows on
    which exactly one arm is right. None when even a difference of 1 would not show, and when graded scores differ
    on no row, since nothing is then known of their spread.
    """
    z_alpha, z_power = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(POWER)

    def missing(difference: float) -> float:
        # A mean difference d needs a mean square of at least d^2; at least d where rows add 0, 1 or -1.
        square = max(mean_square, difference if binary else difference**2)
        spread = math.sqrt(max(square - difference**2, 0.0))
        return z_alpha * math.sqrt(square) + z_power * spread - difference * math.sqrt(rows)

    if missing(1.0) > 0 or (mean_square == 0 and not binary):
        return None
    return float(scipy.optimize.brentq(missing, 1e-12, 1.0))
