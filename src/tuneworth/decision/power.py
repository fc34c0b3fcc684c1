"""The number of test rows that would decide a pair; the smallest difference that rows show is in `tuneworth.power`.

Normal approximations for paired differences (Connor 1987, Biometrics 43:207-211, for right/wrong scores).
They are estimates: they take the variance seen so far for the true one.
"""

from __future__ import annotations

import math

from scipy.special import ndtri

from tuneworth.decision.records import Comparison
from tuneworth.decision.statistics import pairwise_level
from tuneworth.decision.wording import about, points
from tuneworth.power import POWER, smallest_detectable_difference

__all__ = ["power_in_words", "rows_to_decide", "smallest_detectable_difference"]

_DIFFER_ON = 0.1  # share of rows on which two arms differ, as right/wrong scores: what the audit assumes too
_GRADED_SQUARE = 0.04  # the same for graded scores: differences of 20 points


def power_in_words(test_rows: int, arms: int, binary: bool, confidence: float, minimum_effect: float) -> str:
    """What `test_rows` rows will be able to show of `arms` arms: a sentence for before anything is spent.

    Nothing is known of the arms yet, so it assumes that two of them differ on a tenth of the rows (`binary`), or by 20
    points in a row.
    """
    alpha = pairwise_level(max(2, arms), 1 - confidence)
    square = _DIFFER_ON if binary else _GRADED_SQUARE
    found = smallest_detectable_difference(square, test_rows, alpha, binary)
    assumed = f"on {square:.0%} of the rows" if binary else "by 20 points in each row"
    least = "hardly any difference" if found is None else f"differences from about {points(found)} points on"
    words = f"power: {test_rows:,} test rows will show {least} (80 % chance, if two of {arms} arms differ {assumed})"
    if minimum_effect <= 0 or (found is not None and found <= minimum_effect):
        return words
    z_alpha, z_power = float(ndtri(1 - alpha / 2)), float(ndtri(POWER))
    needed = (z_alpha + z_power) ** 2 * square / minimum_effect**2
    return f"{words}; to show the {points(minimum_effect)} points that matter takes about {about(needed)}"


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
