"""The audit of files gives what the audit of rows in memory gives, however the files are cut into jobs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data.test_audit_findings import clean_rows
from tuneworth.data import Audit, audit, audit_files, open_source, read_examples
from tuneworth.data.facts import Inspection, facts_of, joined
from tuneworth.data.files import inspect, read_lines
from tuneworth.data.stacking import itself
from tuneworth.errors import InputError
from tuneworth.task import Columns

LONG = "could you please tell me when the parcel that i ordered last week will arrive at my house"


def write_chats(path: Path, seed: str, extra: list[tuple[str, str]]) -> Path:
    pairs = [*((e.text, f"This is about {e.text}.") for e in clean_rows(150, seed)), *extra]
    rows = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]}
        for text, answer in pairs
    ]
    path.write_text("\n\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.fixture
def chats(tmp_path: Path) -> tuple[Path, Path]:
    first = clean_rows(150, "train")
    train = [
        (first[3].text, "x"),
        (LONG, "On Monday."),
        (LONG + " now", "I do not know."),
        ("mail a.b@example.org", "ok"),
    ]
    return write_chats(tmp_path / "train.jsonl", "train", train), write_chats(
        tmp_path / "test.jsonl", "test", [(first[5].text, "y"), (LONG.replace("parcel", "packet"), "Soon.")]
    )


def in_memory(train: Path, test: Path) -> Audit:
    first = read_examples(train, Columns(), "auto")
    second = read_examples(test, first.shape.columns, first.shape.kind, "test")
    return audit(first.examples, [], second.examples, kind=first.shape.kind)


def in_files(train: Path, test: Path, workers: int) -> Audit:
    first = open_source(train, Columns(), "auto")
    return audit_files(
        {"train": first, "test": open_source(test, first.shape.columns, first.shape.kind)}, workers=workers
    )


def test_files_in_many_jobs_give_the_audit_of_rows_in_memory(chats, monkeypatch):
    whole = in_memory(*chats).to_json()
    monkeypatch.setattr("tuneworth.data.streaming.PIECE", 3000)
    assert len(open_source(chats[0], Columns(), "auto").jobs) > 5
    assert in_files(*chats, workers=1).to_json() == whole
    codes = [finding["code"] for finding in whole["findings"]]
    assert {"leak-exact", "leak-near", "duplicate-exact", "duplicate-near", "pii-email"} <= set(codes)


def test_worker_processes_give_the_same_audit(chats, monkeypatch):
    monkeypatch.setattr("tuneworth.data.streaming.PIECE", 3000)
    assert in_files(*chats, workers=2).to_json() == in_files(*chats, workers=1).to_json()


def test_a_row_is_read_again_by_its_line_in_every_format(chats, tmp_path, monkeypatch):
    monkeypatch.setattr("tuneworth.data.streaming.PIECE", 3000)
    table = tmp_path / "table.csv"
    table.write_text("text,label\n" + "".join(f'"one\n{n} two",{n % 2}\n' for n in range(400)))
    for path in (chats[0], table):
        for job in open_source(path, Columns(), "auto").jobs:
            examples = job.read().examples
            lines = np.array([example.line for example in examples[::3]], np.uint32)
            assert read_lines(job, lines, at=itself) == list(examples[::3])


def test_facts_do_not_depend_on_the_batch_they_are_made_in():
    rows = clean_rows(60)
    inspection = Inspection("classification")
    whole, cut = facts_of(rows, inspection), joined([facts_of(rows[:17], inspection), facts_of(rows[17:], inspection)])
    assert whole.labels == cut.labels
    assert (whole.signatures == cut.signatures).all()
    for name in ("inputs", "answers", "groups", "sizes", "answer_sizes", "text_sizes", "marks", "lines"):
        assert (getattr(whole, name) == getattr(cut, name)).all()


def test_facts_of_a_row_take_less_than_two_hundred_bytes():
    facts = facts_of(clean_rows(100), Inspection("generation"))
    columns = [getattr(facts, name) for name in facts.__slots__ if name != "labels"]
    assert sum(column.nbytes for column in columns) < 200 * 100


def test_malformed_rows_of_any_job_are_told_with_their_lines(chats, monkeypatch):
    monkeypatch.setattr("tuneworth.data.streaming.PIECE", 3000)
    train, test = chats
    lines = train.read_text().splitlines()
    lines[250] = '{"messages": []}'
    train.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"train\.jsonl:251"):
        in_files(train, test, workers=1)


def test_workers_hand_back_facts_and_not_rows(chats):
    (job,) = open_source(chats[0], Columns(), "auto").jobs
    found = inspect(job, Inspection("generation"))
    assert len(found.facts) == 154
    assert found.rest.examples == ()
