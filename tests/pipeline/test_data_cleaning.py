"""Cleaning a data set with all its columns: rows are conserved, test is untouched, clean sets stay clean."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneworth.data.cleaning import REPAIRS, Repairs
from tuneworth.errors import InputError
from tuneworth.pipeline.cleaning import CleaningTask, CleanRows, clean_file, clean_registered, clean_rows, write_cleaned
from tuneworth.pipeline.datasets import add_files
from tuneworth.store.registry import Registry
from tuneworth.task import Columns

COLUMNS = Columns(input="text", output="label")


def lines(*rows: tuple[Any, ...]) -> list[bytes]:
    return [json.dumps(dict(zip(("label", "other", "text"), row, strict=True))).encode() for row in rows]


def cleaned(
    parts: dict[str, list[bytes]], masks: tuple[str, ...] = (), kind: str = "generation", **how: Any
) -> CleanRows:
    return clean_rows(parts, CleaningTask(COLUMNS, kind, Repairs(**how), masks))


def codes(result: CleanRows) -> list[tuple[str, int, str]]:
    return [(change["split"], change["row"], change["code"]) for change in result.changes]


TEXTS = st.sampled_from(
    ["a", "A!", "b", "c", "d e", "write to x@y.org", "write to z@y.org", "call 4111 1111 1111 1111", ""]
)
ROWS = st.lists(st.tuples(st.sampled_from(["yes", "no", " "]), st.sampled_from("12"), TEXTS), max_size=9)


@settings(max_examples=100)
@given(
    ROWS,
    ROWS,
    ROWS,
    st.sets(st.sampled_from(sorted(REPAIRS))),
    st.sampled_from(["keep", "majority", "drop"]),
    st.sets(st.sampled_from(["pii-email", "pii-card"])),
)
def test_rows_are_conserved_test_is_untouched_and_cleaning_again_changes_nothing(
    train: Any, validation: Any, test: Any, skip: set[str], policy: str, masks: set[str]
) -> None:
    parts = {
        name: lines(*rows) for name, rows in (("train", train), ("validation", validation), ("test", test)) if rows
    }
    how: dict[str, Any] = {"masks": tuple(sorted(masks)), "skip": frozenset(skip), "contradictions": policy}
    try:
        result = cleaned(parts, **how)
    except InputError:
        return
    removed = [change for change in result.changes if change["after"] is None]
    assert result.parts.get("test") == parts.get("test")
    for part, rows in parts.items():
        gone = {change["row"] for change in removed if change["split"] == part}
        assert len(rows) == len(result.parts[part]) + len(gone)
        assert len(gone) == sum(change["split"] == part for change in removed)
        kept = [row for number, row in enumerate(rows, 1) if number not in gone]
        touched = [(old, new) for old, new in zip(kept, result.parts[part], strict=True) if old != new]
        assert not touched or masks
    assert {change["code"] for change in removed}.isdisjoint(skip)
    try:
        again = cleaned(result.parts, **how)
    except InputError:
        return  # nothing usable is left to clean
    assert again.changes == []
    assert again.parts == result.parts


def test_each_finding_has_its_repair_and_each_entry_says_what_was_and_what_is() -> None:
    parts = {
        "train": lines(
            ("x", "1", "first"), ("x", "1", "First."), ("x", "2", "first"), ("y", "1", "in test"),
            ("", "1", "no answer"),            ("x", "1", ""), ("y", "1", "mail me: a@b.org"),
        ),
        "test": lines(("y", "1", "IN TEST"), ("", "1", "stays")),
    }  # fmt: skip
    result = cleaned(parts, ("pii-email",))
    assert codes(result) == [
        ("train", 2, "duplicate-exact"),
        ("train", 4, "leak-exact"),
        ("train", 5, "empty-answer"),
        ("train", 6, "empty-input"),
        ("train", 7, "pii-email"),
    ]
    first, mask = result.changes[0], result.changes[-1]
    assert first["reason"] == "repeats row 1 of train"
    assert first["before"] == {"label": "x", "other": "1", "text": "First."}
    assert first["after"] is None
    assert mask["after"] == {"label": "y", "other": "1", "text": "mail me: [EMAIL]"}
    assert result.changes[1]["reason"] == "also in test: row 1 of test"


@pytest.mark.parametrize("code", ["duplicate-exact", "leak-exact", "empty-answer", "empty-input"])
def test_every_repair_can_be_switched_off_by_its_code(code: str) -> None:
    parts = {
        "train": lines(
            ("x", "1", "a"), ("x", "1", "A"), ("y", "1", "t"), ("", "1", "b"), ("x", "1", ""), ("y", "", "c")
        ),
        "test": lines(("y", "1", "T")),
    }
    assert code in cleaned(parts).counts
    assert set(cleaned(parts, skip=frozenset([code])).counts) == set(cleaned(parts).counts) - {code}


def test_a_row_that_differs_in_the_column_of_another_task_is_no_repeat() -> None:
    same = lines(("x", "slot A", "a b"), ("x", "slot B", "a b"), ("y", "", "c"))
    assert cleaned({"train": same}).changes == []
    numbered = [
        json.dumps({**json.loads(row), "id": n}).encode() for n, row in enumerate(lines(*[("x", "s", "a b")] * 3))
    ]
    assert cleaned({"train": numbered}).counts == {"duplicate-exact": 2}  # ids say nothing about the content


@pytest.mark.parametrize(
    ("policy", "left"), [("keep", ["x", "x", "y", "z"]), ("majority", ["x", "x", "z"]), ("drop", ["z"])]
)
def test_contradictions_are_repaired_by_the_policy_that_was_named(policy: str, left: list[str]) -> None:
    rows = lines(("x", "1", "a"), ("x", "2", "A"), ("y", "1", "a"), ("z", "1", "b"))
    result = cleaned({"train": rows}, contradictions=policy)
    assert [json.loads(row)["label"] for row in result.parts["train"]] == left
    assert (policy == "keep") == bool(result.notes)


def test_unknown_repairs_policies_and_masks_are_named_with_the_nearest_known() -> None:
    with pytest.raises(InputError) as caught:
        Repairs.chosen(["leak-exakt"], "major")
    assert "did you mean 'leak-exact'?" in str(caught.value)
    assert "did you mean 'majority'?" in str(caught.value)
    with pytest.raises(InputError, match="cannot be masked"):
        cleaned({"train": lines(("x", "1", "a"))}, ("pii-emails",))


@pytest.fixture
def tickets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWORTH_HOME", str(tmp_path / "home"))
    path = tmp_path / "tickets.csv"
    words = ["where is it", "it broke", "pay me back", "where is it", "pay me back"]
    path.write_text("text,label\n" + "".join(f"{words[n % 5]} {n // 2},{'abc'[n % 3]}\n" for n in range(60)))
    return path


def test_cleaning_a_registered_set_makes_a_version_with_lineage_and_a_clean_one_stays(tickets: Path) -> None:
    first, _ = add_files("tickets", {"train": [tickets, tickets]}, Columns())
    task = CleaningTask(Columns(input="text", output="label"))
    made, result, is_new = clean_registered("tickets@v1", task)
    assert is_new
    assert made.lineage["parent"] == first.version
    assert made.lineage["repairs"] == {"duplicate-exact": len(result.changes)}
    assert Registry().changes(made) == result.changes
    assert len(Registry().rows(made, "train")) + len(result.changes) == 120
    again, nothing, is_new = clean_registered("tickets", task)
    assert (again, nothing.changes, is_new) == (made, [], False)
    assert len(Registry().versions("tickets")) == 2
    assert Registry().verify() == []


def test_cleaning_a_file_writes_rows_a_change_list_and_a_summary(tickets: Path, tmp_path: Path) -> None:
    doubled = tmp_path / "doubled.csv"
    doubled.write_text(tickets.read_text() + tickets.read_text().partition("\n")[2])
    result = clean_file(str(doubled), None, CleaningTask())
    rows, changes, summary = write_cleaned(result, tmp_path / "out.jsonl")
    assert len(rows.read_text().splitlines()) + len(changes.read_text().splitlines()) == 120
    listed = [json.loads(line) for line in changes.read_text().splitlines()]
    assert Counter(change["code"] for change in listed) == result.counts
    assert "duplicate-exact: 60 rows removed from train" in summary.read_text()
    assert "left: 60 train rows" in summary.read_text()
