"""Folders of files, compressed files, pieces of large files: the same rows as from one plain small file."""

from __future__ import annotations

import gc
import gzip
import json
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars
import pytest
import zstandard
from hypothesis import assume, given
from hypothesis import strategies as st

from tuneworth.data import Job, Reading, collect, open_source, read_examples, unpacking
from tuneworth.data.folders import find_files
from tuneworth.errors import InputError
from tuneworth.task import Columns, is_hub_id

ROWS = [{"text": f"thing number {n}, it is fine", "label": "ab"[n % 2]} for n in range(40)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def read(path: Path, role: str = "train", **columns: str) -> Reading:
    return read_examples(path, Columns(**columns), "auto", role)  # type: ignore[arg-type]


def texts(reading: Reading) -> list[str]:
    return [example.text for example in reading.examples]


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


FIRST, SECOND = LINES[: len(LINES) // 2], LINES[len(LINES) // 2 :]
HALVES = {"a.jsonl": b"\n".join(LINES.splitlines()[:20]), "b.jsonl": b"\n".join(LINES.splitlines()[20:])}


@pytest.mark.parametrize(
    "files",
    [
        {"train.jsonl": LINES, "test.jsonl": LINES, "README.md": b"# a data set", "categories.json": b"[1]"},
        {"data/train-00000-of-00001.jsonl": LINES, "data/validation-00000-of-00001.jsonl": LINES},
        {"default/train/0000.jsonl": LINES, "default/test/0000.jsonl": LINES},
        {"my_train_set.jsonl": LINES, "my-dev-set.jsonl": LINES, "eval.jsonl": LINES},
        {f"train-0000{n}.jsonl": content for n, content in enumerate(HALVES.values())},
        HALVES,
        {"train.jsonl.gz": gzip.compress(LINES), "README.md": b"---\nlicense: mit\n---\n"},
        {
            "README.md": b"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n"
            b"    path: x/*.jsonl\n  - split: test\n    path: [y.jsonl, ../secret.jsonl, /etc/passwd]\n---\nAbout.",
            "x/one.jsonl": LINES,
            "y.jsonl": LINES,
            "train-not-this.jsonl": b"{}",
        },
    ],
    ids=["names", "hub", "folders", "words", "shards", "no splits", "packed", "README"],
)
def test_the_files_of_a_folder_are_found_by_split(tmp_path, files):
    reading = read(put(tmp_path, files))
    assert texts(reading) == [row["text"] for row in ROWS]
    assert len({example.id for example in reading.examples}) == len(ROWS)
    found = find_files(tmp_path)
    everything = [file for part in found.parts.values() for file in part]
    assert len(set(everything)) == len(everything)
    assert all(tmp_path in file.parents for file in everything)


def test_what_was_taken_for_which_split_is_told(tmp_path):
    why = " ".join(read(put(tmp_path, {"train.jsonl": LINES, "dev.jsonl": LINES, "labels.json": b"[]"})).shape.why)
    assert "Train: train.jsonl." in why
    assert "Validation: dev.jsonl." in why
    assert "Not read, since the name says no split: labels.json." in why


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        ({"notes.md": b"hello"}, ["no data files", "*.jsonl"]),
        ({"data-00000-of-00001.arrow": b"x", "state.json": b"{}"}, ["Arrow files", "to_parquet"]),
        ({"a.csv": b"text,label\na,b\n", "b.jsonl": LINES}, ["several formats", "a.csv is CSV", "b.jsonl"]),
        (
            {"README.md": b"---\nconfigs: [{config_name: en, data_files: a}, {config_name: de, data_files: b}]\n---\n"},
            ["several data sets: en, de"],
        ),
    ],
)  # fmt: skip
def test_folders_that_cannot_be_read_say_why(tmp_path, files, parts):
    with pytest.raises(InputError) as raised:
        read(put(tmp_path, files))
    for part in parts:
        assert part in str(raised.value)


def test_problems_in_several_files_name_their_file(tmp_path):
    put(tmp_path, {"train-1.jsonl": LINES + b"oops\n", "train-2.jsonl": b"[]\n" + LINES})
    with pytest.raises(InputError) as raised:
        read(tmp_path)
    assert [problem.where for problem in raised.value.problems] == [
        f"{tmp_path / 'train-1.jsonl'}:41",
        f"{tmp_path / 'train-2.jsonl'}:1",
    ]


def test_lines_that_belong_together_are_read_from_three_files(tmp_path):
    put(tmp_path, {"seq.in": b"play jazz\nrain in new york\n" * 10, "label": b"Play\nWeather\n" * 10})
    assert (read(tmp_path).examples[1].text, read(tmp_path).examples[1].answer) == ("rain in new york", "Weather")
    put(tmp_path, {"seq.out": b"O B-genre \nO O B-city I-city\n" * 10})
    assert read(tmp_path).examples[1].answer == '{"intent":"Weather","slots":{"city":"new york"}}'
    put(tmp_path, {"label": b"Play\n"})
    with pytest.raises(InputError, match=r"seq\.in 20, seq\.out 20, label 1"):
        read(tmp_path)


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("d.jsonl.gz", gzip.compress(LINES)),
        ("d.jsonl.gz", gzip.compress(FIRST) + gzip.compress(SECOND)),
        ("d.jsonl.zst", zstd(LINES)),
        ("d.jsonl.zst", zstd(FIRST) + zstd(SECOND)),
        ("d.JSONL.GZ", gzip.compress(LINES)),
    ],
)
def test_compressed_files_are_read_like_plain_ones(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    reading = read(path)
    assert texts(reading) == [row["text"] for row in ROWS]
    assert {example.file for example in reading.examples} == {str(path)}


@pytest.mark.parametrize(
    ("name", "data", "part"),
    [
        ("d.jsonl.gz", gzip.compress(LINES)[:-9], "breaks off"),
        ("d.jsonl.zst", zstd(LINES)[:-9], "breaks off"),
        ("d.jsonl.gz", LINES, "damaged, or not compressed"),
        ("d.jsonl.zst", LINES, "damaged, or not compressed"),
        ("d.jsonl.gz", gzip.compress(LINES)[:-9] + b"\0" * 9, "damaged"),
    ],
)
def test_damaged_compressed_files_are_refused(tmp_path, name, data, part):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=part) as raised:
        read(path)
    assert raised.value.problems[0].code == "unpacking"


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(unpacking, "FREE_BYTES", 1 << 20)
    path = tmp_path / ("bomb.jsonl.gz" if pack is gzip.compress else "bomb.jsonl.zst")
    path.write_bytes(pack(b"\n" * (100 << 20)))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="unpacks to more than"):
            unpacking.unpack(path, scratch)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert list(scratch.iterdir()) == []
    assert peak < 50 << 20  # of the 100 MiB


def test_unpacked_copies_go_with_their_source(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = tmp_path / "d.jsonl.gz"
    path.write_bytes(gzip.compress(LINES))
    source = open_source(path, Columns(), "auto")
    assert len(list(tmp_path.iterdir())) == 2
    assert len(source.jobs[0].read().examples) == 40
    del source
    gc.collect()
    assert list(tmp_path.iterdir()) == [path]


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters='\n\r\t"'), max_size=30)


def as_csv(rows: list[tuple[str, str]]) -> bytes:
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    return ("text,label\n" + "".join(f"{cell(t)},{cell(a)}\n" for t, a in rows)).encode()


def as_lines(rows: list[tuple[str, str]]) -> bytes:
    return "\n\n".join(json.dumps({"text": t, "label": a}, ensure_ascii=False) for t, a in rows).encode()


@given(
    st.lists(st.tuples(TEXT, TEXT), min_size=30, max_size=60),
    st.sampled_from(["csv", "jsonl", "tsv"]),
    st.integers(1, 300),
)
def test_a_file_in_pieces_gives_what_it_gives_whole(tmp_path_factory, rows, ending, size):
    assume(any(cell.strip() for row in rows for cell in row))
    path = tmp_path_factory.mktemp("pieces") / f"d.{ending}"
    if ending == "tsv":
        rows = [(" ".join(t.replace('"', "").split()), " ".join(a.replace('"', "").split())) for t, a in rows]
        path.write_bytes(("text\tlabel\n" + "".join(f"{t}\t{a}\n" for t, a in rows)).encode())
    else:
        path.write_bytes(as_csv(rows) if ending == "csv" else as_lines(rows))
    columns = Columns(input="text", output="label")
    whole = next(open_source(path, columns, "generation").batches())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tuneworth.data.streaming.PIECE", size)
        try:
            source = open_source(path, columns, "generation")
        except InputError as error:  # a first piece that is smaller than the header and a row
            assert "no rows" in str(error)
            return
        pieces = list(source.batches())
        again = [pickle.loads(pickle.dumps(job)).read() for job in source.jobs]  # noqa: S301 (our own records)
    assert [example for batch in pieces for example in batch.examples] == list(whole.examples)
    assert [ref for batch in pieces for ref in batch.left_out] == list(whole.left_out)
    assert [batch.examples for batch in again] == [batch.examples for batch in pieces]
    assert [job.piece.start for job in source.jobs[1:]] == [job.piece.end for job in source.jobs[:-1]]


def test_a_table_is_cut_between_records(tmp_path, monkeypatch):
    path = tmp_path / "d.csv"
    path.write_bytes(as_csv([(f'line {n}\nand "so" on\n\n', "ab"[n % 2]) for n in range(40)]))
    expected = read(path)
    monkeypatch.setattr("tuneworth.data.streaming.PIECE", 100)
    source = open_source(path, Columns(), "auto")
    assert len(source.jobs) > 8
    assert collect(source, source.batches()).examples == expected.examples


def test_jobs_read_in_any_order_and_collected_are_the_reading(tmp_path, monkeypatch):
    path = tmp_path / "d.jsonl"
    path.write_bytes(LINES + b"\n".join(LINES.splitlines()[:3]))
    expected = read(path)
    monkeypatch.setattr("tuneworth.data.streaming.PIECE", 500)
    source = open_source(path, Columns(), "auto")
    assert len(source.jobs) > 5
    with ThreadPoolExecutor(2) as pool:
        reading = collect(source, pool.map(Job.read, source.jobs))
    assert (reading.examples, reading.shape.kind) == (expected.examples, expected.shape.kind)
    assert (
        reading.shape.why[0] == f"The shape was recognised from the first {len(source.jobs[0].read().examples)} rows."
    )


def test_parquet_is_read_in_slices_with_row_numbers(tmp_path, monkeypatch):
    path = tmp_path / "d.parquet"
    polars.DataFrame(ROWS).write_parquet(path)
    monkeypatch.setattr("tuneworth.data.streaming.PIECE", 1000)
    source = open_source(path, Columns(), "auto")
    assert len(source.jobs) > 3
    reading = collect(source, source.batches())
    assert texts(reading) == [row["text"] for row in ROWS]
    assert [example.line for example in reading.examples] == list(range(1, 41))


def test_problems_of_later_pieces_have_the_right_lines_and_bytes(tmp_path, monkeypatch):
    path = tmp_path / "d.jsonl"
    path.write_bytes(LINES + b"\n\xff\n" + LINES + b"[1]")
    monkeypatch.setattr("tuneworth.data.streaming.PIECE", 300)
    problems = [p for batch in open_source(path, Columns(), "auto").batches() for p in batch.problems]
    assert [(p.line, p.code, p.byte) for p in problems] == [
        (42, "invalid-utf8", len(LINES) + 1),
        (83, "row-not-object", None),
    ]


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("owner/name", True),
        ("owner/name@main", True),
        ("hf://datasets/owner/name-1.5@main", True),
        ("owner/name.csv", False),
        ("name", False),
        ("../owner/name", False),
        ("a/b/c", False),
    ],
)
def test_ids_of_the_hub_are_told_from_paths(name, is_one):
    assert is_hub_id(name) is is_one
