"""What a teacher answers becomes what a student learns, in the form that its kind of task is judged in; what is no
answer is dropped and counted."""

from __future__ import annotations

from typing import Any

import pytest

from tuneworth.data import Example, Message
from tuneworth.evaluation.distilled import taught_rows
from tuneworth.evaluation.local import Scoring
from tuneworth.evaluation.metrics import choose_metric
from tuneworth.evaluation.records import RawAnswer
from tuneworth.task import Task

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


def said(text: str, finish: Any = "stop", error: str | None = None) -> RawAnswer:
    return RawAnswer(text, finish, "h", 1, 1, 0.1, error)


def learnt(kind: str, *answers: RawAnswer, labels: tuple[str, ...] = ()) -> tuple[list[str], dict[str, int]]:
    schema = SCHEMA if kind == "extraction" else None
    scoring = Scoring(choose_metric(Task(), kind, labels, schema), labels, 8, "generate", kind, schema)
    asked = [Example(f"r{n}", (Message("user", "?"),), "", "f", n) for n in range(len(answers))]
    rows, dropped = taught_rows(asked, answers, scoring)
    assert len(rows) + sum(dropped.values()) == len(answers)
    return [row.answer for row in rows], dict(dropped)


@pytest.mark.parametrize(
    ("kind", "labels", "answer", "wanted"),
    [
        ("classification", ("late", "pay"), ' "LATE" ', "late"),
        ("multilabel", ("late", "pay"), '```json\n["pay", "LATE"]\n```', '["pay", "late"]'),
        ("extraction", (), '```json\n{"n":\n 3}\n```', '{"n": 3}'),
        ("generation", (), "  A reply.\n", "A reply."),
        ("reasoning", (), "3 and 4 are 7.\n#### 7", "3 and 4 are 7.\n#### 7"),
    ],
)
def test_an_answer_is_learnt_in_the_form_in_which_it_is_judged(
    kind: str, labels: tuple[str, ...], answer: str, wanted: str
) -> None:
    (text,), dropped = learnt(kind, said(answer), labels=labels)
    assert not dropped
    assert text == wanted


@pytest.mark.parametrize(
    ("kind", "labels", "answer"),
    [
        ("classification", ("late", "pay"), "I think late"),
        ("multilabel", ("late", "pay"), '["late", "never"]'),
        ("multilabel", ("late", "pay"), '["late", "unknown", 3'),
        ("extraction", (), 'Here it is: {"n": 3}'),
        ("extraction", (), '{"n": "three"}'),
        ("extraction", (), '{"n": 3, "m": 4}'),
        ("reasoning", (), "I do not know."),
    ],
)
def test_what_states_no_answer_of_the_task_is_dropped_as_invalid(
    kind: str, labels: tuple[str, ...], answer: str
) -> None:
    assert learnt(kind, said(answer), labels=labels) == ([], {"invalid": 1})


def test_failed_cut_off_and_empty_answers_are_dropped_by_their_reasons() -> None:
    answers = (said("", "error", "HTTP 500: x"), said("half an ans", "length"), said("  "), said("whole"))
    assert learnt("generation", *answers) == (["whole"], {"error": 1, "cut off": 1, "empty": 1})
