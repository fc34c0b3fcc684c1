"""Arms with known scores, for the tests of the decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuneworth.decision import ArmResult, LearningCurve, Price, Verdict, decide
from tuneworth.decision.records import Family
from tuneworth.task import Decision

PRICE = Price(0.1, "task", None, "from the task file")
PROVENANCE = {"data": "sha256:1", "task": "sha256:2", "code": "0", "machine": "m", "finished": "2026-11-23"}


def arm(name: str, family: Family, scores: Sequence[float] | None, **fields: Any) -> ArmResult:
    """An arm that is done when it has scores; a request takes 0.1 machine seconds and building is free."""
    if scores is None:
        return ArmResult(name, family, "tiny", status="skipped", why="no time left", **fields)
    fields = {"machine_seconds_per_request": 0.1, "usd_to_build": 0.0, **fields}
    return ArmResult(name, family, "tiny", "generate", scores=tuple(map(float, scores)), **fields)


def right(count: int, rows: int, shift: int = 0) -> list[int]:
    """`count` right answers in `rows`, beginning at row `shift`."""
    return np.roll([1] * count + [0] * (rows - count), shift).tolist()


def verdict(arms: Sequence[ArmResult], learning_curve: LearningCurve | None = None, **decision: Any) -> Verdict:
    """Decide with a plain price and provenance."""
    return decide(
        arms,
        Decision(**decision),
        metric="accuracy",
        price=PRICE,
        provenance=PROVENANCE,
        learning_curve=learning_curve,
    )
