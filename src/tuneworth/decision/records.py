"""The records of the decision: what an arm achieved on the test rows, and what a comparison of two arms
found.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tuneworth.decision.probes import Interval, LearningCurve, Probes
from tuneworth.task.schema import Decision

Family = Literal["prompt", "fine-tune", "classical"]
Kind = Literal["fine-tune", "prompt", "simpler-model", "more-data", "not-enough-evidence"]
Decoding = Literal["generate", "constrained", "scored"]
Input = Literal["requests", "usd_per_machine_hour", "usd_per_million_input"]
Side = Literal["below", "above"]
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
    `token_price` is set for hosted arms, which cost their tokens and no machine time here (`row_tokens`: in
    and out, row by row). `seed_spread` is the
    standard deviation of the score between trainings that differ in their seed alone, seen over `seeds` of them.
    `epochs` are those that a training within a budget took, and those that were wished for.
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
    row_tokens: tuple[tuple[float, float], ...] | None = None
    at_once: tuple[AtOnce, ...] = ()
    seed_spread: float | None = None
    seeds: int = 1
    epochs: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if (self.status == "done") != (self.scores is not None):
            raise ValueError(f"arm '{self.name}': an arm has scores if, and only if, it is done")
        if self.scores is None:
            return
        if not self.scores or not all(0 <= score <= 1 for score in self.scores):
            raise ValueError(f"arm '{self.name}': scores are one number in 0..1 for each test row")
        for rows in (self.groups, self.row_seconds, self.row_tokens):
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

    `interval` is simultaneous over all pairs of arms; `p_adjusted` is Holm's. `equivalent` says
    that the difference is shown to lie within the minimum effect. `variance` is that of one row's difference,
    the number that power depends on, `skewness` its skewness; `rows` how many rows were compared.
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
    skewness: float = 0.0

    def not_inferior(self, minimum_effect: float) -> bool:
        """Whether `b` is shown not to be worse than `a` by as much as `minimum_effect`."""
        return self.interval[1] < minimum_effect or self.equivalent

    def undetermined(self, minimum_effect: float) -> bool:
        """Whether `b` is neither shown to be worse than `a` nor shown to be as good."""
        return self.interval[0] <= 0 and not self.not_inferior(minimum_effect)

    def with_p(self, p_adjusted: float) -> Comparison:
        """The same comparison with its p corrected for others."""
        return replace(self, p_adjusted=p_adjusted)

    def flipped(self) -> Comparison:
        """The same comparison, of `b` with `a`."""
        low, high = self.interval
        return replace(
            self, a=self.b, b=self.a, difference=-self.difference, interval=(-high, -low), skewness=-self.skewness
        )

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
    """Price of one hour of the machine that answered, in USD, and where it comes from.

    An assumed price may be wrong by `uncertainty_factor` either way; a price that the user gave is 1.
    """

    usd_per_machine_hour: float
    source: Literal["task", "default"]
    as_of: str | None
    statement: str
    uncertainty_factor: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """A JSON object, for the provenance in verdict.json."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Terms:
    """What costs are reckoned with: the machine's price, and what comes beside requests over `months`.

    `usd_for_labels` is this task's share of the labelling cost, borne by arms that learn from the rows;
    `retrain_months` after how many months those are built anew; `idle_hours_per_month` how long a machine of one's own
    waits while it is paid for.
    """

    price: Price
    months: float = 12
    usd_for_labels: float = 0.0
    retrain_months: float | None = None
    idle_hours_per_month: float = 0.0

    @classmethod
    def of(cls, decision: Decision, price: Price) -> Self:
        """The terms that a task's decision section states."""
        share = decision.usd_for_labels / decision.labels_shared_by
        return cls(price, decision.horizon_months, share, decision.retrain_months, decision.idle_hours_per_month)

    @property
    def trainings(self) -> int:
        """How often an arm that learns is built over the months."""
        return 1 if self.retrain_months is None else max(1, math.ceil(self.months / self.retrain_months - 1e-9))


@dataclass(frozen=True, slots=True)
class Crossing:
    """A number of requests, or of right answers; the upper end of the interval is infinite when it may never come."""

    estimate: float
    interval: Interval | None = None

    def to_json(self) -> dict[str, Any]:
        """Estimate and interval; an infinite end is null."""
        ends = None
        if self.interval is not None:
            ends = [end if math.isfinite(end) else None for end in self.interval]
        return {"estimate": self.estimate, "interval": ends}


@dataclass(frozen=True, slots=True)
class BreakEven:
    """From how many requests on `arm` is cheaper in total than `against`; None unless it pays back.

    `correct` counts right answers instead of requests, so that the quality of both arms enters: it answers from how
    many right answers on `arm` gets them cheaper. Intervals carry the spread of the rows and an assumed price's.
    """

    arm: str
    against: str
    status: Literal["pays-back", "never", "already-cheaper"]
    requests: Crossing | None = None
    correct: Crossing | None = None

    def to_json(self) -> dict[str, Any]:
        """The object of verdict.json."""
        return {
            "arm": self.arm,
            "against": self.against,
            "status": self.status,
            "requests": self.requests.to_json() if self.requests else None,
            "correct_answers": self.correct.to_json() if self.correct else None,
        }


@dataclass(frozen=True, slots=True)
class Saving:
    """What `arm` costs less in total than `against` at `requests` requests; negative where it costs more."""

    arm: str
    against: str
    requests: float
    usd: float

    def to_json(self) -> dict[str, Any]:
        """`saving` of verdict.json."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Flip:
    """Where the verdict would become `to` if one input alone were otherwise: at `at`, `side` of what it is now.

    `of` is `requests` (in all), `usd_per_machine_hour` or `usd_per_million_input` (other token prices in proportion).
    """

    of: Input
    now: float
    side: Side
    at: float
    to: Kind

    def to_json(self) -> dict[str, Any]:
        """An object of `sensitivity` in verdict.json."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Case:
    """All that a verdict was made from.

    `intervals` holds each done arm's interval of the mean, `totals` each arm's total cost (USD, None if
    unknown). `doubtful` holds the arms on which the verdict hangs, each with its comparison (with the best arm, or of
    a dearer arm with the leader) and the test rows that would decide (None: no number would); `artefacts` the arms
    whose score may be one of form; `leader` is what would win otherwise. `probes` holds what else was measured of
    arms, by name; `binary` says that every score is right or wrong; `groups` is how many groups the rows come in, None
    when each stands alone.
    """

    arms: tuple[ArmResult, ...]
    decision: Decision
    price: Price
    binary: bool
    rows: int
    intervals: Mapping[str, Interval]
    best: ArmResult | None
    winner: ArmResult | None
    leader: ArmResult | None
    comparisons: tuple[Comparison, ...]
    totals: Mapping[str, float | None]
    doubtful: Mapping[str, tuple[Comparison, int | None]]
    artefacts: tuple[str, ...]
    break_even: BreakEven | None
    saving: Saving | None
    flips: tuple[Flip, ...]
    learning_curve: LearningCurve | None
    probes: Mapping[str, Probes]
    groups: int | None
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
