"""What an arm does with requests that belong to no part of the task: it answers as though they did, or it does not.

An arm that may only write labels has no way to decline, unless one of the labels says so. Then its confidence is what
can tell: how well it does is the area under the ROC curve between strangers and test rows (Fawcett 2006), 0.5 for not
at all, 1.0 for a threshold that parts them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sklearn.metrics import roc_auc_score

from tuneworth.data.example import Example
from tuneworth.evaluation.arms import Bench, stratified
from tuneworth.evaluation.general import general_requests
from tuneworth.evaluation.metrics.labels import parse_label
from tuneworth.evaluation.probed import Probed
from tuneworth.evaluation.records import RawAnswer

_LABELS_SHOWN = 5
_DECLINES = re.compile(
    r"\b(sorry|i (am|'m) (unable|not able)|i'm (unable|not able)|i (cannot|can't|do not know|don't know)"
    r"|none of (the|these) labels|not applicable|out of scope|no (fitting|suitable|matching) label)\b",
    re.IGNORECASE,
)
_NO_LABELS = frozenset(
    ["other", "others", "none", "unknown", "oos", "ood", "outofscope", "outofdomain", "nolabel", "na", "irrelevant"]
)


@dataclass(frozen=True, slots=True)
class Strangers:
    """How strangers' requests were met: counts, mean confidences (None where the arm knows none), and what was said.

    `answered` were treated as though they belonged to the task, `declined` were refused or got a label that says that
    nothing fits, `empty` got no text, `invalid` got a text that is no label where one was wanted.
    """

    rows: int
    answered: int
    declined: int
    empty: int
    invalid: int
    labels: tuple[tuple[str, int], ...]
    confidence: float | None = None
    confidence_of_test_rows: float | None = None
    auroc: float | None = None


def strangers(bench: Bench, probed: Probed, advance: Callable[[int], None] = lambda units: None) -> Strangers:
    """Ask the built-in requests of an arm; the bar moves twice."""
    requests = general_requests()
    labels = bench.classes
    answers = probed.ask(probed.form, requests)
    advance(1)
    met = Counter(how_met(answer, labels) for answer in answers)
    given = Counter(label for a in answers if labels and (label := parse_label(a.text, labels)) is not None)
    known = stratified(bench.test, len(requests), bench.task.seed, bench.kind)
    theirs = _confidences(probed, requests, answers)
    ours = _confidences(probed, known, probed.ask(probed.form, known))
    advance(1)
    auroc = None
    if theirs and ours:
        auroc = float(roc_auc_score([0] * len(theirs) + [1] * len(ours), [*theirs, *ours]))
    return Strangers(
        rows=len(requests),
        answered=met["answered"],
        declined=met["declined"],
        empty=met["empty"],
        invalid=met["invalid"],
        labels=tuple(given.most_common(_LABELS_SHOWN)),
        confidence=_mean(theirs),
        confidence_of_test_rows=_mean(ours),
        auroc=auroc,
    )


def how_met(answer: RawAnswer, labels: tuple[str, ...]) -> str:
    """`answered`, `declined`, `empty` or `invalid`."""
    if not answer.text.strip() or answer.error:
        return "empty"
    if not labels:
        return "declined" if _DECLINES.search(answer.text) or answer.text.strip() in ("[]", "{}") else "answered"
    label = parse_label(answer.text, labels)
    if label is not None:
        return "declined" if _bare(label) in _NO_LABELS else "answered"
    return "declined" if _DECLINES.search(answer.text) else "invalid"


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _bare(label: str) -> str:
    return "".join(sign for sign in label.casefold() if sign.isalnum())


def _confidences(probed: Probed, rows: tuple[Example, ...], answers: list[RawAnswer]) -> list[float]:
    """Of the rows that were answered without an error; empty where the arm knows no confidence."""
    pairs = [(row, answer) for row, answer in zip(rows, answers, strict=True) if answer.error is None]
    if probed.confidence is None or not pairs:
        return []
    return probed.confidence([row for row, _ in pairs], [answer for _, answer in pairs])
