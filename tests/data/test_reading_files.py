"""Reading: every supported format and shape gives the same examples, with exact lines and stable ids."""

from __future__ import annotations

import json
import time
from pathlib import Path

import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneworth.data import Example, Reading, content_id, read_examples
from tuneworth.errors import InputError
from tuneworth.task import Columns

AUTO = Columns()
PAIRS = [(f"where is my parcel number {n}", "shipping") for n in range(15)]
PAIRS += [(f"please pay back order {n}", "refund") for n in range(15)]


def read(path: Path, **columns: str) -> Reading:
    return read_examples(path, Columns(**columns), "auto")


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def csv_text(pairs: list[tuple[str, str]], header: str = "text,label") -> str:
    return header + "\n" + "".join(f"{text},{label}\n" for text, label in pairs)


def pairs_of(reading: Reading) -> list[tuple[str, str]]:
    return [(example.text, example.answer) for example in reading.examples]


def as_csv(path: Path) -> Path:
    return write(path / "d.csv", csv_text(PAIRS))


def as_tsv(path: Path) -> Path:
    return write(path / "d.tsv", csv_text(PAIRS).replace(",", "\t"))


def as_semicolons(path: Path) -> Path:
    return write(path / "d.csv", csv_text(PAIRS).replace(",", ";"))


def as_json_lines(path: Path) -> Path:
    return write(path / "d.jsonl", "".join(json.dumps({"text": t, "label": a}) + "\n" for t, a in PAIRS))


def as_json(path: Path) -> Path:
    return write(path / "d.json", json.dumps([{"text": t, "label": a} for t, a in PAIRS], indent=1))


def as_json_lines_called_json(path: Path) -> Path:
    return as_json_lines(path).rename(path / "d.json")


def as_parquet(path: Path) -> Path:
    polars.DataFrame(PAIRS, schema=["text", "label"], orient="row").write_parquet(path / "d.parquet")
    return path / "d.parquet"


def as_prompt_completion(path: Path) -> Path:
    rows = (json.dumps({"prompt": t, "completion": a}) + "\n" for t, a in PAIRS)
    return write(path / "d.jsonl", "".join(rows))


def as_chat(path: Path) -> Path:
    rows = ([{"role": "user", "content": t}, {"role": "assistant", "content": a}] for t, a in PAIRS)
    return write(path / "d.jsonl", "".join(json.dumps({"messages": row}) + "\n" for row in rows))


def as_chat_in_parquet(path: Path) -> Path:
    rows = [[{"role": "user", "content": t}, {"role": "assistant", "content": a}] for t, a in PAIRS]
    polars.DataFrame({"messages": rows}).write_parquet(path / "d.parquet")
    return path / "d.parquet"


def as_windows_csv(path: Path) -> Path:
    return write(path / "d.csv", "\ufeff" + csv_text(PAIRS).replace("\n", "\r\n"))


WRITERS = [
    as_csv, as_tsv, as_semicolons, as_json_lines, as_json, as_json_lines_called_json, as_parquet,
    as_prompt_completion, as_chat, as_chat_in_parquet, as_windows_csv,
]  # fmt: skip


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_every_format_gives_the_same_examples_and_ids(writer, tmp_path):
    reading = read(writer(tmp_path))
    assert pairs_of(reading) == PAIRS
    assert [example.id for example in reading.examples] == [content_id(*pair) for pair in PAIRS]
    assert reading.shape.kind == "classification"
    assert reading.dropped == ()
    assert all(sentence.endswith(".") and sentence[0].isupper() for sentence in reading.shape.why)


def test_lines_are_the_editors_also_after_cells_with_line_breaks_and_blank_lines(tmp_path):
    rows = ['"two\nlines, and\u2028a separator",a', "", "plain,b", '"say ""hi"" \r\nthere\n",a', "last,b"]
    path = write(tmp_path / "d.csv", "\n".join(["text,label", *rows, csv_text(PAIRS).split("\n", 1)[1]]))
    examples = read(path).examples
    assert [example.line for example in examples[:5]] == [2, 5, 6, 9, 10]
    assert examples[0].text == "two\nlines, and\u2028a separator"
    assert examples[2].text == 'say "hi" \r\nthere\n'
    assert "1 blank line was skipped." in read(path).shape.why


def test_lines_of_a_pretty_printed_array_are_where_objects_begin(tmp_path):
    path = as_json(tmp_path)
    lines = path.read_text().split("\n")
    for example in read(path).examples:
        assert lines[example.line - 1].strip() == "{"
        assert example.text in lines[example.line]


def test_json_lines_end_at_line_feeds_only(tmp_path):
    odd = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg"
    rows = [json.dumps({"text": f"{odd}{n}", "label": "xy"[n % 2]}, ensure_ascii=False) for n in range(30)]
    rows = [row.replace("\x0b", "").replace("\x0c", "").replace("\x1c", "") for row in rows]
    reading = read(write(tmp_path / "d.jsonl", "\n".join(rows)))
    assert len(reading.examples) == 30
    assert [example.line for example in reading.examples] == list(range(1, 31))
    assert "\u2028" in reading.examples[0].text


def test_texts_are_never_changed(tmp_path):
    odd = [
        "  leading",
        "e\u0301 NFD \u00e9 NFC",
        "\U0001f468\u200d\U0001f469 ZWJ",
        "=cmd|x",
        "<|im_end|>",
        "\u202eRTL",
    ]
    rows = [{"question": text, "answer": f" long answer {n} with a leading space"} for n, text in enumerate(odd * 5)]
    examples = read(write(tmp_path / "d.jsonl", "\n".join(map(json.dumps, rows)))).examples
    assert [example.text for example in examples] == odd * 5
    assert examples[0].answer == " long answer 0 with a leading space"


def test_a_file_without_header_is_read_by_column_number(tmp_path):
    path = write(tmp_path / "d.csv", csv_text(PAIRS).split("\n", 1)[1])
    reading = read(path, input="1", output="2")
    assert pairs_of(reading) == PAIRS
    assert reading.examples[0].line == 1
    assert reading.shape.columns == Columns(input="1", output="2", group=None, id=None)
    again = read_examples(path, reading.shape.columns, reading.shape.kind, role="test")
    assert again.examples == reading.examples


@pytest.mark.parametrize(
    ("header", "rows", "expected"),
    [
        ("v1,v2", [(a, t) for t, a in PAIRS], ("v2", "v1")),
        ("kundentext,klasse", PAIRS, ("kundentext", "klasse")),
        ("Utterance,Intent", PAIRS, ("Utterance", "Intent")),
        ("question,stuff", PAIRS, ("question", "stuff")),
    ],
)
def test_columns_are_recognised_by_name_or_content(tmp_path, header, rows, expected):
    shape = read(write(tmp_path / "d.csv", csv_text(rows, header))).shape
    assert (shape.input, shape.output) == expected
    assert f"The input is column '{expected[0]}'" in shape.why[0]


def test_an_index_column_and_an_empty_column_are_not_candidates(tmp_path):
    rows = "".join(f"{n},{t},,{a}\n" for n, (t, a) in enumerate(PAIRS))
    shape = read(write(tmp_path / "d.csv", ",text,prompt,label\n" + rows)).shape
    assert (shape.input, shape.output) == ("text", "label")
    assert "Columns that are not used: '', 'prompt'." in shape.why


def test_given_columns_win_over_recognised_ones(tmp_path):
    rows = "".join(f"{t},{a},{'yes' if n % 3 else 'no'}\n" for n, (t, a) in enumerate(PAIRS))
    reading = read(write(tmp_path / "d.csv", "text,label,urgent\n" + rows), output="urgent")
    assert reading.shape.output == "urgent"
    assert {example.answer for example in reading.examples} == {"yes", "no"}


def test_id_and_group_columns_are_kept(tmp_path):
    rows = "".join(f"r{n},{t},{a},g{n % 4}\n" for n, (t, a) in enumerate(PAIRS))
    examples = read(write(tmp_path / "d.csv", "key,text,label,who\n" + rows), id="key", group="who").examples
    assert [example.id for example in examples[:2]] == ["r0", "r1"]
    assert examples[5].group == "g1"


def test_ids_are_unique_and_stay_when_rows_are_appended(tmp_path):
    path = write(tmp_path / "d.csv", csv_text(PAIRS + PAIRS[:3]))
    before = [example.id for example in read(path).examples]
    assert len(set(before)) == len(before)
    assert before[len(PAIRS)] == before[0] + "-2"
    write(path, csv_text(PAIRS + PAIRS[:3] + PAIRS[:5]))
    assert [example.id for example in read(path).examples][: len(before)] == before


def test_empty_inputs_and_answers_are_left_out_and_named(tmp_path):
    rows = [*PAIRS[:4], ("", "refund"), ("   ", "refund"), ("no answer", ""), *PAIRS[4:]]
    reading = read(write(tmp_path / "d.csv", csv_text(rows)))
    assert pairs_of(reading) == PAIRS
    assert [(f.code, f.count, [r.line for r in f.rows]) for f in reading.dropped] == [
        ("empty-input", 2, [6, 7]),
        ("empty-answer", 1, [8]),
    ]


def test_null_numbers_and_truth_values_are_read_as_written(tmp_path):
    rows = [{"text": f"row number {n}", "label": n % 2 == 0} for n in range(20)] + [{"text": "x", "label": None}]
    reading = read(write(tmp_path / "d.jsonl", "\n".join(map(json.dumps, rows))))
    assert {example.answer for example in reading.examples} == {"true", "false"}
    assert reading.dropped[0].code == "empty-answer"


def test_conversations_keep_system_and_earlier_turns_and_join_text_parts(tmp_path):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": " there"}]},
        {"role": "assistant", "content": "Hello", "weight": 0, "name": "bot", "tool_calls": None},
        {"role": "user", "content": "Tell me more about it"},
    ]
    rows = [[*messages, {"role": "assistant", "content": f"A long story, number {n}."}] for n in range(20)]
    reading = read(write(tmp_path / "d.jsonl", "\n".join(json.dumps({"messages": row}) for row in rows)))
    first = reading.examples[0]
    assert [(m.role, m.content) for m in first.messages] == [
        ("system", "Be brief."),
        ("user", "Hi there"),
        ("assistant", "Hello"),
        ("user", "Tell me more about it"),
    ]
    assert first.answer == "A long story, number 0."
    assert first.text == "Tell me more about it"
    assert (reading.shape.rows, reading.shape.kind) == ("chat", "chat")
    assert first.messages[2].weight == 0


def test_quotes_that_enclose_no_cell_are_plain_characters_in_tsv(tmp_path):
    rows = [('"Hello" she said', "a"), ('"open', "b"), ('never closed"', "a"), *PAIRS]
    path = write(tmp_path / "d.tsv", csv_text(rows).replace(",", "\t"))
    assert pairs_of(read(path))[:3] == rows[:3]


def test_quotes_in_different_rows_of_tsv_do_not_swallow_the_rows_between(tmp_path):
    rows = [('"starts here', "a"), ("between", "b"), ('ends here"', "a"), *PAIRS]
    path = write(tmp_path / "d.tsv", csv_text([(a, t) for t, a in rows], "label,text").replace(",", "\t"))
    assert pairs_of(read(path)) == rows


def test_quoted_cells_with_tabs_and_breaks_are_read_in_tsv(tmp_path):
    quoted = '"a ""b""\tc\td\ne"\tshipping\n' + csv_text(PAIRS).split("\n", 1)[1].replace(",", "\t")
    examples = read(write(tmp_path / "d.tsv", "text\tlabel\n" + quoted)).examples
    assert examples[0].text == 'a "b"\tc\td\ne'
    assert [example.line for example in examples[:2]] == [2, 4]


def test_a_cell_of_a_megabyte_is_read(tmp_path):
    path = write(tmp_path / "d.csv", csv_text([("x" * 1_000_000, "refund"), *PAIRS]))
    assert len(read(path).examples[0].text) == 1_000_000


@pytest.mark.parametrize(
    ("answers", "name", "kind"),
    [
        (["yes", "no"] * 10, "output", "classification"),
        ([f"class {n % 8}" for n in range(20)], "label", "classification"),
        ([f"class {n % 8}" for n in range(20)], "output", "generation"),
        ([f"class {n % 250}" for n in range(2500)], "output", "generation"),
        ([f"class {n % 250}" for n in range(2500)], "intent", "classification"),
        (["a long answer " * 10, "another long answer " * 10] * 10, "label", "generation"),
        ([f"answer {n}" for n in range(20)], "output", "generation"),
    ],
)
def test_kind_is_recognised_from_the_answers(tmp_path, answers, name, kind):
    rows = [(f"text number {n}", answer) for n, answer in enumerate(answers)]
    reading = read(write(tmp_path / "d.csv", csv_text(rows, f"text,{name}")))
    assert reading.shape.kind == kind
    assert reading.shape.why[-1].startswith(f"The kind is {kind}")


def test_a_chosen_kind_is_kept(tmp_path):
    assert read_examples(as_csv(tmp_path), AUTO, "generation").shape.kind == "generation"


def test_a_test_file_may_be_small_and_of_one_class(tmp_path):
    path = write(tmp_path / "d.csv", csv_text(PAIRS[:2]))
    reading = read_examples(path, Columns(input="text", output="label"), "classification", role="test")
    assert len(reading.examples) == 2


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=20, max_size=40))
def test_any_text_survives_csv_json_lines_and_arrays(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("any")
    kept = [(t, a) for t, a in pairs if t.strip() and a.strip()]
    quoted = "".join('"{}","{}"\n'.format(t.replace('"', '""'), a.replace('"', '""')) for t, a in pairs)
    rows = [{"text": t, "answer": a} for t, a in pairs]
    paths = [
        write(folder / "d.csv", "text,answer\n" + quoted),
        write(folder / "d.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)),
        write(folder / "d.json", json.dumps(rows)),
    ]
    for path in paths:
        if len(kept) < 20:
            with pytest.raises(InputError, match="at least 20"):
                read_examples(path, AUTO, "generation")
        else:
            assert pairs_of(read_examples(path, AUTO, "generation")) == kept


def test_ten_thousand_rows_are_read_in_well_under_a_second(shared_data):
    def seconds() -> float:
        start = time.process_time()  # other processes on the machine do not count
        read(shared_data / "banking77" / "train.csv")
        return time.process_time() - start

    assert min(seconds() for _ in range(3)) < 1.0


@pytest.mark.parametrize(
    ("file", "columns", "rows", "kind", "last_line"),
    [
        ("banking77/train.csv", {}, 10003, "classification", 10017),
        ("banking77/test.csv", {}, 3080, "classification", 3085),
        ("sms_spam/sms.tsv", {"input": "2", "output": "1"}, 5574, "classification", 5574),
        ("gsm8k/train.jsonl", {}, 7473, "reasoning", 7473),
        ("gsm8k/test.jsonl", {}, 1319, "reasoning", 1319),
        ("openbookqa/train.json", {"input": "instruction", "output": "answer"}, 4957, "classification", None),
        ("openbookqa/test.json", {"input": "instruction", "output": "output"}, 500, "classification", None),
        ("openbookqa/test.json", {"output": "answer"}, 500, "classification", None),
        ("scitldr/train.jsonl", {}, 1992, "generation", 1992),
        ("scitldr/test.jsonl", {}, 618, "generation", 618),
        ("glaive_toolcall_demo/glaive_toolcall_en_demo.json", {}, 300, "tools", None),
        ("snips_nlu/GetWeather/train_GetWeather.json", {}, 300, "extraction", None),
    ],
)
def test_the_shared_data_sets_are_read(shared_data, file, columns, rows, kind, last_line):
    reading = read(shared_data / file, **columns)
    assert len(reading.examples) == rows
    assert reading.shape.kind == kind
    assert reading.dropped == ()
    assert last_line in (None, reading.examples[-1].line)
    assert len({example.id for example in reading.examples}) == rows


@pytest.mark.parametrize(
    ("file", "parts"),
    [
        (
            "sms_spam/sms.tsv",
            ["sms.tsv:1: there is no header", "'ham' is also a value", "--input 2 --output 1"],
        ),
        ("openbookqa/train.json", ["'output' or 'answer' could be it", "--output NAME", "'instruction'"]),
        ("glaive_toolcall_demo/glaive_toolcall_zh_demo.json", ["json:5819: message 3", "json:8763: message 3"]),
        ("snips_nlu/PlayMusic/train_PlayMusic_full.json", ["json:9091: byte 0xed at offset 150732", "UTF-8"]),
        ("snips_nlu/slotgated_split/test/label", ["no format recognised"]),
        ("banking77/categories.json", ["categories.json:2: a row is an object, this is a text"]),
    ],
)
def test_shared_files_of_other_shapes_are_refused_with_a_cure(shared_data, file, parts):
    with pytest.raises(InputError) as raised:
        read(shared_data / file)
    for part in parts:
        assert part in str(raised.value)


def test_examples_survive_json(tmp_path):
    for example in read(as_chat(tmp_path)).examples:
        assert Example.from_json(json.loads(json.dumps(example.to_json()))) == example
