"""The learning curve: what an arm scores after learning from an eighth, a quarter, half and all of the training rows.

Each smaller set lies within the next larger one and holds the classes in proportion. All points are scored on the same
validation rows, never on test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tuneworth.data.example import Example
from tuneworth.evaluation.arms import Bench, stratified
from tuneworth.evaluation.classical import fit_classical
from tuneworth.evaluation.metrics import score

SHARES = (1 / 8, 1 / 4, 1 / 2, 1)
JUDGING_ROWS = 400
"""Validation rows that score the points, or all if there are fewer."""

_LEAST_ROWS = 20


def curve_sizes(train_rows: int) -> tuple[int, ...]:
    """The sizes of the sets, the smallest first; those under 20 rows are left out."""
    return tuple(size for share in SHARES if (size := round(share * train_rows)) >= _LEAST_ROWS)


def curve_set(train: Sequence[Example], size: int, seed: int, kind: str) -> tuple[Example, ...]:
    """`size` training rows, with the classes in proportion; sets of one seed lie within each other."""
    return stratified(train, size, seed, kind)


def classical_curve(
    bench: Bench, judging: Sequence[Example], advance: Callable[[int], None] = lambda units: None
) -> list[tuple[int, tuple[float, ...]]]:
    """(rows, scores of `judging`) of the classical arm fitted on each of the sets; the bar moves once for each."""
    points = []
    for size in curve_sizes(len(bench.train)):
        train = curve_set(bench.train, size, bench.task.seed, bench.kind)
        if bench.kind == "classification" and len({example.answer for example in train}) < 2:
            continue  # one class teaches nothing, and nothing can be fitted
        fitted = fit_classical(bench.kind, train, bench.validation, bench.task.seed, bench.vectorise)
        answers = score(judging, fitted.answer(judging), bench.scoring.metric)
        points.append((size, tuple(answer.score for answer in answers)))
        advance(1)
    return points


def finalist(records: Sequence[Mapping[str, Any]]) -> str | None:
    """The arm fine-tuned here that did best on validation, of which the curve is drawn; None when none is done. A
    distilled arm learns more than the training rows, of which the curve tells."""
    done = [r for r in records if r["family"] == "fine-tune" and r["status"] == "done" and not r.get("provider")]
    done = [r for r in done if "teacher" not in r["settings"]]
    best = max(done, key=lambda record: float(record["settings"]["validation_score"]), default=None)
    return None if best is None else str(best["name"])
