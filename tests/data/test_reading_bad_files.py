"""Bad files: one clear InputError that says what, where and how to cure it, with every mistake."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tuneworth.data import read_examples
from tuneworth.errors import InputError
from tuneworth.task import Columns

GOOD = "".join(f"a question about thing {n},{'ab'[n % 2]}\n" for n in range(30))
GOOD_JSON = "".join(json.dumps({"text": f"thing {n}", "label": "ab"[n % 2]}) + "\n" for n in range(30))
UNNAMED = "p,q\n" + "".join(f"w{n},u{n}\n" for n in range(30))


def refused(path: Path, content: bytes | str, kind: str = "auto", **columns: str) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError) as raised:
        read_examples(path, Columns(**columns), kind)
    assert raised.value.exit_code == 2
    return str(raised.value)


CORPUS: list[tuple[str, str, bytes | str, list[str]]] = [
    ("empty", "d.csv", b"", ["the file is empty"]),
    ("blank", "d.csv", " \n\r\n\t\n", ["nothing but blank lines"]),
    ("bom only", "d.csv", b"\xef\xbb\xbf", ["nothing but blank lines"]),
    ("header only", "d.csv", "text,label\n", ["a header but no rows"]),
    ("one row", "d.csv", "text,label\nhello there,a\n", ["1 usable row; at least 20 needed", "add rows"]),
    ("utf-16", "d.csv", ("text,label\n" + GOOD).encode("utf-16"), ["UTF-16", "save it as UTF-8"]),
    ("utf-16 without mark", "d.csv", ("text,label\n" + GOOD).encode("utf-16-le"), ["UTF-16"]),
    ("utf-32", "d.csv", ("text,label\n" + GOOD).encode("utf-32"), ["UTF-32"]),
    ("latin-1", "d.csv", b"text,label\ncaf\xe9,a\n" + GOOD.encode(), ["d.csv:2: byte 0xe9 at offset 14"]),
    ("overlong", "d.jsonl", b'{"text": "\xc0\x80", "label": "a"}\n', ["d.jsonl:1: byte 0xc0 at offset 10"]),
    ("latin-1 after bom", "d.csv", b"\xef\xbb\xbftext,label\n\xff,a\n", ["d.csv:2: byte 0xff at offset 14"]),
    ("gzip", "d.csv", gzip.compress(GOOD.encode()), ["gzip", "unpack it first"]),
    ("excel", "d.csv", b"PK\x03\x04 whatever", ["Excel workbook", "export the sheet as CSV"]),
    ("html", "d.csv", "\n<!DOCTYPE html><html><body>404</body></html>", ["HTML page", "raw data file"]),
    ("old macintosh", "d.csv", ("text,label\n" + GOOD).replace("\n", "\r"), ["carriage returns only"]),
    ("nul", "d.csv", "text,label\nhel\0lo,a\n" + GOOD, ["d.csv:2: byte 0x00 at offset 14", "NUL"]),
    ("no header", "d.csv", GOOD, ["d.csv:1: there is no header", "--input 1 --output 2"]),
    ("header twice", "d.csv", "text,text\n" + GOOD, ["'text' stands in it twice"]),
    ("nameless column", "d.csv", "text,\n" + GOOD, ["a column in it has no name"]),
    ("text as header", "d.csv", "where is my money gone,q\n" + GOOD, ["there is no header", "where is"]),
    ("one column", "d.csv", "text\nhello\nyou\n", ["no column can be recognised as the output", "'text'"]),
    ("ambiguous", "d.csv", "text,message,label\n" + "x,y,a\n" * 25, ["'text' or 'message' could be it"]),
    ("nothing to go by", "d.csv", UNNAMED, ["no column can be recognised", "--input NAME", "'p'", "'q'"]),
    ("one class", "d.csv", "text,label\n" + GOOD.replace(",b", ",a"), ["same answer, 'a'"]),
    ("open quote", "d.csv", "text,label\n" + GOOD + '"never closed,a\nx,b\n', ["d.csv:32", "never closed"]),
    ("stray quote", "d.csv", 'text,label\n"a" b,c\n' + GOOD, ["d.csv:2", "quote"]),
    ("short row", "d.csv", "text,label\nonly one\n" + GOOD, ["d.csv:2: 1 cell, but the table has 2 columns"]),
    ("long row", "d.csv", "text,label\nhello, you,a\n" + GOOD, ["d.csv:2: 3 cells", "comma", "quotes"]),
    ("short row in tsv", "d.tsv", "text\tlabel\nonly one\n" + GOOD.replace(",", "\t"), ["d.tsv:2: 1 cell"]),
    ("csv as json lines", "d.jsonl", "text,label\n" + GOOD, ["says JSON Lines", "looks like CSV", "*.csv"]),
    ("json lines as csv", "d.csv", GOOD_JSON, ["the name says CSV", "looks like JSON Lines", "*.jsonl"]),
    ("array as json lines", "d.jsonl", '[{"text": "a", "label": "b"}]', ["looks like JSON", "*.json"]),
    ("pretty as json lines", "d.jsonl", '{\n "text": "a"\n}', ["looks like JSON"]),
    ("text as parquet", "d.parquet", "hello world", ["the name says Parquet", "text"]),
    ("broken parquet", "d.parquet", b"PAR1 and then nothing PAR1", ["the Parquet file cannot be read"]),
    ("no format", "d.txt", "hello\nworld\n", ["no format recognised"]),
    ("one object", "d.json", '{\n"data": []}', ["one JSON object, not an array"]),
    ("empty array", "d.json", "[]", ["the file has no rows"]),
    ("two arrays", "d.json", '[{"text": "a"}]\n[{"text": "b"}]', ["something after the end", "d.json:2"]),
    ("cut array", "d.json", '[{"text": "a", "label": "b"},\n{"text": "c"', ["d.json:2: not valid JSON"]),
    ("no comma", "d.json", '[{"text": "a"}\n{"text": "b"}]', ["d.json:2: the array breaks off here"]),
    ("deep array", "d.json", "[" * 100_000, ["d.json:1: the row that begins here is nested too deeply"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "parts"), [case[1:] for case in CORPUS], ids=[case[0] for case in CORPUS])
def test_bad_files_are_refused_with_place_and_cure(tmp_path, name, content, parts):
    message = refused(tmp_path / name, content)
    for part in [name, *parts]:
        assert part in message


BAD_LINES: list[tuple[str, str]] = [
    ("[1, 2]", "a row is an object, this is a list"),
    ('"text"', "this is a text"),
    ("12", "this is a number"),
    ("null", "this is null"),
    ('{"text": "a", "label": NaN}', "NaN is no JSON value Cure: write null"),
    ('{"text": "a", "label": -Infinity}', "-Infinity is no JSON value"),
    ('{"text": "a", "label": 1e999}', "too large"),
    ('{"text": "a", "label": ' + "9" * 5000 + "}", "a number of 5000 digits is too large"),
    ('{"text": "a", "label": "b", "text": "c"}', "the key 'text' stands twice"),
    ('{"text": "a:", "label": "b", "text": "\\u003a\\u003a"}', "the key 'text' stands twice"),
    ('{"text": "a", "label": "b", "x": {"y": 1, "y": 2}}', "the key 'y' stands twice"),
    ('{"text": "\\ud800", "label": "b"}', "surrogate"),
    ('{"text": "\\u0000", "label": "b"}', "'text' holds a NUL character"),
    ('{"text": "a\x01b", "label": "b"}', "control character"),
    ("{'text': 'a', 'label': 'b'}", "not valid JSON"),
    ('{"text": "a", "label": "b",}', "not valid JSON"),
    ('{"text": "a", "label": "b"} // note', "not valid JSON"),
    ('{"text": "a", "label": "b"}{}', "not valid JSON"),
    ('{"text": ' + "[" * 100_000, "not valid JSON"),
    ('{"text": ["a"], "label": "b"}', "'text' is a list; a text is needed"),
    ('{"text": {"a": 1}, "label": "b"}', "'text' is an object"),
    ('{"text": "a"}', "the row has no 'label'"),
]


@pytest.mark.parametrize(("line", "part"), BAD_LINES, ids=range(len(BAD_LINES)))
def test_bad_json_lines_are_refused_with_their_line(tmp_path, line, part):
    message = refused(tmp_path / "d.jsonl", GOOD_JSON + line + "\n" + GOOD_JSON)
    assert message.startswith(f"{tmp_path / 'd.jsonl'}:31: ")
    assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(("line", "part"), [case for case in BAD_LINES if "{" in case[0]][:9])
def test_bad_objects_in_arrays_are_refused_with_their_line(tmp_path, line, part):
    rows = GOOD_JSON.strip().split("\n")
    message = refused(tmp_path / "d.json", "[" + ",\n".join([*rows, line, *rows]) + "]")
    assert f"{tmp_path / 'd.json'}:31: " in message
    assert part.partition(" Cure")[0] in message


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


def reply(content: object, **more: object) -> dict[str, object]:
    return {"role": "assistant", "content": content, **more}


IMAGE = [{"type": "image_url", "image_url": {"url": "http://x"}}]
BAD_CONVERSATIONS: list[tuple[object, str]] = [
    (None, "'messages' is null"),
    ([], "'messages' is an empty list"),
    ("hello", "'messages' is a text"),
    ({}, "'messages' is an object"),
    (["hello"], "message 1 is a text"),
    ([user("a"), {"role": "bot", "content": "b"}], "message 2: 'role' is 'bot'"),
    ([user("a"), {"role": "Assistant", "content": "b"}], "message 2: 'role' is 'Assistant'"),
    ([{"content": "a"}, reply("b")], "message 1: 'role' is missing"),
    ([user("a"), {"role": 5, "content": "b"}], "message 2: 'role' is 5"),
    ([user("a"), reply("b"), user("c")], "the last message is the user's"),
    ([user("a")], "no message is the assistant's"),
    ([user(None), reply("b")], "message 1: 'content' is null"),
    ([{"role": "user"}, reply("b")], "message 1: 'content' is missing"),
    ([user(5), reply("b")], "message 1: 'content' is a number"),
    ([user(IMAGE), reply("b")], "message 1: content parts are of type image_url"),
    ([user("a"), reply(None, tool_calls=[{"id": "1"}])], "message 2: tool call 1 is no call of a function"),
    ([user("a"), {"role": "tool", "content": "b"}], "message 2: 'tool_call_id' is missing"),
    ([user("a"), reply("b", mood="fine")], "message 2: unknown key 'mood'"),
    ([user("a"), reply("b", weight=0.5)], "message 2: 'weight' is 0.5"),
    ([user("a"), reply("b", weight=True)], "message 2: 'weight' is True"),
    ([user("a"), reply("b", weight="1")], "message 2: 'weight' is '1'"),
    ([{**user("a"), "weight": 1}, reply("b")], "message 1: 'weight' is for assistant messages only"),
    ([user("a"), reply("b", weight=0)], "weight 0, so the row teaches nothing"),
    ([user("a\0"), reply("b")], "'messages[1].content' holds a NUL character"),
]


@pytest.mark.parametrize(("messages", "part"), BAD_CONVERSATIONS, ids=range(len(BAD_CONVERSATIONS)))
def test_bad_conversations_are_refused_with_line_and_message(tmp_path, messages, part):
    good = [{"messages": [user(f"thing {n}"), reply(f"a long answer, number {n}")]} for n in range(20)]
    rows = [*good, {"messages": messages}]
    refusal = refused(tmp_path / "d.jsonl", "\n".join(map(json.dumps, rows)))
    assert refusal.startswith(f"{tmp_path / 'd.jsonl'}:21: ")
    assert part in refusal


def test_mixed_shapes_are_refused_with_counts(tmp_path):
    rows = [{"messages": []}] * 3 + [{"prompt": "a", "completion": "b"}] * 5 + [{"text": "a", "label": "b"}]
    message = refused(tmp_path / "d.jsonl", "\n".join(map(json.dumps, rows)))
    assert "5 rows of shape prompt-completion, 3 rows of shape chat, 1 row of shape table" in message


def test_all_mistakes_of_a_file_are_listed_in_the_order_of_lines(tmp_path):
    lines = [*GOOD_JSON.strip().split("\n")]
    lines[4], lines[9], lines[14] = "oops", '{"text": ["x"], "label": "a"}', '{"text": "a"}'
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError) as raised:
        read_examples(path, Columns(), "auto")
    assert [problem.where for problem in raised.value.problems] == [f"{path}:{line}" for line in (5, 10, 15)]


def test_the_first_five_mistakes_of_a_code_are_listed_and_all_are_counted(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("text,label\n" + GOOD + "one cell\n" * 250)
    with pytest.raises(InputError) as raised:
        read_examples(path, Columns(), "auto")
    assert [problem.code for problem in raised.value.problems] == ["cell-count"] * 5 + [""]
    about = "250 problems in all: 250 cell-count; the first 5 of each code are listed"
    assert raised.value.problems[-1].what == about


def test_missing_columns_are_all_named_with_the_nearest_one(tmp_path):
    content = "text,category\n" + GOOD
    message = refused(tmp_path / "d.csv", content, input="texts", output="categroy", group="who")
    assert "there is no column 'texts' for input Cure: did you mean 'text'?" in message
    assert "there is no column 'categroy' for output Cure: did you mean 'category'?" in message
    assert "there is no column 'who' for group" in message


@pytest.mark.parametrize(
    ("content", "columns", "part"),
    [
        (GOOD, {"input": "1", "output": "3"}, "there is no column 3 for output Cure: columns are 1 to 2"),
        (GOOD, {"input": "1"}, "give both input and output"),
        ("text,label\n" + GOOD, {"input": "1", "output": "2"}, "choose columns by name: text, label"),
        ("text,label\n" + GOOD, {"input": "text", "output": "text"}, "cannot be both input and output"),
    ],
)
def test_impossible_choices_of_columns_are_refused(tmp_path, content, columns, part):
    assert part in refused(tmp_path / "d.csv", content, **columns)


def test_a_header_of_many_words_is_accepted_once_it_is_named(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("What was your problem today,Team\n" + GOOD)
    with pytest.raises(InputError, match="name the columns if it is a header"):
        read_examples(path, Columns(), "auto")
    reading = read_examples(path, Columns(input="What was your problem today"), "auto")
    assert len(reading.examples) == 30
    assert reading.shape.output == "Team"


def test_ids_must_be_unique_and_given(tmp_path):
    content = "id,text,label\n1,x,a\n,y,b\n1,z,a\n" + "".join(f"n{n},t{n},{'ab'[n % 2]}\n" for n in range(30))
    message = refused(tmp_path / "d.csv", content, id="id")
    assert "d.csv:3: the id is empty" in message
    assert "d.csv:4: the id '1' is already that of line 2" in message


def test_too_few_usable_rows_say_which_were_left_out(tmp_path):
    content = "text,label\n" + "hello,\n" * 30 + "hello,a\nyou,b\n"
    message = refused(tmp_path / "d.csv", content)
    assert "2 usable rows; at least 20 needed; 30 rows of train with an empty answer" in message


def test_answers_that_all_differ_are_no_classes(tmp_path):
    content = "text,label\n" + "".join(f"thing {n},label {n}\n" for n in range(30))
    assert "all 30 answers differ" in refused(tmp_path / "d.csv", content, kind="classification")


@pytest.mark.parametrize("path", ["nowhere/d.csv", "a\0b.csv"])
def test_a_missing_file_is_named(path):
    with pytest.raises(InputError, match="check the path"):
        read_examples(Path(path), Columns(), "auto")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(InputError, match="the folder holds no data files"):
        read_examples(tmp_path, Columns(), "auto")
