"""Layout of plots: values become places on an axis, in percent of the plot's width or height.

Plots are inline SVG whose places are percentages or an unscaled 0..100 box, so that they follow the page's
width while the text beside them keeps its size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

_POINTS = 600  # more points than pixels show nothing more
_ROOM = 60  # percent of the width that keeps the words of two marks apart even on a phone


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale from `low` to `high` (above 0 when `log`), with the values at its ticks and their words."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Percent of the way from low to high, kept within 0..100."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log10(max(value, low)), math.log10(low), math.log10(high)
        share = (value - low) / (high - low) if high > low else 0.5
        return round(100 * min(max(share, 0.0), 1.0), 3)

    @property
    def places(self) -> list[tuple[float, str]]:
        """Place and words of each tick."""
        return [(self.place(value), words) for value, words in self.ticks]


def linear_axis(values: Iterable[float], words: Callable[[float], str], limits: tuple[float, float]) -> Axis:
    """An axis around `values` with round ticks, that does not go beyond `limits` unless a value does."""
    known = list(values) or [0.0, 1.0]
    low, high = min(known), max(known)
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 0.5
    low, high = min(low, max(low - margin, limits[0])), max(high, min(high + margin, limits[1]))
    high = high if high > low else low + 1
    step = _round_step((high - low) / 6)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Axis(low, high, tuple((n * step, words(round(n * step, 10))) for n in range(first, last + 1)))


def log_axis(values: Iterable[float], words: Callable[[float], str]) -> Axis:
    """An axis of whole decades around the positive `values`; ticks at powers of ten, at most seven of
    them.
    """
    known = [value for value in values if value > 0] or [1.0, 10.0]
    low, high = math.floor(math.log10(min(known)) + 1e-9), math.ceil(math.log10(max(known)) - 1e-9)
    high = max(high, low + 1)
    step = math.ceil((high - low) / 6)
    ticks = tuple((10.0**n, words(10.0**n)) for n in range(low, high + 1, step))
    return Axis(10.0**low, 10.0**high, ticks, log=True)


def _round_step(step: float) -> float:
    """The round number (1, 2, 5 times a power of ten) next above `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step * (1 - 1e-9))


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a plot. `family` names its colour and `dash` tells apart lines of one colour."""

    name: str
    family: str
    points: Sequence[tuple[float, float]]
    dash: str = ""
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line at `x` with words, and a band from `low` to `high` where an interval is known."""

    x: float
    words: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Lines:
    """A line plot: its axes with titles, series and marks; `description` says in words what it shows."""

    title: str
    description: str
    x: Axis
    y: Axis
    x_title: str
    y_title: str
    series: Sequence[Series]
    marks: Sequence[Mark] = field(default_factory=tuple)

    @property
    def crowded(self) -> bool:
        """Whether the words of two marks would run into each other on one row."""
        places = [self.x.place(mark.x) for mark in self.marks]
        return len(places) > 1 and max(places) - min(places) < _ROOM

    def path(self, series: Series) -> str:
        """SVG path data in a box of 100 by 100 with y downwards."""
        stride = max(1, math.ceil(len(series.points) / _POINTS))
        chosen = [*series.points[:-1:stride], *series.points[-1:]]
        return "M" + " L".join(f"{self.x.place(x):g} {100 - self.y.place(y):g}" for x, y in chosen)

    def dots(self, series: Series) -> str:
        """Path data of dots: lines of no length, which round caps draw as circles at any scaling of the
        box.
        """
        return " ".join(f"M{self.x.place(x):g} {100 - self.y.place(y):g}h0" for x, y in series.points)


def short_count(number: float) -> str:
    """`1k`, `20k`, `1M`: a count as an axis shows it."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


def short_usd(number: float) -> str:
    """USD as an axis shows it: `0.01`, `1`, `1k`."""
    return short_count(number) if number >= 1000 else f"{number:.10f}".rstrip("0").rstrip(".")
