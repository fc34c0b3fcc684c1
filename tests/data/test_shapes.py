"""Every shape of rows gives the record that its rows mean, and is recognised and named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars
import pytest

from tuneworth.data import Example, Message, Reading, ToolCall, read_examples
from tuneworth.errors import InputError
from tuneworth.task import Columns


def read(folder: Path, rows: Sequence[object], kind: str = "auto", name: str = "d.jsonl", **columns: str) -> Reading:
    path = folder / name
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return read_examples(path, Columns(**columns), kind, rows_needed=1)


def question(text: str = "q") -> dict[str, object]:
    return {"role": "user", "content": text}


def answer(text: object = "a", **more: object) -> dict[str, object]:
    return {"role": "assistant", "content": text, **more}


def test_calls_tools_weights_and_turns_of_openai_rows_are_kept(tmp_path):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "x": None}}}]
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [
        question(), answer(None, tool_calls=[call], weight=0), {"role": "tool", "tool_call_id": "c1", "content": "7"},
        answer("seven", weight=1),
    ]  # fmt: skip
    reading = read(tmp_path, [{"messages": messages, "tools": tools, "parallel_tool_calls": False}])
    (example,) = reading.examples
    assert (reading.shape.rows, reading.shape.kind) == ("chat", "tools")
    assert example.messages == (
        Message("user", "q"),
        Message("assistant", "", (ToolCall("c1", "f", '{"a": 1}'),), weight=0),
        Message("tool", "7", call_id="c1"),
    )
    assert (example.answer, example.weight, example.parallel_tool_calls) == ("seven", 1, False)
    assert example.tool_definitions == tools
    assert [message.to_openai() for message in example.conversation] == messages
    assert Example.from_json(json.loads(json.dumps(example.to_json()))) == example


def test_tools_of_different_rows_do_not_mix_also_in_parquet(tmp_path):
    def row(name: str, properties: dict[str, object]) -> dict[str, object]:
        function = {"name": name, "parameters": {"type": "object", "properties": properties}}
        return {"messages": [question(), answer()], "tools": [{"type": "function", "function": function}]}

    rows = [row("f", {"x": {"type": "string"}}), row("g", {"y": {"type": "number", "minimum": 1}})]
    polars.DataFrame(rows).write_parquet(tmp_path / "d.parquet")
    reading = read_examples(tmp_path / "d.parquet", Columns(), "auto", rows_needed=1)
    assert [example.tool_definitions for example in reading.examples] == [row["tools"] for row in rows]
    assert "null" not in "".join(example.tools for example in reading.examples)


def test_alpaca_rows(tmp_path):
    rows: list[dict[str, object]] = [
        {"instruction": "Translate.", "input": "chat", "output": "cat", "system": "You know French."},
        {"instruction": "Name a colour of the sky.", "input": "", "output": "the blue of a summer day"},
        {"instruction": "Name a colour of the grass.", "output": "green as a frog in May"},
    ]
    reading = read(tmp_path, rows, "generation")
    assert reading.shape.rows == "alpaca"
    assert reading.examples[0].messages == (
        Message("system", "You know French."),
        Message("user", "Translate.\n\nchat"),
    )
    assert [example.messages for example in reading.examples[1:]] == [
        (Message("user", "Name a colour of the sky."),),
        (Message("user", "Name a colour of the grass."),),
    ]
    assert reading.examples[0].answer == "cat"


def test_sharegpt_rows_with_glaive_calls(tmp_path):
    calls = [{"name": "f", "arguments": {"b": 1, "a": "é"}}, {"name": "f", "arguments": '{"x":2}'}]
    conversations = [
        {"from": "system", "value": "Be kind."}, {"from": "human", "value": "q"},
        {"from": "function_call", "value": json.dumps(calls[0])}, {"from": "observation", "value": "1"},
        {"from": "function_call", "value": json.dumps(calls)}, {"from": "observation", "value": "2"},
        {"from": "observation", "value": "3"}, {"from": "gpt", "value": "done"},
    ]  # fmt: skip
    reading = read(tmp_path, [{"conversations": conversations, "tools": json.dumps([{"name": "f"}])}])
    (example,) = reading.examples
    assert (reading.shape.rows, reading.shape.kind) == ("sharegpt", "tools")
    assert [message.role for message in example.conversation] == [
        "system", "user", "assistant", "tool", "assistant", "tool", "tool", "assistant",
    ]  # fmt: skip
    assert example.messages[2].calls == (ToolCall("call_1", "f", '{"b": 1, "a": "é"}'),)
    assert [call.id for call in example.messages[4].calls] == ["call_2", "call_3"]
    assert example.messages[4].calls[1].arguments == '{"x":2}'
    assert [message.call_id for message in example.messages if message.role == "tool"] == ["call_1", "call_2", "call_3"]
    assert example.tool_definitions == [{"type": "function", "function": {"name": "f"}}]


HUMAN = {"from": "human", "value": "a"}


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"conversations": []}, "messages"),
        ({"conversations": [{"from": "robot", "value": "a"}]}, "role"),
        ({"conversations": [{"from": "human", "value": 1}]}, "content"),
        ({"conversations": [{"from": "human", "value": "a", "text": "b"}]}, "unknown-key"),
        ({"conversations": [{"from": "human", "value": "a"}]}, "no-assistant-message"),
        ({"conversations": [{"from": "function_call", "value": "f(x)"}]}, "tool-calls"),
        ({"conversations": [{"from": "observation", "value": "1"}]}, "tool-message"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "tools": "[{"}, "tools"),
        (
            {"conversations": [HUMAN, {"from": "function_call", "value": '{"name": "f", "arguments": {}}'}]},
            "tool-name",
        ),
    ],
)  # fmt: skip
def test_bad_sharegpt_rows_are_refused(tmp_path, row, code):
    with pytest.raises(InputError) as raised:
        read(tmp_path, [row])
    assert code in {problem.code for problem in raised.value.problems}


PAIRS: list[tuple[dict[str, Any], str, dict[str, str]]] = [
    ({"prompt": "q", "chosen": "a", "rejected": "b"}, "chosen-rejected", {}),
    ({"prompt": [question()], "chosen": [answer()], "rejected": [answer("b")]}, "chosen-rejected", {}),
    ({"chosen": [question(), answer()], "rejected": [question(), answer("b")]}, "chosen-rejected", {}),
    ({"prompt": "q", "chosen": [question(), answer()], "rejected": [question(), answer("b")]}, "chosen-rejected", {}),
    ({"ask": "q", "good": "a", "bad": "b"}, "chosen-rejected", {"input": "ask", "output": "good", "rejected": "bad"}),
    (
        {"input": {"messages": [question()]}, "preferred_output": [answer()], "non_preferred_output": [answer("b")]},
        "preference",
        {},
    ),
    (
        {
            "input": {"messages": [question()]},
            "preferred_completion": [answer()],
            "non_preferred_completion": [answer("b")],
        },
        "preference",
        {},
    ),
    (
        {"instruction": "q", "response1": "b", "response2": "a", "annotator1": 2, "annotator2": 1, "annotator3": 2},
        "comparison",
        {},
    ),
]


@pytest.mark.parametrize(("row", "shape", "columns"), PAIRS, ids=range(len(PAIRS)))
def test_preference_pairs_of_every_shape_are_the_same_record(tmp_path, row, shape, columns):
    reading = read(tmp_path, [row], **columns)
    (example,) = reading.examples
    assert (reading.shape.rows, reading.shape.kind) == (shape, "preference")
    assert (example.messages, example.answer) == ((Message("user", "q"),), "a")
    assert example.rejected == Message("assistant", "b")


def test_ties_are_left_out_and_rows_of_one_instruction_are_a_group(tmp_path):
    row = {"instruction": "q", "input": "i", "response1": "a", "response2": "b"}
    rows = [
        {**row, "annotator1": 1, "annotator2": 1, "annotator3": 0},
        {**row, "annotator1": 1, "annotator2": 2, "annotator3": 0},
        {**row, "annotator1": 0, "annotator2": 0, "annotator3": 2},
    ]
    reading = read(tmp_path, rows)
    assert [(example.line, example.answer, example.group) for example in reading.examples] == [(1, "a", "q")]
    assert [(finding.code, finding.count) for finding in reading.dropped] == [("preference-tie", 2)]


def test_answers_that_follow_different_messages_are_refused(tmp_path):
    row = {"chosen": [question("x"), answer()], "rejected": [question("y"), answer()]}
    with pytest.raises(InputError, match="follow different messages"):
        read(tmp_path, [row])


SLOTS = '{"intent":"Play","slots":{"artist":"Miles Davis","year":["1959","1960"]}}'


def test_chunks_with_entities_become_json(tmp_path):
    parts = [
        ("play ", None),
        ("Miles Davis", "artist"),
        (" of ", None),
        ("1959", "year"),
        (" or ", None),
        ("1960", "year"),
    ]
    data = [{"text": text, **({"entity": entity} if entity else {})} for text, entity in parts]
    path = tmp_path / "d.json"
    path.write_text(json.dumps({"Play": [{"data": data}] * 2}, indent=1))
    reading = read_examples(path, Columns(), "auto", rows_needed=1)
    assert (reading.shape.rows, reading.shape.kind) == ("chunks", "extraction")
    assert (reading.examples[0].text, reading.examples[0].answer) == ("play Miles Davis of 1959 or 1960", SLOTS)
    assert reading.examples[0].line == 3


TAGGED = "play\tO\nMiles\tB-artist\nDavis\tI-artist\n1959\tB-year\n1960\tB-year\n"
BIOES = "play\tO\nMiles\tI-artist\nDavis\tE-artist\n1959\tS-year\n1960\tB-year\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("d.conll", TAGGED + "\n" + TAGGED),
        ("d.txt", "-DOCSTART- O\n\n" + TAGGED.replace("\t", " NN ") + "\n" + TAGGED.replace("\t", " NN ")),
        ("d.bio", BIOES + "\n" + BIOES),
    ],
)  # fmt: skip
def test_lines_of_tokens_and_tags_become_json(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    reading = read_examples(path, Columns(), "auto", rows_needed=1)
    assert (reading.shape.rows, reading.shape.kind) == ("tags", "extraction")
    assert [example.text for example in reading.examples] == ["play Miles Davis 1959 1960"] * 2
    assert reading.examples[0].answer == SLOTS.replace('"intent":"Play",', "")
    assert reading.examples[1].line - reading.examples[0].line == 6


def test_tags_in_lists_are_read_and_tags_by_number_refused(tmp_path):
    row = {"tokens": ["in", "Paris"], "ner_tags": ["O", "B-city"]}
    assert read(tmp_path, [row]).examples[0].answer == '{"slots":{"city":"Paris"}}'
    with pytest.raises(InputError, match="write the tags by name"):
        read(tmp_path, [{**row, "ner_tags": [0, 3]}])
    with pytest.raises(InputError, match="two lists of one length"):
        read(tmp_path, [{**row, "ner_tags": ["O"]}])


def test_several_labels_of_a_row_become_a_json_array(tmp_path):
    topics = [["sport", "money"], ["money"], [], ["law"]] * 10
    listed = read(tmp_path, [{"text": f"text {n}", "label": some} for n, some in enumerate(topics)])
    cells = read(tmp_path, [{"text": f"text {n}", "labels": " | ".join(some)} for n, some in enumerate(topics) if some])
    for reading in (listed, cells):
        assert reading.shape.kind == "multilabel"
        assert reading.examples[0].answer == '["sport","money"]'
        assert reading.examples[0].labels == ("sport", "money")
    assert [example.labels for example in listed.examples] == [tuple(some) for some in topics]  # none is an answer too
    assert cells.dropped == ()


def test_a_comma_makes_no_labels_of_a_text(tmp_path):
    rows = [{"text": f"t {n}", "labels": f"it is, as ever, a long answer with number {n}"} for n in range(40)]
    assert read(tmp_path, rows).shape.kind == "generation"


def test_several_good_answers_are_references(tmp_path):
    rows = [{"source": ["One.", "Two."], "target": [f"a first summary {n}", f"a second one {n}"]} for n in range(30)]
    reading = read(tmp_path, rows)
    assert reading.shape.kind == "generation"
    assert reading.examples[0].text == "One. Two."
    assert (reading.examples[0].answer, reading.examples[0].references) == ("a first summary 0", ("a second one 0",))
    assert "The texts of each list in 'source' are joined by blanks." in reading.shape.why


def test_a_list_among_texts_is_refused(tmp_path):
    rows = [{"text": "a text", "label": "ab"[n % 2]} for n in range(30)]
    with pytest.raises(InputError, match="'text' is a list; a text is needed"):
        read(tmp_path, [*rows, {"text": ["a", "b"], "label": "a"}])


@pytest.mark.parametrize("wanted", ['{"a": 1, "b": [2]}', {"a": 1, "b": [2]}])
def test_objects_as_answers_are_extraction(tmp_path, wanted):
    reading = read(tmp_path, [{"text": f"text {n}", "output": wanted} for n in range(10)])
    assert reading.shape.kind == "extraction"
    assert json.loads(reading.examples[0].answer) == {"a": 1, "b": [2]}


def test_the_kind_of_the_user_counts(tmp_path):
    rows = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(30)]
    reading = read(tmp_path, rows, "multilabel")
    assert reading.shape.kind == "multilabel"
    assert reading.examples[0].labels == ("a",)


def test_group_and_time_columns_are_kept_in_every_shape(tmp_path):
    row = {"messages": [question(), answer()], "who": "g1", "when": "2026-01-02"}
    (example,) = read(tmp_path, [row], "generation", group="who", time="when").examples
    assert (example.group, example.time) == ("g1", "2026-01-02")
