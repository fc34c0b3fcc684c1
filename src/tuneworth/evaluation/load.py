"""Several requests at once: what each waits, and what each costs, when 1, 4 or 16 arrive in the same moment.

The requests of a moment are one batch of the engine, which computes their common beginning once; nothing is kept from
one moment to the next. Each of them waits until the batch is done.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuneworth.data.example import Example
from tuneworth.evaluation.probed import Probed

MOMENTS = {1: 12, 4: 6, 16: 4}
"""Requests at once, and how often that many are sent."""


@dataclass(frozen=True, slots=True)
class AtOnce:
    """Seconds that a request waits while `requests` are answered together, and its share of the machine's time."""

    requests: int
    seconds_p50: float
    seconds_p95: float
    machine_seconds_per_request: float


def at_once(
    probed: Probed, rows: Sequence[Example], advance: Callable[[int], None] = lambda units: None
) -> list[AtOnce]:
    """Measure 1, 4 and 16 requests at once on `rows`, which are gone through in order and repeated where they do not
    suffice; the bar moves once for each. The first request of all is not counted: it pays for what comes into memory.
    """
    probed.ask(probed.form, rows[:1])
    found = []
    for requests, moments in MOMENTS.items():
        seconds = []
        for moment in range(moments):
            some = [rows[(moment * requests + n) % len(rows)] for n in range(requests)]
            start = time.perf_counter()
            probed.ask(probed.form, some)
            seconds.append(time.perf_counter() - start)
        p95 = statistics.quantiles(seconds, n=20, method="inclusive")[18]
        found.append(AtOnce(requests, statistics.median(seconds), p95, statistics.fmean(seconds) / requests))
        advance(1)
    return found
