"""Multilabel classification: a set of labels a row, written as a JSON array."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tuneworth.data.example import Example
from tuneworth.evaluation.metrics.jsontext import parse_json
from tuneworth.evaluation.metrics.labels import LabelReader
from tuneworth.evaluation.metrics.metric import Kit
from tuneworth.evaluation.records import Answer, RawAnswer

_NAMED = 20


def label_set_kit(labels: Sequence[str]) -> Kit:
    """Reading and measuring sets of `labels`.

    The main metric is F1 of a row's set (example-based, Godbole and Sarawagi 2004): every row counts the same, a set
    that is nearly right is worth something, and a row without labels is right when nothing is answered. Micro-F1 is no
    mean over rows, so arms could not be compared row by row; the exact set leaves most rows wrong for every arm.
    """
    reader = LabelReader(labels)

    def parse(example: Example, answer: RawAnswer) -> str | None:
        found = parse_json(answer.text)
        if not isinstance(found, list) or not all(isinstance(label, str) for label in found):
            return None
        return json.dumps([reader.read(label) or label for label in found], ensure_ascii=False)

    def f1(example: Example, answer: RawAnswer, parsed: str | None) -> float:
        return 0.0 if parsed is None else set_f1(set(example.labels), set(json.loads(parsed)))

    def exact(example: Example, answer: RawAnswer, parsed: str | None) -> float:
        return float(parsed is not None and set(example.labels) == set(json.loads(parsed)))

    def totals(examples: Sequence[Example], answers: Sequence[Answer]) -> dict[str, Any]:
        return _totals(examples, answers, labels)

    return Kit(parse, {"f1": f1, "exact-set": exact}, totals, lambda example: example.answer)


def set_f1(wanted: set[str], given: set[str]) -> float:
    """F1 of two sets; two empty ones are equal."""
    return 2 * len(wanted & given) / (len(wanted) + len(given)) if wanted or given else 1.0


def _totals(examples: Sequence[Example], answers: Sequence[Answer], labels: Sequence[str]) -> dict[str, Any]:
    """An answer that is no list counts as an empty one, and never as an exact set. Unknown labels are errors."""
    known = set(labels)
    wanted = [set(example.labels) for example in examples]
    given = [set(json.loads(a.parsed)) if a.parsed is not None else set() for a in answers]
    right = sum(len(w & g) for w, g in zip(wanted, given, strict=True))
    named = sum(map(len, wanted)) + sum(map(len, given))
    wrong = sum(len(w ^ g) for w, g in zip(wanted, given, strict=True))
    unknown = Counter(label for labelled in given for label in labelled - known)
    exact = [w == g and a.parsed is not None for w, g, a in zip(wanted, given, answers, strict=True)]
    classes = [label for label in known if any(label in w or label in g for w, g in zip(wanted, given, strict=True))]
    return {
        "f1": sum(set_f1(w, g) if a.parsed is not None else 0.0 for w, g, a in zip(wanted, given, answers, strict=True))
        / len(answers),
        "exact_set": sum(exact) / len(answers),
        "micro_f1": 2 * right / named if named else 1.0,
        "macro_f1": _macro(wanted, given, classes),
        "hamming_loss": wrong / (len(answers) * len(known)) if known else None,
        "unknown_labels": sum(unknown.values()),
        "unknown_labels_named": dict(unknown.most_common(_NAMED)),
    }


def _macro(wanted: Sequence[set[str]], given: Sequence[set[str]], classes: Sequence[str]) -> float | None:
    if not classes:
        return None
    f1 = []
    for label in classes:
        rows, named = sum(label in w for w in wanted), sum(label in g for g in given)
        right = sum(label in w and label in g for w, g in zip(wanted, given, strict=True))
        f1.append(2 * right / (rows + named))
    return sum(f1) / len(f1)
