"""The embedded example: what was planted is found, and its files are what its README says."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

from tuneworth.data import audit, clean, read_examples
from tuneworth.task import Columns, load_task

FOLDER = Path(__file__).parent.parent / "examples" / "support_tickets"


def test_every_planted_leak_duplicate_contradiction_and_secret_is_found_and_nothing_else() -> None:
    flaws = json.loads((FOLDER / "flaws.json").read_text("utf-8"))["flaws"]
    train = read_examples(FOLDER / "train.csv", Columns(), "auto")
    test = read_examples(FOLDER / "test.csv", train.shape.columns, train.shape.kind, "test")
    found = audit(train.examples, (), test.examples, kind=train.shape.kind)

    def planted(code: str) -> set[int]:
        return {flaw["line"] for flaw in flaws if flaw["code"] == code}

    texts = {(e.text, e.line) for e in train.examples}
    repeated = {line for finding in found.findings if finding.code == "duplicate-exact" for line in lines(finding)}
    again = [flaw for flaw in flaws if flaw["code"] in ("duplicate-exact", "contradiction")]
    for flaw in again:  # the planted row or the one that it repeats: whichever comes later in the file
        pair = {line for text, line in texts if text in (flaw["text"], flaw.get("of"))} | {flaw["line"]}
        assert pair & repeated
    assert found.count("duplicate-exact") == len(again)
    assert found.count("leak-exact") == len(planted("leak-exact")) == 7
    assert found.count("contradiction") == 3
    assert {line for finding in found.findings if finding.code == "pii-email" for line in lines(finding)} == planted(
        "pii-email"
    )
    assert {line for finding in found.findings if finding.code == "pii-card" for line in lines(finding)} == planted(
        "pii-card"
    )
    cleaned = clean(train.examples, (), test.examples, found)
    left = {e.line for e in cleaned.train}
    assert not left & planted("leak-exact")
    assert len(cleaned.test) == len(test.examples) == 400


def lines(finding: object) -> set[int]:
    return {row.line for row in finding.rows}  # type: ignore[attr-defined]


def test_the_rows_are_many_varied_and_balanced() -> None:
    rows = [
        row
        for name in ("train", "test")
        for row in csv.DictReader((FOLDER / f"{name}.csv").read_text("utf-8").splitlines())
    ]
    assert len(rows) == 1544
    counts = Counter(row["intent"] for row in rows)
    assert len(counts) == 16
    assert min(counts.values()) >= 90
    openings = Counter(" ".join(row["message"].lower().split()[:3]) for row in rows)
    assert openings.most_common(1)[0][1] < 0.02 * len(rows)


def test_the_task_file_loads() -> None:
    task = load_task(FOLDER / "task.yaml")
    assert task.data.train == str(FOLDER / "train.csv")
