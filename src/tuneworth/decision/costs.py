"""What the arms cost: per request, per correct answer, in total at a volume, and from which volume one pays
back.

USD throughout. A request costs the machine time it takes at the price of a machine hour, or its tokens at a hosted
model's prices; a cost that cannot be known because a part was not measured is None. Beside requests an arm costs what
building it costs, as often as it is built anew; its share of labelling, if it learns from the rows; and the hours in
which a machine of one's own waits for requests.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from tuneworth.decision.probes import Interval
from tuneworth.decision.records import ArmResult, AtOnce, BreakEven, Crossing, Floats, Price, Terms
from tuneworth.decision.statistics import skewed_interval, spread

SECONDS_PER_HOUR = 3600
_MANTISSAS, _DECADES = (
    (1, 2, 5),
    (3, 4, 5, 6),
)  # 1e3 to 1e7: even steps on a logarithmic axis, in round numbers


@cache
def _defaults() -> dict[str, Any]:
    return tomllib.loads(files("tuneworth.decision").joinpath("prices.toml").read_text(encoding="utf-8"))


def machine_hour_price(usd_per_machine_hour: float | None, cores: int, gpus: int = 0) -> Price:
    """The user's price of a machine hour, or the dated default for a machine of `cores` cores and `gpus`
    GPUs.
    """
    if usd_per_machine_hour is not None:
        return Price(usd_per_machine_hour, "task", None, "from the task file")
    defaults = _defaults()
    usd = cores * float(defaults["usd_per_core_hour"]) + gpus * float(defaults["usd_per_gpu_hour"])
    factor = float(defaults["uncertainty_factor"])
    return Price(round(usd, 6), "default", str(defaults["as_of"]), str(defaults["statement"]), factor)


def usd_per_request(arm: ArmResult, price: Price) -> float | None:
    """What one request costs to answer."""
    if arm.token_price is not None:
        if arm.input_tokens is None or arm.output_tokens is None:
            return None
        tokens = arm.token_price
        return (
            arm.input_tokens * tokens.usd_per_million_input + arm.output_tokens * tokens.usd_per_million_output
        ) / 1e6
    if arm.machine_seconds_per_request is None:
        return None
    return arm.machine_seconds_per_request * price.usd_per_machine_hour / SECONDS_PER_HOUR


def usd_at_once(arm: ArmResult, point: AtOnce, price: Price) -> float | None:
    """What one request costs while `point.requests` are answered at once; tokens cost the same at any number."""
    if arm.token_price is not None:
        return usd_per_request(arm, price)
    return point.machine_seconds_per_request * price.usd_per_machine_hour / SECONDS_PER_HOUR


def usd_per_1k_correct(arm: ArmResult, price: Price, binary: bool) -> float | None:
    """What 1,000 right answers cost to get; None when scores are graded (nothing is simply right) or none is
    right.
    """
    usd = usd_per_request(arm, price)
    return None if usd is None or not binary or arm.mean == 0 else 1000 * usd / arm.mean


def usd_beside_requests(arm: ArmResult, terms: Terms) -> float | None:
    """What an arm costs over the months if nobody asks: building, labels, idle hours."""
    if arm.usd_to_build is None:
        return None
    learns = arm.family in ("fine-tune", "classical")
    usd = arm.usd_to_build * (terms.trainings if learns else 1) + (terms.usd_for_labels if learns else 0.0)
    if arm.token_price is None and arm.family != "classical":  # a classical model needs no machine of its own
        usd += terms.idle_hours_per_month * terms.months * terms.price.usd_per_machine_hour
    return usd


def total_usd(arm: ArmResult, terms: Terms, requests: float) -> float | None:
    """What an arm costs beside requests and the cost of `requests` requests."""
    usd, beside = usd_per_request(arm, terms.price), usd_beside_requests(arm, terms)
    return None if usd is None or beside is None else beside + requests * usd


def at_machine_price(terms: Terms, scale: float) -> Terms:
    """The terms if a machine hour cost `scale` times as much."""
    price = replace(terms.price, usd_per_machine_hour=terms.price.usd_per_machine_hour * scale)
    return replace(terms, price=price)


def built_at(arm: ArmResult, scale: float) -> ArmResult:
    """The arm if the machine hours that built it had cost `scale` times as much."""
    if arm.token_price is not None or arm.usd_to_build is None:
        return arm
    return replace(arm, usd_to_build=arm.usd_to_build * scale)


def cost_curve(arms: Sequence[ArmResult], terms: Terms, volume: float) -> list[dict[str, Any]]:
    """Total cost of each arm whose cost is known, at 1,000 to 10,000,000 requests and at the stated
    `volume`.
    """
    volumes: set[float] = {mantissa * 10**decade for decade in _DECADES for mantissa in _MANTISSAS} | {10**7}
    if volume > 0:
        volumes.add(int(volume) if volume == int(volume) else volume)
    curve = []
    for requests in sorted(volumes):
        totals = {arm.name: total_usd(arm, terms, requests) for arm in arms}
        known = {name: usd for name, usd in totals.items() if usd is not None}
        curve.append({"requests": requests, "usd": known})
    return curve if curve[0]["usd"] else []


def break_even(arm: ArmResult, against: ArmResult, terms: Terms, confidence: float) -> BreakEven | None:
    """Where the total costs of two arms cross; None when a cost of either is not known."""
    found = _extra_and_saving(arm, against, terms)
    if found is None:
        return None
    extra, saving = found
    if extra <= 0 and saving >= 0 and (extra < 0 or saving > 0):
        return BreakEven(arm.name, against.name, "already-cheaper")
    if saving <= 0:
        return BreakEven(arm.name, against.name, "never")
    requests = Crossing(extra / saving, _crossing_interval(arm, against, terms, confidence, False))
    correct = None
    if arm.binary and against.binary and min(arm.mean, against.mean) > 0:
        per_right = _saving_per_right(arm, against, terms)
        if per_right > 0:
            correct = Crossing(extra / per_right, _crossing_interval(arm, against, terms, confidence, True))
    return BreakEven(arm.name, against.name, "pays-back", requests, correct)


def _extra_and_saving(arm: ArmResult, against: ArmResult, terms: Terms) -> tuple[float, float] | None:
    """What `arm` costs more beside requests, and what it saves per request."""
    usd, other_usd = usd_per_request(arm, terms.price), usd_per_request(against, terms.price)
    beside, other_beside = usd_beside_requests(arm, terms), usd_beside_requests(against, terms)
    if usd is None or other_usd is None or beside is None or other_beside is None:
        return None
    return beside - other_beside, other_usd - usd


def _saving_per_right(arm: ArmResult, against: ArmResult, terms: Terms) -> float:
    usd, other_usd = usd_per_request(arm, terms.price), usd_per_request(against, terms.price)
    assert usd is not None and other_usd is not None
    return other_usd / against.mean - usd / arm.mean


def _crossing_interval(
    arm: ArmResult, against: ArmResult, terms: Terms, confidence: float, per_right: bool
) -> Interval | None:
    """Interval of a crossing: that of the saving, at the lowest and the highest price of a machine hour.

    The saving's is `skewed_interval` of its rows (for right answers, of the rows' part in the two ratios: the delta
    method). None when costs were not measured row by row; an infinite end when the saving may be nil.
    """
    factor, ends = terms.price.uncertainty_factor, []
    for scale in {1 / factor, 1.0, factor}:
        scaled = at_machine_price(terms, scale)
        one, other = _row_usd(arm, scaled.price), _row_usd(against, scaled.price)
        if one is None or other is None:
            return None
        found = _extra_and_saving(built_at(arm, scale), built_at(against, scale), scaled)
        assert found is not None
        if per_right:
            one, other = _per_right(one, arm), _per_right(other, against)
        savings = other - one
        low, high = (float(end) for end in skewed_interval(savings.mean(), spread(savings), confidence))
        extra = found[0]
        ends += [extra / high if high > 0 else math.inf, extra / low if low > 0 else math.inf]
    if not any(math.isfinite(end) for end in ends):
        return None
    return min(ends), max(ends)


def _row_usd(arm: ArmResult, price: Price) -> Floats | None:
    """What each test row cost; the rows give the spread, the level is what was measured for all."""
    usd = usd_per_request(arm, price)
    if usd is None:
        return None
    weights = None if arm.row_seconds is None else np.asarray(arm.row_seconds, dtype=np.float64)
    if arm.token_price is not None:
        if arm.row_tokens is None:
            return None
        prices = (arm.token_price.usd_per_million_input, arm.token_price.usd_per_million_output)
        weights = np.asarray(arm.row_tokens, dtype=np.float64) @ np.asarray(prices)
    if weights is None or weights.mean() <= 0:
        return None
    return np.asarray(weights * (usd / weights.mean()))


def _per_right(row_usd: Floats, arm: ArmResult) -> Floats:
    """Each row's part in the USD per right answer: the ratio, and its first derivative."""
    ratio = row_usd.mean() / arm.mean
    return np.asarray(ratio + (row_usd - ratio * arm.values) / arm.mean)
