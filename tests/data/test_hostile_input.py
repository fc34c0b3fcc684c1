"""Whatever a file holds, reading gives examples or an InputError; anything else is a fault of ours."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import polars
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuneworth.data import Example, Reading, open_source, read_examples
from tuneworth.data.converting import TARGETS, CannotHoldError, to_row
from tuneworth.data.registered import content_sha256
from tuneworth.errors import InputError
from tuneworth.task import Columns

WORDS = [
    "messages", "role", "content", "user", "assistant", "system", "tool", "tools", "tool_calls", "tool_call_id", "id",
    "function", "type", "text", "name", "arguments", "parameters", "weight", "conversations", "from", "value", "human",
    "gpt", "function_call", "observation", "input", "preferred_output", "non_preferred_output", "prompt", "chosen",
    "rejected", "completion", "instruction", "output", "response1", "response2", "annotator1", "data", "entity",
    "intent", "tokens", "tags", "B-a", "I-a", "O", "label", "metadata", "parallel_tool_calls", "history", "{}", "[]",
]  # fmt: skip
LEAF = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2), st.floats(), st.sampled_from(WORDS), st.text(max_size=4),
    st.sampled_from([2**70, -1, 1e300, "\ud800", "\0", "a" * 100]),
)  # fmt: skip
JSON = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6),
    max_leaves=20,
)
MESSAGE = st.dictionaries(st.sampled_from(WORDS[:12]), JSON, max_size=4) | st.fixed_dictionaries(
    {"role": st.sampled_from(WORDS[3:7]), "content": st.sampled_from(["a", "b", None])},
    optional={"tool_calls": JSON, "tool_call_id": JSON, "weight": st.sampled_from([0, 1, 2]), "name": LEAF},
)
ROW = st.one_of(
    JSON,
    st.dictionaries(st.sampled_from(WORDS), JSON, max_size=6),
    st.fixed_dictionaries({"messages": st.lists(MESSAGE, max_size=5)}, optional={"tools": JSON}),
    st.fixed_dictionaries({"prompt": JSON, "chosen": JSON, "rejected": JSON}),
    st.fixed_dictionaries({"input": JSON, "preferred_output": JSON, "non_preferred_output": JSON}),
    st.fixed_dictionaries(
        {"conversations": st.lists(st.fixed_dictionaries({"from": LEAF, "value": LEAF}), max_size=4)}
    ),
    st.fixed_dictionaries({"instruction": JSON, "response1": JSON, "response2": JSON, "annotator1": JSON}),
    st.fixed_dictionaries({"tokens": JSON, "tags": JSON}),
    st.fixed_dictionaries({"data": st.lists(JSON), "intent": JSON}),
)


def checked(path: Path) -> Reading | None:
    """The reading, every example of which survives JSON and conversion; None when the file is refused."""
    try:
        reading = read_examples(path, Columns(), "auto", rows_needed=1)
    except InputError as error:
        assert all(problem.what for problem in error.problems)
        assert len(error.problems) <= 110
        return None
    for example in reading.examples:
        assert Example.from_json(json.loads(json.dumps(example.to_json()))) == example
        for shape in TARGETS:
            try:
                to_row(example, shape)
            except CannotHoldError:
                continue
    return reading


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW, min_size=1, max_size=4), as_array=st.booleans())
def test_any_json_is_read_or_refused(tmp_path, rows: Any, as_array):
    path = tmp_path / ("d.json" if as_array else "d.jsonl")
    path.write_text(json.dumps(rows) if as_array else "\n".join(map(json.dumps, rows)))
    checked(path)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=200),
    ending=st.sampled_from(["csv", "tsv", "json", "jsonl", "parquet", "gz", "zst", "conll", "x"]),
)
def test_any_bytes_are_read_or_refused(tmp_path, data, ending):
    path = tmp_path / f"d.{ending}"
    path.write_bytes(data)
    checked(path)


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl", "json"])
def test_a_file_with_a_few_bytes_changed_is_read_or_refused(tmp_path, ending):
    rows = [{"text": f"text {n}", "label": "ab"[n % 2], "more": [{"a": n, "b": None}]} for n in range(30)]
    path = tmp_path / f"d.{ending}"
    if ending == "parquet":
        polars.DataFrame(rows).write_parquet(path)
    elif ending == "csv":
        path.write_text("text,label\n" + "".join(f'"{row["text"]}",{row["label"]}\n' for row in rows))
    else:
        text = "\n".join(map(json.dumps, rows))
        path.write_text(text if ending == "jsonl" else "[" + text.replace("\n", ",") + "]")
    good = path.read_bytes()
    chance = random.Random(0)
    for _ in range(60):
        bad = bytearray(good)
        for _ in range(chance.choice([1, 1, 4])):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        path.write_bytes(bad if chance.random() < 0.8 else bad[: chance.randrange(len(bad))])
        checked(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    pipe = tmp_path / "rows.csv"
    os.mkfifo(pipe)
    for read in (lambda: read_examples(pipe, Columns(), "auto"), lambda: content_sha256(str(pipe))):
        with pytest.raises(InputError, match="a pipe or a device"):
            read()


def test_a_file_that_becomes_shorter_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"what about row {n},{'ab'[n % 2]}\n" for n in range(60)))
    source = open_source(path, Columns(), "auto")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="became shorter"):
        source.jobs[0].read()


def test_of_very_many_columns_only_some_are_listed(tmp_path):
    path = tmp_path / "wide.csv"
    names = [f"c{n}" for n in range(5000)]
    path.write_text("\n".join([",".join(names), *[",".join("x" for _ in names)] * 30]))
    with pytest.raises(InputError, match="4,988 more") as caught:
        read_examples(path, Columns(), "auto")
    assert len(str(caught.value)) < 2000
