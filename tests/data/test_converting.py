"""Conversions: what is written and read again is the same row, or a refusal says what the shape cannot hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneworth.data import Example, Message, RowShape, ToolCall, open_source, read_examples
from tuneworth.data.converting import TARGETS, CannotHoldError, convert, target_shape, to_row
from tuneworth.errors import InputError
from tuneworth.task import Columns

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20).filter(
    str.strip
)
TOOLS = json.dumps(
    [{"type": "function", "function": {"name": n, "parameters": {"type": "object"}}} for n in "fg"],
    separators=(",", ":"),
)
CALL = st.builds(
    ToolCall,
    id=st.sampled_from(["call_1", "a", "b"]),
    name=st.sampled_from("fg"),
    arguments=st.sampled_from(["{}", '{"x": "é", "y": [1, null]}', '{"x":1}', '{ "z" : 1.0 }']),
)


@st.composite
def examples(draw: Any) -> Example:
    if draw(st.booleans()):
        rejected = Message("assistant", draw(TEXT)) if draw(st.booleans()) else None
        return Example("x", (Message("user", draw(TEXT)),), draw(TEXT), "f", 1, rejected=rejected)
    messages = [Message("system", draw(TEXT))] if draw(st.booleans()) else []
    tools = TOOLS if draw(st.booleans()) else ""
    for turn in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from([None, None, "ann"]))
        messages.append(Message("user", draw(TEXT), name=name))
        if tools and draw(st.booleans()):
            made = [
                ToolCall(
                    f"{call.id}{turn}{place}" if draw(st.booleans()) else f"call_{place}{turn}",
                    call.name,
                    call.arguments,
                )
                for place, call in enumerate(draw(st.lists(CALL, min_size=1, max_size=2)), 1)
            ]
            messages.append(Message("assistant", draw(st.sampled_from(["", "let me see"])), tuple(made)))
            messages += [Message("tool", draw(TEXT), call_id=call.id) for call in made]
        messages.append(Message("assistant", draw(TEXT), weight=draw(st.sampled_from([None, None, 0, 1]))))
    answer = messages.pop()
    rejected = Message("assistant", draw(TEXT)) if draw(st.integers(0, 3)) == 0 else None
    weight = 1 if answer.weight == 0 else answer.weight
    return Example(
        "x", tuple(messages), answer.content, "f", 1, weight=weight, tools=tools,
        parallel_tool_calls=draw(st.sampled_from([None, None, True])) if tools else None, rejected=rejected,
    )  # fmt: skip


def content(example: Example) -> tuple[Any, ...]:
    return (
        example.messages, example.reply, example.tools, example.parallel_tool_calls, example.rejected, example.group,
    )  # fmt: skip


@pytest.mark.parametrize("shape", TARGETS)
def test_a_row_that_is_written_and_read_again_is_the_same(tmp_path, shape):
    path = tmp_path / "d.jsonl"
    columns = Columns(input="input", output="output") if shape == "table" else Columns()
    held = 0

    @settings(max_examples=40)
    @given(examples())
    def check(example: Example) -> None:
        nonlocal held
        try:
            row = to_row(example, shape)
        except CannotHoldError as error:
            assert str(error)
            return
        held += 1
        path.write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf-8", newline="\n")
        kind = "preference" if example.rejected else "generation"
        (again,) = read_examples(path, columns, kind, rows_needed=1).examples
        assert content(again) == content(example)

    check()
    assert held


PLAIN = Example("x", (Message("user", "q"),), "a", "f", 1)
TALK = Example("x", (Message("user", "q"), Message("assistant", "b"), Message("user", "c")), "a", "f", 1)
SYSTEM = Example("x", (Message("system", "s"), Message("user", "q")), "a", "f", 1)
PAIR = Example("x", (Message("user", "q"),), "a", "f", 1, rejected=Message("assistant", "b"))
MADE = ToolCall("call_1", "f", '{"x": 1}')
CALLING = Example("x", (Message("user", "q"),), "", "f", 1, calls=(MADE,), tools=TOOLS)
OWN_ID = Example("x", (Message("user", "q"),), "", "f", 1, calls=(ToolCall("abc", "f", "{}"),), tools=TOOLS)
FULL: dict[RowShape, Any] = {
    "chat": {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    "prompt-completion": {"prompt": "q", "completion": "a"},
    "alpaca": {"instruction": "q", "input": "", "output": "a"},
    "sharegpt": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    "table": {"input": "q", "output": "a"},
}


@pytest.mark.parametrize("shape", FULL)
def test_a_plain_row_in_each_shape(shape):
    assert to_row(PLAIN, shape) == FULL[shape]


@pytest.mark.parametrize(
    ("example", "shape", "why"),
    [
        (TALK, "table", "several turns"),
        (TALK, "alpaca", "several turns"),
        (SYSTEM, "table", "a system message"),
        (PAIR, "chat", "a rejected answer"),
        (PLAIN, "preference", "a row without a rejected answer"),
        (PLAIN, "chosen-rejected", "a row without a rejected answer"),
        (CALLING, "prompt-completion", "tools and tool calls"),
        (CALLING, "table", "tools and tool calls"),
        (OWN_ID, "sharegpt", "ids of tool calls"),
        (PLAIN, "comparison", "read, not written"),
        (Example("x", (Message("user", "q", name="ann"),), "a", "f", 1), "sharegpt", "a message's name"),
        (Example("x", (Message("user", "q"),), "a", "f", 1, weight=1), "table", "a weight of the answer"),
        (Example("x", (Message("user", "q"),), "a", "f", 1, references=("b",)), "chat", "equally good answers"),
        (Example("x", (Message("user", "q"),), "a\0", "f", 1, weight=0), "chat", "weight 0"),
    ],
)
def test_what_a_shape_cannot_hold_is_refused_by_name(example, shape, why):
    with pytest.raises(CannotHoldError, match=why):
        to_row(example, shape)


def test_calls_go_to_sharegpt_and_back():
    row = to_row(CALLING, "sharegpt")
    assert row["conversations"][1] == {"from": "function_call", "value": '{"name":"f","arguments":{"x":1}}'}
    assert json.loads(row["tools"])[0]["name"] == "f"


def source_of(path: Path, **columns: str) -> Any:
    return open_source(path, Columns(**columns), "auto")


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_files_of_every_format_hold_the_same_rows(tmp_path, ending):
    path = tmp_path / "d.csv"
    text = "a {}, b" if ending == "tsv" else 'a {}, ""b""\n'
    rows = (f'"{text.format(n)}",{"xy"[n % 2]},g{n}\n' for n in range(20))
    path.write_text("text,label,who\n" + "".join(rows))
    target = tmp_path / f"out.{ending}"
    done = convert(source_of(path, group="who"), target, "table")
    assert done.rows == 20
    again = read_examples(target, Columns(input="input", output="output", group="group"), "auto")
    before = read_examples(path, Columns(group="who"), "auto")
    assert [content(e) for e in again.examples] == [content(e) for e in before.examples]
    assert [e.id for e in again.examples] == [e.id for e in before.examples]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.csv", target.name]


def test_a_file_with_a_row_that_cannot_be_held_is_refused_whole(tmp_path):
    path, target = tmp_path / "d.jsonl", tmp_path / "out.csv"
    target.write_text("precious")
    rows = [json.dumps(to_row(PLAIN, "chat"))] * 3 + [json.dumps(to_row(TALK, "chat"))] * 7
    path.write_text("\n".join(rows))
    with pytest.raises(InputError) as raised:
        convert(source_of(path), target, "table")
    assert [problem.where for problem in raised.value.problems[:5]] == [f"{path}:{line}" for line in range(4, 9)]
    assert "table cannot hold several turns" in str(raised.value)
    assert "7 cannot-hold" in str(raised.value)
    assert target.read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 2


def test_malformed_rows_are_not_converted(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps(to_row(PLAIN, "chat")) + "\noops\n")
    with pytest.raises(InputError, match=r"d\.jsonl:2: not valid JSON"):
        convert(source_of(path), tmp_path / "out.jsonl", "sharegpt")


def test_unknown_shapes_and_endings_name_the_known_ones(tmp_path):
    with pytest.raises(InputError, match="did you mean 'sharegpt'"):
        target_shape("sharegtp")
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps(to_row(PLAIN, "chat")))
    with pytest.raises(InputError, match=r"\*\.jsonl"):
        convert(source_of(path), tmp_path / "out.xml", "chat")


def test_glaive_calls_become_openai_rows_and_the_same_glaive_rows_again(shared_data, tmp_path):
    glaive = shared_data / "glaive_toolcall_demo" / "glaive_toolcall_en_demo.json"
    chat, back = tmp_path / "chat.jsonl", tmp_path / "back.json"
    assert convert(source_of(glaive), chat, "chat").rows == 300
    convert(source_of(chat), back, "sharegpt")
    for old, new in zip(json.loads(glaive.read_text("utf-8")), json.loads(back.read_text("utf-8")), strict=True):
        assert [m["from"] for m in new["conversations"]] == [m["from"] for m in old["conversations"]]
        for one, other in zip(old["conversations"], new["conversations"], strict=True):
            same = json.loads if one["from"] == "function_call" else str
            assert same(one["value"]) == same(other["value"])
        assert json.loads(new.get("tools", "[]")) == json.loads(old["tools"])


def test_votes_become_openai_pairs(shared_data, tmp_path):
    votes, pairs = shared_data / "pandalm_pref" / "testset-v1.json", tmp_path / "pairs.jsonl"
    done = convert(source_of(votes), pairs, "preference")
    assert done.rows == 893
    assert {finding.code: finding.count for finding in done.left_out} == {"empty-answer": 1, "preference-tie": 105}
    again = read_examples(pairs, Columns(group="group"), "auto")
    assert again.shape.kind == "preference"
    assert len({example.group for example in again.examples}) == len(
        {e.group for e in read_examples(votes, Columns(), "auto").examples}
    )
