"""`tuneworth data convert`: what it prints, writes and refuses."""

from __future__ import annotations

import json
import sys

import pytest

from tuneworth import cli

ROWS = "text,label\n" + "".join(f"thing number {n},{'ab'[n % 2]}\n" for n in range(10))


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["tuneworth", "data", "convert", *map(str, words)])
    try:
        cli.main()
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


def test_rows_are_written_and_what_was_recognised_is_said(tmp_path, monkeypatch, capsys):
    source, target = tmp_path / "d.csv", tmp_path / "new" / "out.jsonl"
    source.write_text(ROWS + "nothing,\n")
    assert command(monkeypatch, source, target, "--to", "chat") == 0
    said = capsys.readouterr()
    assert said.out == f"wrote 10 rows of shape chat to {target}\n"
    assert "The answer is column 'label'" in said.err
    assert "Left out: 1 row of train with an empty answer." in said.err
    first = json.loads(target.read_text().splitlines()[0])
    assert first["messages"][0] == {"role": "user", "content": "thing number 0"}


def test_json_is_one_document(tmp_path, monkeypatch, capsys):
    (tmp_path / "test.csv").write_text(ROWS)
    (tmp_path / "train.csv").write_text("text,label\n")
    assert command(monkeypatch, tmp_path, tmp_path / "o.json", "--to", "alpaca", "--part", "test", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["rows"], said["shape"], said["left_out"]) == (10, "alpaca", [])
    assert said["source"]["kind"] == "classification"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["{d}/d.csv", "{d}/o.jsonl", "--to", "chatt"], ["--to: 'chatt' is no shape", "did you mean 'chat'?"]),
        (["{d}/d.csv", "{d}/o.xml", "--to", "chat"], ["no format that can be written", "*.jsonl"]),
        (["{d}/d.csv", "{d}/d.csv", "--to", "chat"], ["exists already", "--force"]),
        (["{d}/none.csv", "{d}/o.jsonl", "--to", "chat"], ["there is no such file"]),
        (
            ["{d}/d.csv", "{d}/o.csv", "--to", "chat"],
            ["d.csv:2: chat cannot hold lists in a CSV file", "10 cannot-hold"],
        ),
        (["{d}/d.csv", "{d}/o.jsonl", "--to", "chat", "--part", "tset"], ["--part", "did you mean 'test'?"]),
        (["{d}", "{d}/o.jsonl", "--to", "chat", "--part", "test"], ["there are no test files", "--part"]),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(tmp_path, monkeypatch, capsys, words, parts):
    (tmp_path / "d.csv").write_text(ROWS)
    before = sorted(tmp_path.iterdir())
    code = command(monkeypatch, *(word.format(d=tmp_path) for word in words))
    told = capsys.readouterr().err
    assert code == 2
    assert "Traceback" not in told
    for part in parts:
        assert part in told
    assert sorted(tmp_path.iterdir()) == before
