"""A data set that is too large to be held is audited piece by piece, with the result that a small one gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import command
from data.test_audit_findings import clean_rows
from tiny import tiny_model, write_tokenizer
from tuneworth.pipeline import auditing
from tuneworth.store.atomic import read_json


def test_large_data_gets_the_same_audit_and_is_not_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_model().float().save_pretrained(tmp_path / "model")
    write_tokenizer(tmp_path / "model")
    rows = [*clean_rows(120), *clean_rows(2)]
    table = tmp_path / "train.csv"
    table.write_text("text,label\n" + "".join(f"{row.text},{row.answer}\n" for row in rows))
    words = ["audit", table, "--model", tmp_path / "model", "--out"]
    assert command(*words, tmp_path / "small") == 0
    monkeypatch.setattr(auditing, "LARGE", 0)
    monkeypatch.setattr("tuneworth.data.streaming.PIECE", 1000)
    assert command(*words, tmp_path / "large") == 0
    small, large = (read_json(tmp_path / name / "audit.json") for name in ("small", "large"))
    assert "duplicate-exact" in [finding["code"] for finding in small["findings"]]
    # The id of a repeated row is that of the first where rows are not held.
    for document in (small, large):
        for finding in document["findings"]:
            finding["rows"] = [(row["file"], row["line"]) for row in finding["rows"]]
    assert large == small
    assert (tmp_path / "small" / "splits").is_dir()
    assert not (tmp_path / "large" / "splits").exists()
