"""What the rows of an arm add up to: the numbers that arm.json holds and the report shows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tuneworth.data.example import Example
from tuneworth.evaluation.metrics import Metric
from tuneworth.evaluation.records import Answer
from tuneworth.rendering.tools import reply_text

_CONFUSIONS = 40
_WORST = 25
_LAST_MESSAGES = 4


def summary(
    answers: Sequence[Answer], examples: Sequence[Example], metric: Metric, labels: Sequence[str]
) -> dict[str, Any]:
    """Score, shares, token means, finish reasons, further metrics of the kind, the worst rows; for one label of several
    also each class and the confusions."""
    count = len(answers)
    rows: dict[str, Any] = {
        "rows": count,
        "metric": metric.name,
        "score": sum(a.score for a in answers) / count,
        "metrics": metric.totals(examples, answers),
        "truncated": sum(a.finish_reason == "length" for a in answers) / count,
        "empty": sum(not a.raw.strip() for a in answers) / count,
        "invalid": sum(a.parsed is None for a in answers) / count,
        "errors": sum(a.error is not None for a in answers) / count,
        "finish_reasons": dict(Counter(a.finish_reason for a in answers)),
        "input_tokens": sum(a.input_tokens for a in answers) / count,
        "output_tokens": sum(a.output_tokens for a in answers) / count,
        "machine_seconds_per_request": sum(a.seconds for a in answers) / count,
        "worst": _worst(answers, examples),
    }
    if labels:
        rows |= {"classes": _classes(answers), "confusions": _confusions(answers)}
    return rows


def _classes(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Recall and precision of each class (null where nothing was answered with it), the worst recall first."""
    wanted, given, right = Counter[str](), Counter[str](), Counter[str]()
    for answer in answers:
        wanted[answer.wanted] += 1
        right[answer.wanted] += answer.parsed == answer.wanted
        if answer.parsed is not None:
            given[answer.parsed] += 1
    classes = [
        {
            "label": label,
            "rows": rows,
            "recall": right[label] / rows,
            "precision": right[label] / given[label] if given[label] else None,
        }
        for label, rows in wanted.items()
    ]
    return sorted(classes, key=lambda row: (float(str(row["recall"])), str(row["label"])))


def _confusions(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    wrong = Counter((a.wanted, a.parsed) for a in answers if a.parsed != a.wanted)
    return [
        {"wanted": wanted, "parsed": parsed, "count": count}
        for (wanted, parsed), count in sorted(wrong.items(), key=lambda item: (-item[1], str(item[0])))[:_CONFUSIONS]
    ]


def _worst(answers: Sequence[Answer], examples: Sequence[Example]) -> list[dict[str, Any]]:
    """The lowest-scoring rows; among equal ones, one of each wanted answer in turn, so that no class fills the list."""
    by_id: Mapping[str, Example] = {example.id: example for example in examples}
    turns: dict[str, int] = defaultdict(int)
    ranked = []
    for answer in answers:
        if answer.score < 1:
            turns[answer.wanted] += 1
            ranked.append((answer.score, turns[answer.wanted], answer.wanted, answer))
    ranked.sort(key=lambda item: item[:3])
    return [
        {
            "id": answer.id,
            "line": by_id[answer.id].line,
            "input": asked_text(by_id[answer.id]),
            "wanted": answer.wanted,
            "raw": answer.raw,
            "parsed": answer.parsed,
            "score": answer.score,
            "error": answer.error,
        }
        for _, _, _, answer in ranked[:_WORST]
    ]


def asked_text(example: Example) -> str:
    """What a row asks, for people: the message of a single turn, else the last messages, each with who speaks; of a
    pair both answers too."""
    if example.rejected is not None:
        pair = f"Better answer: {example.answer}\n\nWorse answer: {example.rejected.content}"
        return f"{asked_text(replace(example, rejected=None))}\n\n{pair}"
    spoken = [m for m in example.messages if m.role != "system"]
    if len(spoken) == 1:
        return spoken[0].content
    lines = [f"{m.role}: {reply_text(m.to_openai()) if m.calls else m.content}" for m in spoken[-_LAST_MESSAGES:]]
    return "\n".join([*(["..."] if len(spoken) > _LAST_MESSAGES else []), *lines])
