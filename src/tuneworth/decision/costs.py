"""What the arms cost: per request, per correct answer, in total at a volume, and from which volume one pays
back.

USD throughout. A request costs the machine time it takes at the price of a machine hour; a cost that cannot
be known because a part was not measured is None.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from tuneworth.decision.probes import Interval
from tuneworth.decision.records import ArmResult, BreakEven, Price
from tuneworth.decision.statistics import BootstrapMean

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
    return Price(round(usd, 6), "default", str(defaults["as_of"]), str(defaults["statement"]))


def usd_per_request(arm: ArmResult, price: Price) -> float | None:
    """What one request costs to answer."""
    if arm.machine_seconds_per_request is None:
        return None
    return arm.machine_seconds_per_request * price.usd_per_machine_hour / SECONDS_PER_HOUR


def usd_per_1k_correct(arm: ArmResult, price: Price, binary: bool) -> float | None:
    """What 1,000 right answers cost to get; None when scores are graded (nothing is simply right) or none is
    right.
    """
    usd = usd_per_request(arm, price)
    return None if usd is None or not binary or arm.mean == 0 else 1000 * usd / arm.mean


def total_usd(arm: ArmResult, price: Price, requests: float) -> float | None:
    """Build cost and the cost of `requests` requests."""
    usd = usd_per_request(arm, price)
    return None if usd is None or arm.usd_to_build is None else arm.usd_to_build + requests * usd


def cost_curve(arms: Sequence[ArmResult], price: Price, volume: float) -> list[dict[str, Any]]:
    """Total cost of each arm whose cost is known, at 1,000 to 10,000,000 requests and at the stated
    `volume`.
    """
    volumes: set[float] = {mantissa * 10**decade for decade in _DECADES for mantissa in _MANTISSAS} | {10**7}
    if volume > 0:
        volumes.add(int(volume) if volume == int(volume) else volume)
    curve = []
    for requests in sorted(volumes):
        totals = {arm.name: total_usd(arm, price, requests) for arm in arms}
        known = {name: usd for name, usd in totals.items() if usd is not None}
        curve.append({"requests": requests, "usd": known})
    return curve if curve[0]["usd"] else []


def break_even(arm: ArmResult, against: ArmResult, price: Price, confidence: float, seed: int = 0) -> BreakEven | None:
    """Where the total costs of two arms cross; None when a cost of either is not known."""
    usd, other_usd = usd_per_request(arm, price), usd_per_request(against, price)
    if usd is None or other_usd is None or arm.usd_to_build is None or against.usd_to_build is None:
        return None
    extra, saving = arm.usd_to_build - against.usd_to_build, other_usd - usd
    if extra <= 0 and saving >= 0 and (extra < 0 or saving > 0):
        return BreakEven(arm.name, against.name, "already-cheaper")
    if saving <= 0:
        return BreakEven(arm.name, against.name, "never")
    interval = None
    savings = _saving_interval(arm, against, price, confidence, seed)
    if savings is not None and savings[0] > 0:
        interval = (extra / savings[1], extra / savings[0])
    return BreakEven(arm.name, against.name, "pays-back", extra / saving, interval)


def _saving_interval(arm: ArmResult, against: ArmResult, price: Price, confidence: float, seed: int) -> Interval | None:
    """Interval of the USD saved per request, from the seconds of the same rows in both arms."""
    per_row = []
    for one in (arm, against):
        if one.row_seconds is None or one.machine_seconds_per_request is None:
            return None
        seconds = np.asarray(one.row_seconds, dtype=np.float64)
        if seconds.mean() <= 0:
            return None
        # The rows give the spread; the level is the measured machine time, which may count more than theirs.
        per_row.append(seconds * one.machine_seconds_per_request / seconds.mean())
    savings = (per_row[1] - per_row[0]) * price.usd_per_machine_hour / SECONDS_PER_HOUR
    bootstrap = BootstrapMean(savings, seed)
    if bootstrap.constant:
        return float(savings[0]), float(savings[0])
    return bootstrap.interval(confidence, -np.inf, np.inf)
