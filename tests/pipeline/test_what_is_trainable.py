"""Rows as they are learnt and judged, and those that cannot be, named before a model is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tuneworth.data import Example, Message, ToolCall
from tuneworth.errors import InputError
from tuneworth.pipeline.preparing import Prepared
from tuneworth.pipeline.trainable import trainable
from tuneworth.task import Task

PLAIN = Example("x", (Message("user", "q"),), "a", "f.jsonl", 1)
CALLS = (ToolCall("c", "f", "{}"),)


def prepared(kind: str, *rows: Example, test: tuple[Example, ...] = (), labels: tuple[str, ...] = ()) -> Prepared:
    return Prepared(train=rows, validation=(), test=test, kind=kind, labels=labels, data_sha256="", data_set=None)


def task(**prompt: Any) -> Task:
    return Task.model_validate({"prompt": prompt})


@pytest.mark.parametrize(
    ("kind", "row", "what"),
    [
        ("generation", Example("x", (Message("user", "q"),), "", "f.jsonl", 7, calls=CALLS), "choose kind: tools"),
        ("preference", replace(PLAIN, line=7), "there is no rejected answer"),
        ("preference", replace(PLAIN, line=7, rejected=Message("assistant", "a")), "are the same"),
        ("extraction", replace(PLAIN, line=7), "the answer is no JSON object"),
    ],
)
def test_rows_that_their_kind_cannot_learn_are_named(kind: str, row: Example, what: str) -> None:
    with pytest.raises(InputError, match=what) as raised:
        trainable(prepared(kind, row), Task())
    assert raised.value.problems[0].where == "f.jsonl:7"


def test_the_first_rows_are_named_and_all_are_counted() -> None:
    rows = [replace(PLAIN, line=number) for number in range(1, 8)]
    with pytest.raises(InputError, match="7 such rows in all") as raised:
        trainable(prepared("preference", *rows), Task())
    assert [p.where for p in raised.value.problems[:-1]] == [f"f.jsonl:{n}" for n in range(1, 6)]


def test_rows_with_labels_outside_the_users_list_are_named_and_labels_alike_refused() -> None:
    with pytest.raises(InputError, match="'a' is none of"):
        trainable(prepared("classification", PLAIN, labels=("b",)), task(labels=["b"]))
    sets = replace(PLAIN, answer='["b", "c"]')
    with pytest.raises(InputError, match="'c' is none of"):
        trainable(prepared("multilabel", sets, labels=("b",)), task(labels=["b"]))
    with pytest.raises(InputError) as raised:
        trainable(prepared("classification", PLAIN), task(labels=["a", "a", "B", "b", " c"]))
    told = " ".join(problem.what for problem in raised.value.problems)
    assert "'a' stands 2 times" in told
    assert "'B' and 'b' differ only" in told
    assert "' c' is empty or has blanks" in told


def test_answers_that_do_not_fit_the_users_schema_are_named_with_the_reason() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    row = replace(PLAIN, answer='{"n": "two"}', line=3)
    with pytest.raises(InputError, match="n: 'two' is not of type 'integer'") as raised:
        trainable(prepared("extraction", row), task(json_schema=schema))
    assert raised.value.problems[0].where == "f.jsonl:3"
    assert trainable(prepared("extraction", replace(row, answer='{"n": 2}')), task(json_schema=schema))


def test_objects_that_are_learnt_are_spelled_in_the_order_that_they_mostly_have_and_test_rows_stay() -> None:
    texts = ['{"a": 1, "b":\n"é"}', '{"b": "x", "c": [{"z": 1, "y": 2}]}', '{"c": [{"y": 1, "z": 2}], "a": 2}']
    texts += ['{"a": 3, "b": "y", "c": [{"y": 3, "z": 4}]}']
    rows = [replace(PLAIN, answer=text) for text in texts]
    splits = replace(prepared("extraction", *rows, test=tuple(rows)), validation=(rows[2],))
    found = trainable(splits, Task())
    last = '{"a": 2, "c": [{"y": 1, "z": 2}]}'
    assert [e.answer for e in found.train] == [
        '{"a": 1, "b": "é"}', '{"b": "x", "c": [{"y": 2, "z": 1}]}', last,
        '{"a": 3, "b": "y", "c": [{"y": 3, "z": 4}]}',
    ]  # fmt: skip
    assert [e.answer for e in found.validation] == [last]
    assert found.test == splits.test
    assert found.schema is not None
    assert list(found.schema["properties"]) == ["a", "b", "c"]


def test_objects_are_spelled_in_the_order_of_the_users_schema_through_references_and_choices() -> None:
    point = {"type": "object", "properties": {"y": {}, "x": {}}}
    schema = {
        "allOf": [{"type": "object", "properties": {"b": {"$ref": "#/$defs/point"}}}],
        "anyOf": [{"properties": {"a": {"items": {"$ref": "#/$defs/point"}}}}, {"$ref": "#"}],
        "$defs": {"point": point},
    }
    row = replace(PLAIN, answer='{"more": 1, "a": [{"x": 1, "y": 2}], "b": {"x": 3, "y": 4}}')
    (found,) = trainable(prepared("extraction", row), task(json_schema=schema)).train
    assert found.answer == '{"b": {"y": 4, "x": 3}, "a": [{"y": 2, "x": 1}], "more": 1}'


@pytest.mark.parametrize(
    ("schema", "what"),
    [
        ({"type": "objekt"}, "this is no JSON Schema"),
        ({"properties": {"a": {"$ref": "https://example.org/x.json"}}}, "which is not fetched"),
    ],
)
def test_a_schema_that_is_none_or_points_outside_is_refused(schema: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=what):
        trainable(prepared("extraction", replace(PLAIN, answer="{}")), task(json_schema=schema))


def test_law_11_a_conversation_ends_with_the_last_answer_that_is_learnt() -> None:
    talk = (Message("user", "1"), Message("assistant", "good"), Message("user", "2"))
    row = replace(PLAIN, messages=talk, answer="bad", weight=0)
    (found,) = trainable(prepared("chat", row), Task()).train
    assert (found.messages, found.answer, found.weight) == (talk[:1], "good", None)


def test_rows_of_tools_are_judged_at_every_call_and_at_the_end_in_one_group() -> None:
    talk = (
        Message("user", "1"),
        Message("assistant", "", CALLS),
        Message("tool", "r", call_id="c"),
        Message("assistant", "done"),
        Message("user", "thanks"),
    )
    row = replace(PLAIN, messages=talk, answer="bye", tools='[{"type": "function", "function": {"name": "f"}}]')
    found = trainable(prepared("tools", row, test=(row,)), Task())
    assert found.train == (row,)
    assert [(len(turn.messages), turn.answer, turn.calls) for turn in found.test] == [(1, "", CALLS), (5, "bye", ())]
    assert {turn.group for turn in found.test} == {"x"}
    assert len({turn.id for turn in found.test}) == 2
