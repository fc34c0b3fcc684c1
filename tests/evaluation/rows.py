"""Rows and answers, as short as tests of metrics need them."""

from __future__ import annotations

from typing import Any

from tuneworth.data import Example, Message
from tuneworth.evaluation.metrics import choose_metric, score
from tuneworth.evaluation.records import Answer, RawAnswer
from tuneworth.task import Task


def row(answer: str, number: int = 0, **more: Any) -> Example:
    return Example(f"r{number}", (Message("user", f"text {number}"),), answer, "file.jsonl", number + 1, **more)


def raw(text: str, finish: str = "stop", error: str | None = None, **parts: float) -> RawAnswer:
    return RawAnswer(text, finish, "hash", 10, 2, 0.1, error, parts)  # type: ignore[arg-type]


def judged(
    kind: str, pairs: list[tuple[Example, RawAnswer]], labels: tuple[str, ...] = (), metric: str = "auto", **more: Any
) -> tuple[list[Answer], dict[str, Any]]:
    """The scored answers, and the further numbers of the kind."""
    chosen = choose_metric(Task(metric=metric), kind, labels, **more)
    examples = [example for example, _ in pairs]
    answers = score(examples, [answer for _, answer in pairs], chosen)
    return answers, chosen.totals(examples, answers)
