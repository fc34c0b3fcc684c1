"""The records of the decision: what an arm achieved on the test rows, and what a comparison of two arms
found.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tuneworth.decision.probes import Interval, LearningCurve, Probes
from tuneworth.task.schema import Decision

Family = Literal["prompt", "fine-tune", "classical"]
Kind = Literal["fine-tune", "prompt", "simpler-model", "more-data", "not-enough-evidence"]
Decoding = Literal["generate", "constrained", "scored"]
Status = Literal["done", "skipped", "failed"]
Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """USD for a million tokens of a hosted model, and where the price comes from."""

    usd_per_million_input: float
    usd_per_million_output: float
    source: str = "from the task file"
    as_of: str | None = None

    def to_json(self) -> dict[str, Any]:
        """An arm's `token_price` in arm.json and verdict.json."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class AtOnce:
    """Latency of one request and machine time per request while `requests` requests are answered at once."""

    requests: int
    seconds_p50: float
    seconds_p95: float
    machine_seconds_per_request: float

    def to_json(self) -> dict[str, Any]:
        """An object of an arm's `at_once` in arm.json."""
        return asdict(self)


@dataclass(frozen=True)
class ArmResult:
    """What one arm achieved. Every field that was not measured is None.

    `scores` holds one number in 0..1 for each test row, in the same row order for all arms; an arm that is
    done has them, others do not. `groups` names the group of each row (rows of one customer, say). Token
    counts are means per request, `seconds_p50` and `seconds_p95` the latency of one request,
    `machine_seconds_per_request` the machine time that one request takes when many are answered together,
    `row_seconds` that time row by row. `truncated`, `empty` and `invalid` are shares of the rows, 0..1.
    `token_price` is set for hosted arms, which cost their tokens and no machine time here. `seed_spread` is the
    standard deviation of the score between trainings that differ in their seed alone, seen over `seeds` of them.
    Raises ValueError when these do not fit.
    """

    name: str
    family: Family
    model: str
    decoding: Decoding | None = None
    status: Status = "done"
    why: str = ""
    scores: tuple[float, ...] | None = None
    groups: tuple[str, ...] | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None
    seconds_p50: float | None = None
    seconds_p95: float | None = None
    machine_seconds_per_request: float | None = None
    row_seconds: tuple[float, ...] | None = None
    usd_to_build: float | None = None
    truncated: float | None = None
    empty: float | None = None
    invalid: float | None = None
    token_price: TokenPrice | None = None
    at_once: tuple[AtOnce, ...] = ()
    seed_spread: float | None = None
    seeds: int = 1

    def __post_init__(self) -> None:
        if (self.status == "done") != (self.scores is not None):
            raise ValueError(f"arm '{self.name}': an arm has scores if, and only if, it is done")
        if self.scores is None:
            return
        if not self.scores or not all(0 <= score <= 1 for score in self.scores):
            raise ValueError(f"arm '{self.name}': scores are one number in 0..1 for each test row")
        for rows in (self.groups, self.row_seconds):
            if rows is not None and len(rows) != len(self.scores):
                raise ValueError(f"arm '{self.name}': {len(rows)} values for {len(self.scores)} test rows")

    @property
    def done(self) -> bool:
        """Whether the arm answered the test rows."""
        return self.scores is not None

    @cached_property
    def values(self) -> Floats:
        """The scores as an array [rows]. Raises ValueError when the arm is not done."""
        if self.scores is None:
            raise ValueError(f"arm '{self.name}' has no scores: it is {self.status}")
        return np.asarray(self.scores, dtype=np.float64)

    @cached_property
    def mean(self) -> float:
        """The mean score, summed exactly so that equal arms have equal means."""
        return math.fsum(self.scores or ()) / len(self.values)

    @cached_property
    def binary(self) -> bool:
        """Whether every score is 0 or 1, a row being right or wrong."""
        return bool(np.isin(self.values, (0.0, 1.0)).all())

    @cached_property
    def grouped(self) -> bool:
        """Whether several rows share a group, so that they are not independent."""
        return self.groups is not None and max(Counter(self.groups).values()) > 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """The paired comparison of arm `a` with arm `b` on the same rows; `difference` is mean(a) - mean(b).

    `interval` is simultaneous over all comparisons of the verdict; `p_adjusted` is Holm's. `equivalent` says
    that the difference is shown to lie within the minimum effect. `variance` is that of one row's difference,
    the number that power depends on; `rows` how many rows were compared.
    """

    a: str
    b: str
    difference: float
    interval: Interval
    p: float
    p_adjusted: float
    test: str
    equivalent: bool
    variance: float
    rows: int

    def not_inferior(self, minimum_effect: float) -> bool:
        """Whether `b` is shown not to be worse than `a` by as much as `minimum_effect`."""
        return self.interval[1] < minimum_effect or self.equivalent

    def undetermined(self, minimum_effect: float) -> bool:
        """Whether `b` is neither shown to be worse than `a` nor shown to be as good."""
        return self.interval[0] <= 0 and not self.not_inferior(minimum_effect)

    def to_json(self) -> dict[str, Any]:
        """The object of verdict.json."""
        return {
            "a": self.a,
            "b": self.b,
            "difference": self.difference,
            "interval": list(self.interval),
            "p": self.p,
            "p_adjusted": self.p_adjusted,
            "test": self.test,
            "equivalent": self.equivalent,
        }


@dataclass(frozen=True, slots=True)
class Price:
    """Price of one hour of the machine that answered, in USD, and where it comes from."""

    usd_per_machine_hour: float
    source: Literal["task", "default"]
    as_of: str | None
    statement: str

    def to_json(self) -> dict[str, Any]:
        """A JSON object, for the provenance in verdict.json."""
        return {
            "usd_per_machine_hour": self.usd_per_machine_hour,
            "source": self.source,
            "as_of": self.as_of,
            "statement": self.statement,
        }


@dataclass(frozen=True, slots=True)
class BreakEven:
    """From how many requests on `arm` is cheaper in total than `against`; both numbers only if it pays back.

    `interval` is None when it was not measured, or has no upper end because the saving may be nil.
    """

    arm: str
    against: str
    status: Literal["pays-back", "never", "already-cheaper"]
    requests: float | None = None
    interval: Interval | None = None

    def to_json(self) -> dict[str, Any]:
        """The object of verdict.json."""
        requests = None
        if self.requests is not None:
            requests = {"estimate": self.requests, "interval": list(self.interval) if self.interval else None}
        return {"against": self.against, "status": self.status, "requests": requests}


@dataclass(frozen=True, slots=True)
class Case:
    """All that a verdict was made from.

    `intervals` holds each done arm's interval of the mean, `totals` each arm's total cost (USD, None if
    unknown). `doubtful` holds the arms on which the verdict hangs, each with the test rows that would decide
    (None: no number would). `probes` holds what else was measured of arms, by name; `binary` says that every
    score is right or wrong.
    """

    arms: tuple[ArmResult, ...]
    decision: Decision
    price: Price
    binary: bool
    rows: int
    intervals: Mapping[str, Interval]
    best: ArmResult | None
    winner: ArmResult | None
    comparisons: tuple[Comparison, ...]
    totals: Mapping[str, float | None]
    doubtful: Mapping[str, int | None]
    break_even: BreakEven | None
    learning_curve: LearningCurve | None
    probes: Mapping[str, Probes]
    looks_at_test: int

    @property
    def done(self) -> tuple[ArmResult, ...]:
        """The arms that answered the test rows."""
        return tuple(arm for arm in self.arms if arm.done)


def expected_after_doubling(arms: Sequence[ArmResult], curve: LearningCurve | None) -> float | None:
    """Mean score expected of the best trained arm with twice the data; None when that was not measured."""
    trained = [arm.mean for arm in arms if arm.done and arm.family == "fine-tune"]
    if curve is None or curve.gain is None or not trained:
        return None
    return min(1.0, max(trained) + curve.gain)
