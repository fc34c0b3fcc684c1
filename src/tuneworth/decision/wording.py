"""Numbers in words, the same in the verdict's reasons, on the command line and in the report."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10


def percent(share: float) -> str:
    """A score or share in 0..1 as `83.1 %`."""
    return f"{100 * share:.{_places(100 * share)}f} %"


def points(difference: float) -> str:
    """A difference of scores in -1..1 as `12.1` percentage points, without the word."""
    return f"{100 * difference:.{_places(100 * difference)}f}"


def interval_percent(low: float, high: float) -> str:
    """`81.0 to 85.2 %`"""
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def interval_points(low: float, high: float) -> str:
    """`9.9 to 14.2`"""
    return f"{100 * low:.1f} to {100 * high:.1f}"


def usd(amount: float) -> str:
    """USD to the cent from 1 on, three significant digits below."""
    if amount == 0:
        return "0 USD"
    if abs(amount) >= 1000:
        return f"{amount:,.0f} USD"
    if abs(amount) >= 1:
        return f"{amount:.2f} USD"
    return f"{amount:.{2 - floor(log10(abs(amount)))}f} USD"


def count(number: float) -> str:
    """A count that is known: `1,200,000`."""
    return f"{number:,.0f}"


def about(number: float) -> str:
    """A count that is estimated, to three significant digits: `18,200`."""
    if number < 1:
        return "1"  # a part of a request is a request
    return f"{round(number, 2 - floor(log10(number))):,.0f}"


def finding(interval: Sequence[float], equivalent: bool, minimum_effect: float) -> str:
    """What the comparison of a better arm with another showed, given the interval of their difference."""
    if interval[1] < minimum_effect or equivalent:
        return f"no difference of {points(minimum_effect)} points or more"
    return "shown to be better" if interval[0] > 0 else "not enough test rows to tell them apart"


def _places(value: float) -> int:
    """One decimal, and two below 0.1 so that a small number does not read as nothing."""
    return 2 if 0 < abs(value) < 0.1 else 1
