"""Kinds that are read but not trained yet stop before a model is loaded, by name."""

from __future__ import annotations

import pytest

from tuneworth.data import Example, Message, ToolCall
from tuneworth.errors import InputError
from tuneworth.pipeline.preparing import Prepared
from tuneworth.pipeline.trainable import TRAINED_AS, trainable

PLAIN = Example("x", (Message("user", "q"),), "a", "f.jsonl", 1)
CALLS = (ToolCall("c", "f", "{}"),)


def prepared(kind: str, *rows: Example) -> Prepared:
    return Prepared(
        train=(PLAIN, *rows), validation=(), test=(), kind=kind, labels=(), data_sha256="", data_set=None
    )  # fmt: skip


@pytest.mark.parametrize(("kind", "trained"), TRAINED_AS.items())
def test_kinds_of_one_answer_are_trained(kind, trained):
    assert trainable(prepared(kind)).kind == trained


@pytest.mark.parametrize("kind", ["multilabel", "tools", "preference"])
def test_other_kinds_are_refused_by_name(kind):
    with pytest.raises(InputError, match=f"the kind is {kind}, which is read, audited and converted but not trained"):
        trainable(prepared(kind))


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (Example("x", (Message("user", "q"),), "", "f.jsonl", 7, calls=CALLS), "tools and tool calls"),
        (Example("x", (Message("user", "q"),), "a", "f.jsonl", 7, tools="[{}]"), "tools and tool calls"),
        (Example("x", (Message("tool", "r", call_id="c"),), "a", "f.jsonl", 7), "tools and tool calls"),
        (Example("x", (Message("user", "q"),), "a", "f.jsonl", 7, weight=0), "weight 0"),
        (Example("x", (Message("user", "q"), Message("system", "s")), "a", "f.jsonl", 7), "a system message after"),
        (Example("x", (), "a", "f.jsonl", 7, rejected=Message("assistant", "b")), "a rejected answer"),
    ],
)
def test_rows_with_something_that_training_would_ignore_are_refused(row, what):
    with pytest.raises(InputError, match=what) as raised:
        trainable(prepared("generation", row))
    assert raised.value.problems[0].where == "f.jsonl:7"
