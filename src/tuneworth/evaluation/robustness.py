"""How an arm's score holds when requests and prompts are altered: the same rows, asked again in other shapes.

The rows are asked once more as they are, in the same company, so that what changes is the alteration alone and not how
the rows were batched (LAW 35).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuneworth.data.example import Example
from tuneworth.evaluation.arms import Bench
from tuneworth.evaluation.perturbing import PERTURBATIONS, Perturbation, altered, reformed
from tuneworth.evaluation.probed import NO_FORM, Probed
from tuneworth.evaluation.records import Answer

ROWS = 100
"""Test rows, drawn with the classes in proportion, or all if there are fewer; the same for every arm."""


@dataclass(frozen=True, slots=True)
class Shaken:
    """The scores of the rows under one perturbation, and the share of rows whose answer is another one."""

    perturbation: Perturbation
    scores: tuple[float, ...]
    changed: float


@dataclass(frozen=True, slots=True)
class Robustness:
    """The scores of the rows as they are, and under every perturbation that applies to the arm."""

    unaltered: tuple[float, ...]
    shaken: tuple[Shaken, ...]


def applicable(probed: Probed, labels: Sequence[str]) -> list[Perturbation]:
    """The perturbations that change something of what the arm reads."""
    return [
        p
        for p in PERTURBATIONS
        if p.target == "request" or (probed.form is not NO_FORM and reformed(probed.form, p, labels, 0) is not None)
    ]


def robustness(
    bench: Bench, probed: Probed, rows: Sequence[Example], advance: Callable[[int], None] = lambda units: None
) -> Robustness:
    """Ask `rows` of the arm as they are and under every perturbation; the bar moves once for each."""
    before = probed.scored(bench, probed.form, rows)
    advance(1)
    shaken = []
    for perturbation in applicable(probed, bench.scoring.labels):
        form = reformed(probed.form, perturbation, bench.scoring.labels, bench.task.seed) or probed.form
        after = probed.scored(bench, form, [altered(row, perturbation, bench.kind, bench.task.seed) for row in rows])
        changed = sum(_said(a) != _said(b) for a, b in zip(before, after, strict=True)) / len(rows)
        shaken.append(Shaken(perturbation, tuple(a.score for a in after), changed))
        advance(1)
    return Robustness(tuple(a.score for a in before), tuple(shaken))


def _said(answer: Answer) -> str:
    return answer.raw if answer.parsed is None else answer.parsed
