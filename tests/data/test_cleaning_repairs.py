"""Cleaning: removes what the audit announced, never from test, and lists every row it took."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneworth.data import Cleaned, Example, Message, Ruler, audit, clean, input_key, read_examples
from tuneworth.errors import InputError
from tuneworth.task import Columns


def rows(file: str, pairs: list[tuple[str, str]]) -> list[Example]:
    return [
        Example(f"{file}{n}", (Message("user", text),), answer, file, n) for n, (text, answer) in enumerate(pairs, 2)
    ]


def cleaned(train: list[Example], validation: list[Example], test: list[Example], kind: str = "generation") -> Cleaned:
    return clean(train, validation, test, audit(train, validation, test, kind=kind))


def test_leaks_leave_train_and_validation_and_test_stays_whole():
    train = rows("train", [("a", "x"), ("B!", "x"), ("c", "y"), ("d", "y")])
    validation = rows("validation", [("b", "x"), ("c?", "y")])
    test = rows("test", [("C", "y"), ("c", "y")])
    result = cleaned(train, validation, test)
    assert [example.text for example in result.train] == ["a", "d"]
    assert [example.text for example in result.validation] == ["b"]
    assert result.test == tuple(test)
    assert [(r.split, r.id, r.line, r.code, r.reason) for r in result.removed] == [
        ("validation", "validation3", 3, "leak-exact", "also in test: line 2 of test"),
        ("train", "train3", 3, "leak-exact", "also in validation: line 2 of validation"),
        ("train", "train4", 4, "leak-exact", "also in test: line 2 of test"),
    ]


def test_repeats_with_the_same_answer_go_and_contradictions_stay():
    train = rows("train", [("a", "x"), ("A.", "x"), ("a", "y"), ("a!", "y"), ("b", "x")])
    result = cleaned(train, [], [])
    assert [(example.text, example.answer) for example in result.train] == [
        ("a", "x"),
        ("a", "y"),
        ("b", "x"),
    ]
    assert [r.reason for r in result.removed] == ["repeats line 2 of train", "repeats line 4 of train"]
    assert "stay" in result.notes[0]


def test_rows_too_long_for_the_model_leave_train_and_validation_only():
    parts = [rows(name, [(f"{name} short", "x"), (f"{name} " + "long " * 50, "x")]) for name in ("tr", "va", "te")]
    found = audit(*parts, kind="generation", ruler=Ruler(lambda rows: [len(e.text) for e in rows], 100))
    result = clean(*parts, found)
    assert [len(part) for part in (result.train, result.validation, result.test)] == [1, 1, 2]
    assert {(r.split, r.code) for r in result.removed} == {("train", "too-long"), ("validation", "too-long")}


def test_the_same_file_given_twice_is_an_input_error():
    same = rows("f", [("a", "x"), ("b", "y")])
    with pytest.raises(InputError, match="no row of train is left"):
        cleaned(same, [], rows("g", [("a", "x"), ("b", "y")]))


def test_a_class_that_is_all_leaked_is_an_input_error_when_only_one_is_left():
    train = rows("f", [("a", "x"), ("b", "y")])
    with pytest.raises(InputError, match="only one class is left"):
        cleaned(train, [], rows("g", [("b", "y")]), "classification")


PAIRS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xy")), max_size=12)


@given(PAIRS, PAIRS, PAIRS)
def test_after_cleaning_no_input_is_in_two_splits_and_every_row_is_accounted_for(train, validation, test):
    parts = [rows("train", train), rows("validation", validation), rows("test", test)]
    try:
        result = cleaned(*parts)
    except InputError:
        return
    keys = [{input_key(e) for e in part} for part in (result.train, result.validation, result.test)]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]
    pairs = Counter((input_key(e), e.answer) for e in result.train)
    assert all(count == 1 for count in pairs.values())
    left = [e.id for part in (result.train, result.validation, result.test) for e in part]
    assert sorted(left + [r.id for r in result.removed]) == sorted(e.id for part in parts for e in part)
    assert all(r.split != "test" for r in result.removed)


def test_banking77_loses_its_leaks_and_repeats_from_train_only(shared_data: Path):
    train = read_examples(shared_data / "banking77" / "train.csv", Columns(), "auto").examples
    test = read_examples(shared_data / "banking77" / "test.csv", Columns(), "auto", "test").examples
    result = cleaned(list(train), [], list(test), "classification")
    reasons = Counter(removal.code for removal in result.removed)
    assert reasons["leak-exact"] == 25
    assert len(result.test) == 3080
    assert len(result.train) + len(result.removed) == 10003
    # 31 repeats, less those that were leaks already and those that contradict the row they repeat.
    assert reasons["duplicate-exact"] == 30
    assert cleaned(list(result.train), [], list(test), "classification").removed == ()
