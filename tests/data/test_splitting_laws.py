"""Splitting: seeded, by class, and no question is ever on both sides."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneworth.data import Example, Message, Splits, input_key, read_examples, split
from tuneworth.errors import InputError
from tuneworth.task import Columns


def row(n: int, text: str, answer: str = "a", group: str | None = None) -> Example:
    return Example(f"r{n}", (Message("user", text),), answer, "f", n, group)


def distinct(count: int, classes: int = 4, start: int = 0) -> list[Example]:
    return [row(n, f"question {n}", f"class {n % classes}") for n in range(start, start + count)]


def parts(result: Splits) -> dict[str, tuple[Example, ...]]:
    return {"train": result.train, "validation": result.validation, "test": result.test}


def both(examples: list[Example], seed: int = 0, kind: str = "classification") -> Splits:
    return split(examples, kind=kind, test_given=False, validation_given=False, seed=seed)


EXAMPLES = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from("abc"), st.one_of(st.none(), st.sampled_from("ghijk"))),
    min_size=1,
    max_size=80,
)


@given(
    EXAMPLES,
    st.integers(0, 5),
    st.sampled_from(["classification", "generation"]),
    st.booleans(),
    st.booleans(),
)
def test_no_row_is_copied_or_lost_and_no_question_or_group_is_on_two_sides(drawn, seed, kind, test_given, val_given):
    examples = [
        row(n, f"Question {text}{'?' * (n % 2)}", answer, group) for n, (text, answer, group) in enumerate(drawn)
    ]
    try:
        result = split(examples, kind=kind, test_given=test_given, validation_given=val_given, seed=seed)
    except InputError:
        return
    ids = [example.id for part in parts(result).values() for example in part]
    assert sorted(ids) == sorted(example.id for example in examples)
    for of in (input_key, lambda example: example.group):
        sides = [{of(example) for example in part} - {None} for part in parts(result).values()]
        assert sum(map(len, sides)) == len(set.union(*sides))
    assert bool(result.test) is not test_given
    assert bool(result.validation) is not val_given
    for part in parts(result).values():
        assert [example.line for example in part] == sorted(example.line for example in part)
    if kind == "classification":
        assert {example.answer for example in result.train} == {example.answer for example in examples}


@given(st.lists(st.sampled_from("abc"), min_size=20, max_size=80), st.randoms(use_true_random=False))
def test_the_split_does_not_depend_on_the_order_of_rows(answers, random):
    examples = [row(n, f"question {n}", answer) for n, answer in enumerate(answers)]
    shuffled = random.sample(examples, len(examples))
    one, other = both(examples), both(shuffled)
    assert all(set(part) == set(parts(other)[name]) for name, part in parts(one).items())


def test_another_seed_gives_another_split_and_the_same_seed_the_same():
    examples = distinct(400)
    assert both(examples, 1) == both(examples, 1)
    overlap = set(both(examples, 1).test) & set(both(examples, 2).test)
    assert len(overlap) < 40


@pytest.mark.parametrize(
    ("rows", "test", "validation"),
    [
        (20, 6, 2.8),
        (60, 18, 8.4),
        (100, 30, 14),
        (250, 50, 30),
        (1000, 200, 80),
        (4000, 800, 320),
        (8000, 1000, 500),
    ],
)
def test_sizes_are_as_documented(rows, test, validation):
    result = both(distinct(rows))
    # Each of the 4 classes is rounded by chance to one row below or above.
    assert abs(len(result.test) - test) <= 4
    assert abs(len(result.validation) - validation) <= 5


def test_every_class_is_held_out_in_proportion():
    examples = [row(n, f"q{n}", "big" if n % 10 else "small") for n in range(1000)]
    result = both(examples)
    for part, share in ((result.test, 0.2), (result.validation, 0.08)):
        counts = Counter(example.answer for example in part)
        assert abs(counts["big"] - share * 900) <= 1
        assert abs(counts["small"] - share * 100) <= 1


def test_rare_classes_keep_a_train_row_and_do_not_pile_up_in_test():
    examples = [row(n, f"q{n}", f"class {n // 2}") for n in range(200)]  # 100 classes of two rows
    result = both(examples)
    assert len({example.answer for example in result.train}) == 100
    assert 30 <= len(result.test) <= 70
    assert max(Counter(example.answer for example in result.test).values()) == 1


@given(st.integers(1, 20), st.integers(0, 3))
def test_appended_rows_leave_other_classes_alone_and_move_few_of_their_own(appended, seed):
    before = distinct(600)
    more = [row(n, f"question {n}", "class 0") for n in range(600, 600 + appended)]
    places = {example.id: name for name, part in parts(both(before, seed)).items() for example in part}
    after = {example.id: name for name, part in parts(both(before + more, seed)).items() for example in part}
    moved = [example for example in before if places[example.id] != after[example.id]]
    assert {example.answer for example in moved} <= {"class 0"}
    crossed = [e for e in moved if "test" in (places[e.id], after[e.id])]
    assert len(crossed) <= appended
    assert len(moved) <= 4 * appended


def test_splits_of_few_rows_copy_none():
    for rows in range(3, 12):
        result = both(distinct(rows, classes=1), kind="generation")
        assert len(result.train) + len(result.validation) + len(result.test) == rows
        assert result.test
        assert result.train


def test_one_group_cannot_be_split():
    examples = [row(n, f"q{n}", "ab"[n % 2], group="all") for n in range(100)]
    with pytest.raises(InputError, match="no test rows can be split off"):
        both(examples)


def test_large_groups_stay_whole_and_do_not_swallow_train():
    examples = [row(n, f"q{n}", "a", group=f"g{n // 100}") for n in range(500)]
    result = both(examples, kind="generation")
    assert [len(part) for part in parts(result).values()] == [300, 100, 100]


def test_only_what_is_not_given_is_split_off():
    examples = distinct(500)
    result = split(examples, kind="classification", test_given=True, validation_given=False, seed=0)
    assert result.test == ()
    assert abs(len(result.validation) - 50) <= 4
    whole = split(examples, kind="classification", test_given=True, validation_given=True, seed=0)
    assert whole == Splits(tuple(examples), (), (), ())
    assert "validation" in result.why[0]


def test_sms_spam_duplicates_stay_together(shared_data: Path):
    columns = Columns(input="2", output="1")
    examples = read_examples(shared_data / "sms_spam" / "sms.tsv", columns, "auto").examples
    result = both(list(examples))
    keys = [{input_key(example) for example in part} for part in parts(result).values()]
    assert sum(map(len, keys)) == len(set.union(*keys))
    assert sum(len(part) for part in parts(result).values()) == 5574
    assert abs(len(result.test) - 1000) <= 2
    spam = sum(example.answer == "spam" for example in result.test) / len(result.test)
    assert abs(spam - 747 / 5574) < 0.002
