"""What a teacher answers to requests without labels becomes rows to learn from; whatever is no answer is dropped."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tuneworth.data.example import Example
from tuneworth.evaluation.local import Scoring
from tuneworth.evaluation.metrics.jsontext import parse_json
from tuneworth.evaluation.metrics.schemas import validator, why_invalid
from tuneworth.evaluation.records import RawAnswer

_READ_AS = ("classification", "multilabel")  # what is learnt of an answer is what is read in it, not how it is spelt


def taught_rows(
    requests: Sequence[Example], answers: Sequence[RawAnswer], scoring: Scoring
) -> tuple[tuple[Example, ...], Mapping[str, int]]:
    """The requests with what the teacher answered, and how many answers were dropped by reason: `error`, `cut off`,
    `empty`, `invalid` (no label of the task, no JSON, JSON that does not fit the schema, no final answer)."""
    fits = _fits(scoring)
    dropped = Counter[str]()
    rows = []
    for request, answer in zip(requests, answers, strict=True):
        why, text = _read(request, answer, scoring, fits)
        if why:
            dropped[why] += 1
        else:
            rows.append(replace(request, answer=text))
    return tuple(rows), dict(dropped)


def _read(request: Example, answer: RawAnswer, scoring: Scoring, fits: Callable[[object], bool]) -> tuple[str, str]:
    """(why an answer is dropped, empty when it is kept; the text to learn)."""
    if answer.error is not None:
        return "error", ""
    if answer.finish_reason != "stop":
        return "cut off", ""
    if not answer.text.strip():
        return "empty", ""
    parsed = scoring.metric.kit.parse(request, answer)
    if parsed is None:
        return "invalid", ""
    if scoring.kind == "multilabel" and not set(json.loads(parsed)) <= set(scoring.labels):
        return "invalid", ""  # a label that was made up
    if scoring.kind in _READ_AS:
        return "", parsed
    if scoring.kind == "extraction":
        value = parse_json(answer.text)
        return ("", json.dumps(value, ensure_ascii=False)) if fits(value) else ("invalid", "")
    return "", answer.text.strip()


def _fits(scoring: Scoring) -> Callable[[object], bool]:
    if scoring.schema is None:
        return lambda value: True
    checker = validator(scoring.schema)
    return lambda value: why_invalid(value, checker) is None
