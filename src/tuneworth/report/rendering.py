"""The HTML file: jinja2 with autoescape, one page, no script, nothing fetched when it is viewed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader, Undefined

from tuneworth.decision import wording
from tuneworth.report.data import ReportData
from tuneworth.report.view import View
from tuneworth.task import format_seconds

NOT_MEASURED = "not measured"
_CLIPPED = 700  # characters of an input or answer that are shown

# Signs that a browser does not show, or that reorder what follows them; a row of hostile data may hold them.
_INVISIBLE = [*range(9), 11, *range(14, 32), 127, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_REPLACED = dict.fromkeys(_INVISIBLE, "\N{REPLACEMENT CHARACTER}")


def render_report(run: ReportData) -> str:
    """The report of a run as one self-contained HTML page; what is missing reads "not measured"."""
    html = _environment().get_template("report.html").render(run=run, view=View(run))
    # A lone surrogate, legal in JSON, cannot be written as UTF-8.
    return html.encode("utf-8", "replace").decode("utf-8").translate(_REPLACED)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tuneworth.report"),
        autoescape=True,
        undefined=ChainableUndefined,
        finalize=lambda value: NOT_MEASURED if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name, words in _FILTERS.items():
        environment.filters[name] = _or_not_measured(words)
    environment.filters["clip"] = clip
    return environment


def _or_not_measured(words: Callable[..., str]) -> Callable[..., str]:
    def filtered(value: Any, *more: Any) -> str:
        missing = any(item is None or isinstance(item, Undefined) for item in (value, *more))
        return NOT_MEASURED if missing else words(value, *more)

    return filtered


def clip(text: object, length: int = _CLIPPED) -> str:
    """Text of at most `length` characters; what is cut is marked."""
    whole = str(text)
    return whole if len(whole) <= length else whole[:length].rstrip() + " […]"


def _span(words: Callable[[float, float], str]) -> Callable[..., str]:
    def spanned(interval: Any) -> str:
        ends = list(interval)
        return NOT_MEASURED if len(ends) != 2 or None in ends else words(*ends)

    return spanned


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value < 10 else format_seconds(value)


def _bytes(value: float) -> str:
    for size, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} bytes"


def _p_value(value: float) -> str:
    return "below 0.0001" if value < 0.0001 else f"{value:.4f}"


def _plain(value: object) -> str:
    """A setting's value; numbers without noise digits."""
    return f"{value:g}" if isinstance(value, float) else str(value)


_FILTERS: dict[str, Callable[..., str]] = {
    "percent": wording.percent,
    "points": lambda value: f"{wording.points(value)} points",
    "percent_span": _span(wording.interval_percent),
    "points_span": _span(wording.interval_points),
    "about_span": _span(lambda low, high: f"{wording.about(low)} to {wording.about(high)}"),
    "usd": wording.usd,
    "usd_number": lambda value: wording.usd(value).removesuffix(" USD"),
    "count": wording.count,
    "about": wording.about,
    "seconds": _seconds,
    "size": _bytes,
    "p_value": _p_value,
    "plain": _plain,
    "loss": lambda value: f"{value:.3f}",
    "tokens": lambda value: f"{value:,.1f}",
    "finding": wording.finding,
}
