"""A file of real requests: one text a row, in any of the formats, and what is wrong with it otherwise."""

from __future__ import annotations

from pathlib import Path

import polars
import pytest

from tuneworth.data.requests import read_requests
from tuneworth.errors import InputError


def texts(path: Path, column: str | None = None) -> list[tuple[int, str]]:
    return [(request.line, request.text) for request in read_requests(path, column)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'text\n"one, two"\nthree\n'),
        ("a.tsv", "text\tday\none, two\t1\nthree\t2\n"),
        ("a.csv", 'id,question\n1,"one, two"\n2,three\n'),
        ("a.jsonl", '{"prompt": "one, two"}\n{"prompt": "three"}\n'),
        ("a.jsonl", '{"messages": [{"role": "user", "content": "one, two"}]}\n'
                    '{"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": "three"}]}\n'),
    ],
)  # fmt: skip
def test_the_column_of_texts_is_recognised(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert [text for _, text in texts(tmp_path / name)] == ["one, two", "three"]


def test_the_column_of_the_training_file_comes_first(tmp_path):
    (tmp_path / "a.csv").write_text("body,text\none,two\n")
    assert texts(tmp_path / "a.csv", "body") == [(2, "one")]


def test_parquet_is_read_and_rows_without_a_text_are_left_out(tmp_path):
    polars.DataFrame({"text": ["one", None, " ", "two"]}).write_parquet(tmp_path / "a.parquet")
    assert [text for _, text in texts(tmp_path / "a.parquet")] == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("day,name\n1,x\n", "'day', 'name'"),
        ("text,body\n1,x\n", "'text', 'body'"),
        ("text\n\n", "no row holds a request"),
        ("text\na,b\n", ":2"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_requests(tmp_path / "a.csv", None)


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_requests(tmp_path / "none.csv", None)
