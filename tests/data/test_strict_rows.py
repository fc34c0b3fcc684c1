"""The corpus of malformed rows: JSON Lines in OpenAI's chat shape, one mistake each, with the verdict it must get.

Each case is the eleventh line of a file whose first ten rows are good.
"""

from __future__ import annotations

import gzip
import io
import json
import time
import tracemalloc
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars
import pytest

from tuneworth.data import CODES, Batch, Reading, open_source, read_examples
from tuneworth.data import tables as tables_module
from tuneworth.errors import InputError
from tuneworth.task import Columns

LINE = 11


def user(content: object = "a question", **more: object) -> dict[str, object]:
    return {"role": "user", "content": content, **more}


def reply(content: object = "an answer", **more: object) -> dict[str, object]:
    return {"role": "assistant", "content": content, **more}


def system(content: object = "Be brief.") -> dict[str, object]:
    return {"role": "system", "content": content}


def answers(call: object, content: object = "found it") -> dict[str, object]:
    return {"role": "tool", "tool_call_id": call, "content": content}


def call(
    id_: object = "c1", name: object = "find", arguments: object = '{"x": 1}', **more: object
) -> dict[str, object]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def calls(*made: object) -> dict[str, object]:
    return reply(None, tool_calls=list(made))


FIND = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
GOOD = [json.dumps({"messages": [user(f"question {n}"), reply(f"a long answer, number {n}")]}) for n in range(10)]


def chat(*messages: object, **more: object) -> str:
    return json.dumps({"messages": list(messages), **more})


def tools(*messages: object, **more: object) -> str:
    return chat(*messages, **{"tools": [FIND], **more})


PAIR = {
    "input": {"messages": [user()]},
    "preferred_output": [reply("a good answer")],
    "non_preferred_output": [reply("a bad answer")],
}
CHAT = '{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant", "content": "b"}]}'
ODD = "a\u2028b\u2029c\u0085d"

# (number in the list of faults, what, line, verdict, code, message)
CASES: list[tuple[str, str, str | bytes, str, str, int | None]] = [
    ("D2", "CRLF", CHAT % "a" + "\r", "accept", "", None),
    ("D4", "line separators that are none", json.dumps({"messages": [user(ODD), reply()]}, ensure_ascii=False),
     "accept", "", None),
    ("D4", "escaped separators", CHAT % r"a\u001c\u000b", "warn", "control-character", None),
    ("D5", "0xFF", CHAT.encode() % b"\xff", "reject", "invalid-utf8", None),
    ("D5", "cut three-byte character", CHAT.encode() % b"\xe2\x82", "reject", "invalid-utf8", None),
    ("D5", "overlong", CHAT.encode() % b"\xc0\x80", "reject", "invalid-utf8", None),
    ("D5", "Latin-1", CHAT.encode() % b"caf\xe9", "reject", "invalid-utf8", None),
    ("D5", "CESU-8", CHAT.encode() % b"\xed\xa0\xbc\xed\xbd\x95", "reject", "invalid-utf8", None),
    ("D7", "lone surrogate", CHAT % r"\ud800", "reject", "lone-surrogate", None),
    ("D7", "surrogates the wrong way round", CHAT % r"\udc00\ud800", "reject", "lone-surrogate", None),
    ("D8", "NUL", CHAT % r"\u0000", "reject", "nul-character", None),
    ("D8", "NUL in a key", '{"a\\u0000": 1, ' + (CHAT % "a")[1:], "reject", "nul-character", None),
    ("D8", "another control character", CHAT % r"\u0007", "warn", "control-character", None),
    ("D8", "backspace", CHAT % r"\b", "warn", "control-character", None),
    ("D8", "a backslash before b is none", CHAT % r"\\b \\u0000", "accept", "", None),
    ("D9", "raw control character", CHAT % "\x01", "reject", "invalid-json", None),
    ("D9", "raw tab", CHAT % "\t", "reject", "invalid-json", None),
    ("D9", "raw NUL", CHAT % "\0", "reject", "nul-character", None),
    ("D10", "white space around", "  \t" + CHAT % "a" + "   ", "accept", "", None),
    ("D13", "list", "[1]", "reject", "row-not-object", None),
    ("D13", "text", '"a"', "reject", "row-not-object", None),
    ("D13", "number", "1", "reject", "row-not-object", None),
    ("D13", "null", "null", "reject", "row-not-object", None),
    ("D15", "depth", '{"messages": ' + "[" * 100_000, "reject", "too-deep", None),
    ("D15", "closed depth", '{"messages": ' + "[" * 100_000 + "]" * 100_000 + "}", "reject", "too-deep", None),
    ("D16", "5,000 digits", (CHAT % "a")[:-1] + ', "n": ' + "9" * 5000 + "}", "reject", "number-too-large", None),
    ("D16", "1e999", (CHAT % "a")[:-1] + ', "n": 1e999}', "reject", "number-too-large", None),
    ("D16", "-0", (CHAT % "a")[:-1] + ', "n": -0}', "accept", "", None),
    ("D17", "role twice", '{"messages": [{"role": "user", "role": "assistant", "content": "a"}]}',
     "reject", "duplicate-key", None),
    ("D17", "messages twice", '{"messages": [], ' + (CHAT % "a")[1:], "reject", "duplicate-key", None),
    ("D17", "hidden by an escaped colon", '{"x": "", "x": "\\u003A", ' + (CHAT % "a")[1:],
     "reject", "duplicate-key", None),
    ("D17", "the same key spelt with an escape", '{"x": 1, "\\u0078": 2, ' + (CHAT % "a")[1:],
     "reject", "duplicate-key", None),
    ("D18", "NaN", (CHAT % "a")[:-1] + ', "n": NaN}', "reject", "not-a-number", None),
    ("D18", "Infinity", (CHAT % "a")[:-1] + ', "n": Infinity}', "reject", "not-a-number", None),
    ("D18", "-Infinity", (CHAT % "a")[:-1] + ', "n": -Infinity}', "reject", "not-a-number", None),
    ("D19", "comment", CHAT % "a" + " // note", "reject", "invalid-json", None),
    ("D19", "trailing comma", (CHAT % "a")[:-1] + ",}", "reject", "invalid-json", None),
    ("D19", "single quotes", "{'messages': []}", "reject", "invalid-json", None),
    ("D19", "two objects", CHAT % "a" + "{}", "reject", "invalid-json", None),
    ("D20", "messages null", '{"messages": null}', "reject", "messages", None),
    ("D20", "messages {}", '{"messages": {}}', "reject", "messages", None),
    ("D20", "messages text", '{"messages": ""}', "reject", "messages", None),
    ("D20", "no messages", chat(), "reject", "messages", None),
    ("D20", "a message that is a text", chat("a", reply()), "reject", "message-not-object", 1),
    ("D20", "missing", '{"note": "a"}', "reject", "mixed-shapes", None),
    ("D21", "bot", chat(user(), {"role": "bot", "content": "b"}), "reject", "role", 2),
    ("D21", "capital", chat(user(), {"role": "Assistant", "content": "b"}), "reject", "role", 2),
    ("D21", "empty", chat({"role": "", "content": "b"}, reply()), "reject", "role", 1),
    ("D21", "null", chat({"role": None, "content": "b"}, reply()), "reject", "role", 1),
    ("D21", "number", chat({"role": 5, "content": "b"}, reply()), "reject", "role", 1),
    ("D21", "list", chat({"role": ["user"], "content": "b"}, reply()), "reject", "role", 1),
    ("D21", "missing", chat(user(), {"content": "b"}), "reject", "role", 2),
    ("D21", "extra key", chat(user(), reply(mood="fine")), "reject", "unknown-key", 2),
    ("D22", "no assistant", chat(user()), "reject", "no-assistant-message", None),
    ("D22", "last is the user", chat(user(), reply(), user()), "reject", "last-not-assistant", None),
    ("D22", "last is a tool", tools(user(), calls(call()), answers("c1")), "reject", "last-not-assistant", None),
    ("D23", "assistant first", chat(reply(), user(), reply()), "warn", "assistant-first", 1),
    ("D23", "two users", chat(user(), user(), reply()), "warn", "role-repeated", 2),
    ("D23", "two assistants", chat(user(), reply(), reply()), "warn", "role-repeated", 3),
    ("D23", "system not first", chat(user(), system(), reply()), "warn", "system-not-first", 2),
    ("D23", "two systems", chat(system(), system(), user(), reply()), "warn", "system-not-first", 2),
    ("D23", "system and assistant only", chat(system(), reply()), "left out", "no-user-message", None),
    ("D24", "null", chat(user(None), reply()), "reject", "content", 1),
    ("D24", "null answer", chat(user(), reply(None)), "reject", "content", 2),
    ("D24", "null with calls", tools(user(), calls(call())), "accept", "", None),
    ("D24", "missing", chat({"role": "user"}, reply()), "reject", "content", 1),
    ("D24", "empty", chat(user("a"), reply("b"), user(""), reply()), "warn", "content-blank", 3),
    ("D24", "white space", chat(user("a"), reply(" \n"), user("b"), reply()), "warn", "content-blank", 2),
    ("D24", "empty question", chat(user(""), reply()), "left out", "content-blank", 1),
    ("D24", "empty answer", chat(user(), reply("")), "left out", "content-blank", 2),
    ("D24", "number", chat(user(5), reply()), "reject", "content", 1),
    ("D24", "text parts", chat(user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), reply()),
     "accept", "", None),
    ("D24", "image", chat(user([{"type": "image_url", "image_url": {"url": "u"}}]), reply()),
     "reject", "content-part", 1),
    ("D24", "refusal part", chat(user(), reply([{"type": "refusal", "refusal": "no"}])), "reject", "content-part", 2),
    ("D24", "empty list", chat(user([]), reply()), "reject", "content", 1),
    ("D25", "0 and 1", chat(user(), reply(weight=0), user(), reply(weight=1)), "accept", "", None),
    ("D25", "0.5", chat(user(), reply(weight=0.5)), "reject", "weight", 2),
    ("D25", "text", chat(user(), reply(weight="1")), "reject", "weight", 2),
    ("D25", "true", chat(user(), reply(weight=True)), "reject", "weight", 2),
    ("D25", "1.0", chat(user(), reply(weight=1.0)), "reject", "weight", 2),
    ("D25", "2", chat(user(), reply(weight=2)), "reject", "weight", 2),
    ("D25", "on user", chat(user(weight=1), reply()), "reject", "weight", 1),
    ("D25", "all 0", chat(user(), reply(weight=0)), "reject", "weight-all-zero", None),
    ("D25", "last 0", chat(user(), reply(), user(), reply(weight=0)), "accept", "", None),
    ("D26", "good", tools(user(), calls(call()), answers("c1"), reply()), "accept", "", None),
    ("D26", "parallel", tools(user(), calls(call(), call("c2")), answers("c2"), answers("c1"), reply()),
     "accept", "", None),
    ("D26", "no id", tools(user(), calls(call(None))), "reject", "tool-call-id", 2),
    ("D26", "id twice", tools(user(), calls(call(), call())), "reject", "tool-call-id", 2),
    ("D26", "unknown id", tools(user(), calls(call()), answers("c9"), reply()), "reject", "tool-message", 3),
    ("D26", "answered twice", tools(user(), calls(call()), answers("c1"), answers("c1"), reply()),
     "reject", "tool-message", 4),
    ("D26", "no call", tools(user(), answers("c1"), reply()), "reject", "tool-message", 2),
    ("D26", "no tool_call_id", tools(user(), calls(call()), answers(None), reply()), "reject", "tool-message", 3),
    ("D26", "arguments no JSON", tools(user(), calls(call(arguments="x=1"))), "reject", "tool-arguments", 2),
    ("D26", "arguments a list", tools(user(), calls(call(arguments="[1]"))), "reject", "tool-arguments", 2),
    ("D26", "arguments an object", tools(user(), calls(call(arguments={"x": 1}))), "reject", "tool-arguments", 2),
    ("D26", "unknown name", tools(user(), calls(call(name="seek"))), "reject", "tool-name", 2),
    ("D26", "no tools", chat(user(), calls(call())), "reject", "tool-name", 2),
    ("D26", "tools as text", chat(user(), reply(), tools=json.dumps([FIND])), "reject", "tools", None),
    ("D26", "bare function", chat(user(), reply(), tools=[FIND["function"]]), "reject", "tool-definition", None),
    ("D26", "tool twice", chat(user(), reply(), tools=[FIND, FIND]), "reject", "tool-definition", None),
    ("D26", "parallel though false",
     tools(user(), calls(call(), call("c2")), parallel_tool_calls=False), "reject", "parallel-calls", 2),
    ("D26", "calls of the user", tools(user(tool_calls=[call()]), reply()), "reject", "tool-calls", 1),
    ("D26", "calls no list", tools(user(), reply(None, tool_calls={})), "reject", "tool-calls", 2),
    ("D26", "unanswered", tools(user(), calls(call()), user(), reply()), "warn", "tool-call-unanswered", 2),
    ("D27", "functions and tools", tools(user(), reply(), functions=[{"name": "f"}]), "reject", "functions", None),
    ("D27", "functions", chat(user(), reply(), functions=[{"name": "f"}]), "reject", "functions", None),
    ("D27", "function_call", chat(user(), reply(None, function_call={"name": "f"})), "reject", "functions", 2),
    ("D28", "special tokens", chat(user("<|im_end|> <|im_start|>system <s> [INST] <|endoftext|> <think> {{ }} {% %}"),
     reply()), "accept", "", None),
    ("D30", "another shape", json.dumps({"prompt": "a", "completion": "b"}), "reject", "mixed-shapes", None),
    ("D30", "a pair", json.dumps(PAIR), "reject", "mixed-shapes", None),
    ("D30", "a text too", chat(user(), reply(), text="a"), "accept", "", None),
    ("D34", "odd characters", chat(user("e\u0301 \u00e9 \u200d\u202e \U0001f468\u200d\U0001f469" + "\u0301" * 10_000),
     reply()), "accept", "", None),
    ("D35", "markup and formulas", chat(user("<script>=cmd|'/c calc'!A0"), reply()), "accept", "", None),
    ("D37", "one letter, leading space", chat(user(), reply(" a")), "accept", "", None),
    ("D42", "name", chat(user(name="ann-1"), reply()), "accept", "", None),
    ("D42", "name with blanks", chat(user(name="ann lee"), reply()), "reject", "name", 1),
    ("D42", "long name", chat(user(name="a" * 65), reply()), "reject", "name", 1),
    ("D42", "metadata", chat(user(), reply(), metadata={str(n): "x" for n in range(17)}), "warn", "metadata", None),
]  # fmt: skip


def read(path: Path) -> Reading:
    return read_examples(path, Columns(), "auto", rows_needed=10)


def batch(path: Path) -> Batch:
    return next(open_source(path, Columns(), "auto").batches())


def write(folder: Path, *lines: str | bytes, good: Sequence[str] = GOOD) -> Path:
    path = folder / "d.jsonl"
    rows = [line if isinstance(line, bytes) else line.encode() for line in (*good, *lines)]
    path.write_bytes(b"\n".join(rows) + b"\n")
    return path


@pytest.mark.parametrize(
    ("line", "verdict", "code", "message"), [case[2:] for case in CASES], ids=[f"{c[0]} {c[1]}" for c in CASES]
)
def test_each_malformed_row_gets_its_verdict(tmp_path, line, verdict, code, message):
    path = write(tmp_path, line)
    found = {(p.code, p.severity): p for p in batch(path).problems}
    if verdict == "accept":
        assert found == {}
        assert len(read(path).examples) == 11
        return
    problem = found[code, "error" if verdict == "reject" else "warn"]
    assert (problem.file, problem.line, problem.message) == (str(path), LINE, message)
    assert code in CODES
    if verdict == "reject":
        assert {c for c, severity in found if severity == "error"} == {code}
        with pytest.raises(InputError) as raised:
            read(path)
        assert raised.value.exit_code == 2
        assert (f"{path}:{LINE}", code) in {(p.where, p.code) for p in raised.value.problems}
    else:
        reading = read(path)
        assert len(reading.examples) == (10 if verdict == "left out" else 11)
        assert code in {warning.code for warning in reading.warnings}
        assert sum(finding.count for finding in reading.dropped) == (verdict == "left out")


def preference(**more: Any) -> str:
    return json.dumps({**PAIR, **more})


PREFERENCES = [
    ("good", preference(), "accept", ""),
    ("identical", preference(non_preferred_output=[reply("a good answer")]), "warn", "preference-identical"),
    ("empty", preference(preferred_output=[reply("")]), "left out", "content-blank"),
    ("no message", preference(preferred_output=[]), "reject", "preference-answer"),
    ("two messages", preference(preferred_output=[reply(), reply()]), "reject", "preference-answer"),
    ("role", preference(non_preferred_output=[user()]), "reject", "preference-answer"),
    ("no input", json.dumps({key: PAIR[key] for key in PAIR if key != "input"}), "reject", "preference-input"),
    ("input ends with an answer", preference(input={"messages": [user(), reply()]}), "reject", "preference-input"),
    ("one side only", json.dumps({k: PAIR[k] for k in ("input", "preferred_output")}), "reject", "preference-answer"),
]


@pytest.mark.parametrize(
    ("row", "verdict", "code"), [case[1:] for case in PREFERENCES], ids=[c[0] for c in PREFERENCES]
)
def test_each_malformed_preference_pair_gets_its_verdict_d31(tmp_path, row, verdict, code):
    path = write(tmp_path, row, good=[preference(input={"messages": [user(f"question {n}")]}) for n in range(10)])
    found = {(p.code, p.severity, p.line) for p in batch(path).problems}
    if verdict == "accept":
        assert found == set()
    elif verdict == "reject":
        assert (code, "error", LINE) in found
        with pytest.raises(InputError, match=f":{LINE}: "):
            read(path)
    else:
        assert found == {(code, "warn", LINE)}
        assert len(read(path).examples) == (10 if verdict == "left out" else 11)


def zipped(data: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("d.jsonl", data)
    return target.getvalue()


def in_parquet(data: bytes) -> bytes:
    target = io.BytesIO()
    polars.read_ndjson(io.BytesIO(data)).write_parquet(target)
    return target.getvalue()


ALL = ("\n".join(GOOD) + "\n").encode()
FILES: list[tuple[str, bytes, str, list[str]]] = [
    ("D3 lone carriage returns", ALL.replace(b"\n", b"\r"), "line-ends", ["carriage returns only", "tr '\\r' '\\n'"]),
    ("D6 UTF-16", ALL.decode().encode("utf-16"), "file-encoding", ["UTF-16", "save it as UTF-8"]),
    ("D6 UTF-16 without a mark", ALL.decode().encode("utf-16-be"), "file-encoding", ["UTF-16"]),
    ("D6 UTF-32", ALL.decode().encode("utf-32"), "file-encoding", ["UTF-32"]),
    ("D11 empty", b"", "file-empty", ["the file is empty"]),
    ("D11 blank", b"\n \n\n", "file-empty", ["nothing but blank lines"]),
    ("D11 nine rows", b"\n".join(ALL.splitlines()[:9]), "too-few-rows", ["9 usable rows; at least 10 needed"]),
    ("D12 array", json.dumps([json.loads(row) for row in GOOD]).encode(), "format-mismatch", ["looks like JSON"]),
    ("D12 pretty-printed", json.dumps(json.loads(GOOD[0]), indent=2).encode(), "format-mismatch", ["looks like JSON"]),
    ("D12 CSV", b"text,label\na,b\n" * 10, "format-mismatch", ["looks like CSV"]),
    ("D12 gzip", gzip.compress(ALL), "file-kind", ["gzip-compressed", ".jsonl.gz"]),
    ("D12 zip", zipped(ALL), "file-kind", ["zip archive"]),
    ("D12 HTML", b"<!DOCTYPE html><html><body>502</body></html>", "file-kind", ["HTML page", "raw data file"]),
    ("D12 LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "file-kind", ["git lfs pull"]),
]


@pytest.mark.parametrize(("data", "code", "parts"), [case[1:] for case in FILES], ids=[case[0] for case in FILES])
def test_files_that_are_something_else_are_refused_by_name(tmp_path, data, code, parts):
    path = tmp_path / "d.jsonl"
    path.write_bytes(data)
    with pytest.raises(InputError) as raised:
        read(path)
    assert raised.value.problems[0].code == code
    for part in parts:
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("data", "rows", "note"),
    [
        (b"\xef\xbb\xbf" + ALL, 10, "byte order mark"),  # D1
        (ALL.replace(b"\n", b"\r\n"), 10, ""),  # D2
        (ALL.rstrip(b"\n"), 10, ""),  # D10
        (ALL.replace(b"\n", b"\n\n \t\n"), 10, "20 blank lines were skipped"),  # D10
        (ALL, 10, ""),  # D11
        (in_parquet(ALL), 10, ""),  # known by its content
    ],
)
def test_good_files_in_unusual_dress_are_read_and_noted(tmp_path, data, rows, note):
    path = tmp_path / "d.jsonl"
    path.write_bytes(data)
    reading = read(path)
    assert len(reading.examples) == rows
    assert note in " ".join(reading.shape.why)


@pytest.mark.parametrize("name", ["d.JSONL", "rows", "zähler ☂.jsonl", "a" * 200 + ".jsonl"])
def test_file_names_do_not_matter_d40(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(ALL)
    assert {example.file for example in read(path).examples} == {str(path)}


@pytest.mark.parametrize("name", ["a\0b.jsonl", "n" * 300 + ".jsonl", "../../nowhere.jsonl"])
def test_impossible_file_names_are_refused_d40(tmp_path, name):
    with pytest.raises(InputError) as raised:
        read(tmp_path / name)
    assert raised.value.problems[0].code == "file-missing"


def test_a_line_over_the_limit_is_refused_without_being_held_in_memory_d14(tmp_path, monkeypatch):
    monkeypatch.setattr("tuneworth.data.streaming.PIECE", 1 << 16)
    monkeypatch.setattr("tuneworth.data.streaming.LONGEST_ROW", 1 << 18)
    path = write(tmp_path, '{"messages": "' + "x" * (8 << 20), GOOD[0])
    tracemalloc.start()
    try:
        batches = list(open_source(path, Columns(), "auto").batches())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    (problem,) = [problem for found in batches for problem in found.problems]
    assert (problem.code, problem.line) == ("line-too-long", LINE)
    assert [example.line for found in batches for example in found.examples] == [*range(1, 11), 12]
    assert peak < 4 << 20
    assert tables_module.LONGEST_ROW == 64 << 20


def test_a_message_of_ten_megabytes_is_read_d29(tmp_path):
    path = write(tmp_path, chat(user("long " * 2_000_000), reply()))
    assert len(read(path).examples[-1].text) == 10_000_000


def test_problems_say_column_and_byte(tmp_path):
    good = len(ALL)
    (problem,) = batch(write(tmp_path, CHAT.encode() % b"caf\xe9")).problems
    at = (CHAT % "caf").index("caf") + 3
    assert (problem.column, problem.byte) == (at + 1, good + at)
    (problem,) = batch(write(tmp_path, '{"a": x}')).problems
    assert (problem.column, problem.byte) == (7, None)
    assert problem.to_json() == {
        "code": "invalid-json", "severity": "error", "file": str(tmp_path / "d.jsonl"), "line": LINE, "column": 7,
        "what": problem.what, "cure": problem.cure,
    }  # fmt: skip


def test_all_problems_of_a_file_come_in_one_pass_with_counts_by_code_d30(tmp_path):
    bad = [case for case in CASES if case[3] == "reject" for _ in range(7)]
    path = write(tmp_path, *(case[2] for case in bad), *GOOD * 60)
    with pytest.raises(InputError) as raised:
        read(path)
    shown = raised.value.problems
    codes = [problem.code for problem in shown[1:-1]]
    assert shown[0].what.startswith("rows have different shapes: ")
    assert len(codes) <= 100
    assert max(codes.count(code) for code in codes) == 5
    # Every reject case has one problem of its code, but for those of another shape.
    assert f"{len(bad):,} problems in all" in shown[-1].what
    for code in {case[4] for case in bad}:
        assert f"{sum(case[4] == code for case in bad)} {code}" in shown[-1].what
    lines = [int(problem.where.rpartition(":")[2]) for problem in shown[1:-1]]
    assert lines == sorted(lines)


def test_a_thousand_duplicate_keys_cost_no_quadratic_time(tmp_path):
    row = "{" + ", ".join(f'"k{n}": {n}' for n in range(20_000)) + ', "k0": 1}'
    start = time.process_time()
    (problem,) = batch(write(tmp_path, row)).problems
    assert problem.code == "duplicate-key"
    assert time.process_time() - start < 2
