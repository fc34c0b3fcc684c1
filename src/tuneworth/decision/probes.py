"""What else was measured of the arms than their scores: growth with data, altered requests, forgetting, strangers.

Each record is one object of verdict.json; what was not measured is None, there and here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

Interval: TypeAlias = tuple[float, float]


def _span(value: Any) -> Interval | None:
    return None if value is None else (float(value[0]), float(value[1]))


def _listed(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The score (0..1) after learning from `rows` rows, and its interval."""

    rows: int
    score: float
    interval: Interval | None = None

    def to_json(self) -> dict[str, Any]:
        """An object of `learning_curve.points`."""
        return {"rows": self.rows, "score": self.score, "interval": _listed(self.interval)}


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Scores of one arm over the rows it learnt from, a curve through them, and what twice the rows would add.

    `arm` names the arm that was trained at each point. `band` holds (rows, low, high) of the 90 % band; `gain` is what
    twice the rows are expected to add (0..1) with its 90 % `interval`; `advice` is a sentence. Only `points` are
    measured; the rest comes from `fitted_curve`.
    """

    points: tuple[CurvePoint, ...]
    arm: str | None = None
    band: tuple[tuple[float, float, float], ...] = ()
    gain: float | None = None
    interval: Interval | None = None
    advice: str | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The record of an object of verdict.json, or of one that holds `points` alone."""
        points = tuple(CurvePoint(p["rows"], p["score"], _span(p.get("interval"))) for p in value["points"])
        at_double = value.get("at_double") or {}
        band = tuple((b["rows"], b["low"], b["high"]) for b in value.get("band") or ())
        gain, interval = at_double.get("gain"), _span(at_double.get("interval"))
        return cls(points, value.get("arm"), band, gain, interval, value.get("advice"))

    def to_json(self) -> dict[str, Any]:
        """`learning_curve` of verdict.json."""
        at_double = None
        if self.gain is not None:
            rows = 2 * max(point.rows for point in self.points)
            at_double = {"rows": rows, "gain": self.gain, "interval": _listed(self.interval)}
        return {
            "arm": self.arm,
            "points": [point.to_json() for point in self.points],
            "band": [{"rows": rows, "low": low, "high": high} for rows, low, high in self.band],
            "at_double": at_double,
            "advice": self.advice,
        }


@dataclass(frozen=True, slots=True)
class Perturbed:
    """An arm's score (0..1) on altered requests, and how far that is from its score on the same rows unaltered.

    `difference` is altered minus unaltered, paired row by row, negative where alteration hurts.
    """

    score: float
    difference: float
    interval: Interval | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The record of an object of `robustness`."""
        return cls(value["score"], value["difference"], _span(value.get("interval")))

    def to_json(self) -> dict[str, Any]:
        """One value of an arm's `robustness`, whose keys name the alterations."""
        return {"score": self.score, "difference": self.difference, "interval": _listed(self.interval)}


@dataclass(frozen=True, slots=True)
class Forgetting:
    """General text before and after fine-tuning: loss (nats a token) and accuracy (0..1) in multiple choice."""

    loss_before: float | None = None
    loss_after: float | None = None
    choice_before: float | None = None
    choice_after: float | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The record of an arm's `forgetting`."""
        return cls(*(value.get(key) for key in ("loss_before", "loss_after", "choice_before", "choice_after")))

    def to_json(self) -> dict[str, Any]:
        """An arm's `forgetting`."""
        return {key: getattr(self, key) for key in ("loss_before", "loss_after", "choice_before", "choice_after")}


@dataclass(frozen=True, slots=True)
class OutOfScope:
    """Requests that belong to no part of the task: how many were shown, and what the arm did.

    `answered` is the share (0..1) answered as though they belonged, with its `interval`; `auroc` how well the arm's
    own confidence tells strangers from test rows (None where it gives none).
    """

    rows: int
    answered: float
    interval: Interval | None = None
    auroc: float | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The record of an arm's `out_of_scope`."""
        return cls(value["rows"], value["answered"], _span(value.get("interval")), value.get("auroc"))

    def to_json(self) -> dict[str, Any]:
        """An arm's `out_of_scope`."""
        return {
            "rows": self.rows,
            "answered": self.answered,
            "interval": _listed(self.interval),
            "auroc": self.auroc,
        }


@dataclass(frozen=True, slots=True)
class Probes:
    """What the probes found of one arm."""

    robustness: Mapping[str, Perturbed] | None = None
    forgetting: Forgetting | None = None
    out_of_scope: OutOfScope | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The record of an arm's objects; absent and null ones were not measured."""
        robustness, forgetting, strangers = (value.get(k) for k in ("robustness", "forgetting", "out_of_scope"))
        return cls(
            {name: Perturbed.from_json(entry) for name, entry in robustness.items()} if robustness else None,
            Forgetting.from_json(forgetting) if forgetting else None,
            OutOfScope.from_json(strangers) if strangers else None,
        )

    def to_json(self) -> dict[str, Any]:
        """The three objects of an arm in verdict.json, null where not measured."""
        robustness = self.robustness
        return {
            "robustness": None if robustness is None else {name: p.to_json() for name, p in robustness.items()},
            "forgetting": self.forgetting.to_json() if self.forgetting else None,
            "out_of_scope": self.out_of_scope.to_json() if self.out_of_scope else None,
        }
