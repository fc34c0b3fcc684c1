"""What a metric is, and how it scores the answers of an arm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneworth.data.example import Example
from tuneworth.errors import InputError
from tuneworth.evaluation.records import Answer, RawAnswer

Parse = Callable[[Example, RawAnswer], str | None]
"""The answer that a text states, in its plain form, or None when it states none."""

Value = Callable[[Example, RawAnswer, str | None], float]
"""What an answer is worth, 0..1, from the row, what was written, and what was read in it."""


class MetricFailed(Exception):
    """A metric could not score one row; the row keeps the reason and does not count as answered."""


@dataclass(frozen=True, slots=True)
class Kit:
    """Everything that answers of one kind are read and measured with.

    `values` are the metrics by name, the default one first; `totals` are the further numbers that arm.json holds under
    `metrics`; `wanted` is the wanted answer in the form in which answers are read.
    """

    parse: Parse
    values: Mapping[str, Value]
    totals: Callable[[Sequence[Example], Sequence[Answer]], dict[str, Any]]
    wanted: Callable[[Example], str]


@dataclass(frozen=True, slots=True)
class Metric:
    """The main number of a run: the verdict is made from it. One value of a kit, or the user's own function."""

    name: str
    value: Value
    kit: Kit

    def totals(self, examples: Sequence[Example], answers: Sequence[Answer]) -> dict[str, Any]:
        """Further numbers of an arm on rows in order."""
        return self.kit.totals(examples, answers)


_TRIED = 3


def check_metric(metric: Metric, examples: Sequence[Example]) -> None:
    """Try the metric on the wanted answers of a few rows, before anything is trained for hours.

    Raises InputError that names the first row which it cannot score.
    """
    some = examples[:_TRIED]
    wanted = [RawAnswer(metric.kit.wanted(example), "stop", "", 0, 0, 0.0) for example in some]
    for example, answer in zip(some, score(some, wanted, metric), strict=True):
        if answer.error is not None:
            raise InputError(
                f"the metric cannot score the row's own answer: {answer.error}",
                where=f"{example.file}:{example.line} (id {example.id})",
                cure="correct the function, or the row",
            )


def score(examples: Sequence[Example], answers: Sequence[RawAnswer], metric: Metric) -> list[Answer]:
    """Read and score every answer, in order. A row whose call or metric failed scores 0 and keeps its error."""
    return [_scored(example, answer, metric) for example, answer in zip(examples, answers, strict=True)]


def _scored(example: Example, answer: RawAnswer, metric: Metric) -> Answer:
    error, parsed, value = answer.error, None, 0.0
    if error is None and answer.text.strip():
        parsed = metric.kit.parse(example, answer)
        try:
            value = metric.value(example, answer, parsed)
        except MetricFailed as failure:
            error = str(failure)
    return Answer(
        id=example.id,
        group=example.group,
        prompt_hash=answer.prompt_hash,
        wanted=metric.kit.wanted(example),
        raw=answer.text,
        parsed=parsed,
        score=value,
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        seconds=answer.seconds,
        finish_reason=answer.finish_reason,
        error=error,
        parts=answer.parts,
    )
