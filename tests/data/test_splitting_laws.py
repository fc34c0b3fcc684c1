"""Splitting: seeded, by class, and no question is ever on both sides."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from tuneworth.data import Example, Message, RowRef, Splits, input_key, read_examples, split
from tuneworth.data.splitting import SO_FEW
from tuneworth.data.units import Units
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


def _tied(example: Example, examples: list[Example]) -> bool:
    others = [other for other in examples if other is not example]
    return any(
        input_key(other) == input_key(example) or (other.group is not None and other.group == example.group)
        for other in others
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
    if kind == "classification" and not test_given:
        learnt = {example.answer for example in result.train}
        first = {example.answer: example for example in reversed(result.test)}
        # A class is only missing where its rows are tied to test rows, as the first of them is to an earlier row.
        assert all(_tied(example, examples) for label, example in first.items() if label not in learnt)


def test_another_seed_gives_another_split_and_the_same_seed_the_same():
    examples = distinct(400)
    assert both(examples, 1) == both(examples, 1)
    overlap = set(both(examples, 1).test) & set(both(examples, 2).test)
    assert len(overlap) < 40


@pytest.mark.parametrize(("rows", "validation"), [(20, 3.2), (60, 9.6), (250, 30), (1000, 80), (8000, 500)])
def test_sizes_are_as_documented(rows: int, validation: float) -> None:
    result = both(distinct(rows))
    # Each of the 4 classes is within a quarter of its share and one row; in validation, one row.
    assert abs(len(result.test) - 0.2 * rows) <= 0.05 * rows + 4
    assert abs(len(result.validation) - validation) <= 0.05 * validation + 5
    half = split(distinct(rows), kind="classification", test_given=False, validation_given=True, seed=0, test_share=0.4)
    assert abs(len(half.test) - 0.4 * rows) <= 0.1 * rows + 4


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(0, 5))
def test_every_class_has_its_share_in_test_within_a_quarter_and_a_row(sizes: list[int], seed: int) -> None:
    examples = [row(n, f"q{c} {n}", f"class {c}") for c, size in enumerate(sizes) for n in range(size)]
    try:
        result = both(examples, seed)
    except InputError:
        return
    tested = Counter(example.answer for example in result.test)
    learnt = {example.answer for example in result.train}
    for number, size in enumerate(sizes):
        label = f"class {number}"
        assert label in learnt
        assert abs(tested[label] - 0.2 * size) <= 1 + 0.05 * size + (len(result.test) == 1)


ROWS = st.lists(
    st.tuples(
        st.integers(0, 60),
        st.sampled_from("abc"),
        st.sampled_from([None] * 6 + [*"ghijklmn"]),
        st.sampled_from([None] * 9 + [1, 2, 3]),
    ),
    min_size=2,
    max_size=60,
)


@settings(max_examples=200)
@given(ROWS, st.integers(1, 59), st.integers(0, 3), st.sampled_from(["classification", "generation"]))
def test_a_row_in_test_stays_in_test_whatever_is_appended(drawn, cut, seed, kind):
    examples = [row(n, f"question {text}", label, group) for n, (text, label, group, _) in enumerate(drawn)]
    clusters = {RowRef.of(e): c for e, (_, _, _, c) in zip(examples, drawn, strict=True) if c is not None}

    def tested(some: list[Example]) -> tuple[set[str], bool]:
        found = split(some, kind=kind, test_given=False, validation_given=True, seed=seed, clusters=clusters)
        return {example.id for example in found.test}, SO_FEW in found.why[0]

    try:
        (before, few), (after, still_few) = tested(examples[:cut]), tested(examples)
    except InputError:
        reject()
    assume(not few and not still_few)
    assert before <= after
    moved = {e.id for e in examples[:cut]} & (after - before)
    if moved:  # only rows that an appended row ties to test rows
        units = Units(examples, clusters)
        for number in range(len(examples)):
            units.join(number)
        place = {example.id: units.unit(number) for number, example in enumerate(examples)}
        assert {place[id_] for id_ in moved} <= {place[id_] for id_ in before}


def test_a_row_that_is_tied_to_an_earlier_train_row_stays_in_test_and_takes_it_along():
    examples = [row(n, f"question {n}", group=f"user {n}") for n in range(100)]
    before = both(examples, kind="generation")
    learnt, judged = before.train[0], before.test[-1]
    assert learnt.line < judged.line
    tie = row(100, judged.text, group=learnt.group)
    after = {example.id for example in both([*examples, tie], kind="generation").test}
    assert after == {example.id for example in before.test} | {learnt.id, tie.id}


def test_without_groups_no_row_ever_crosses_the_border_of_test():
    for seed in range(5):
        examples = distinct(900, classes=7)
        sets = [{e.id for e in both(examples[:count], seed).test} for count in (300, 301, 450, 900)]
        for fewer, more, count in zip(sets[:-1], sets[1:], (300, 301, 450), strict=True):
            assert fewer == {id_ for id_ in more if int(id_[1:]) < count}


def test_rows_that_are_taken_out_or_shuffled_move_few_others():
    examples = distinct(2000, classes=10)
    whole = {e.id for e in both(examples).test}
    fewer = {e.id for n, e in enumerate(examples) if n % 50}  # 40 rows are gone
    moved = ({e.id for e in both([e for e in examples if e.id in fewer]).test} ^ whole) & fewer
    assert len(moved) <= 20
    shuffled = {e.id for e in both(sorted(examples, key=lambda e: e.id)).test}
    assert len(shuffled ^ whole) <= 80


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
    assert abs(len(result.test) - 0.2 * 5574) <= 0.05 * 5574
    spam = sum(example.answer == "spam" for example in result.test) / len(result.test)
    assert abs(spam - 747 / 5574) < 0.02


def at(n: int, time: str, text: str | None = None, group: str | None = None) -> Example:
    return Example(f"r{n}", (Message("user", text or f"question {n}"),), "a", "f", n, group, time)


def test_by_time_the_newest_rows_are_the_test_and_the_newest_of_the_rest_validation():
    examples = [at(n, f"2026-01-{1 + n % 28:02d}") for n in range(280)]
    result = both(examples, kind="generation")
    times = {name: [example.time for example in part] for name, part in parts(result).items()}
    assert max(times["train"]) < min(times["validation"]) <= max(times["validation"]) < min(times["test"])
    assert len(result.test) == 60  # 56 wanted; the ten rows of a day stay together
    assert result.why[0] == "the newest 60 rows of 280 are test"


def test_by_time_rows_that_belong_to_a_new_one_go_with_it():
    examples = [at(n, str(1000 + n), group="old" if n in (0, 99) else None) for n in range(100)]
    result = both(examples, kind="generation")
    assert [example.line for example in result.test] == [0, *range(80, 100)]
    assert result.why[0] == "the newest 20 rows of 100 are test, with 1 older row that belong to them"


def test_times_are_compared_as_moments_and_bad_ones_are_named():
    examples = [at(n, f"2026-03-01T{n:02d}:00:00+00:00") for n in range(20)]
    examples.append(at(20, "2026-03-01T23:30:00+12:00"))  # 11:30 in UTC
    examples.append(at(21, "2026-03-02"))
    test = {example.line for example in both(examples, kind="generation").test}
    assert 21 in test
    assert 20 not in test
    with pytest.raises(InputError) as caught:
        both([*examples, at(22, "yesterday"), *(at(n, "soon") for n in range(23, 40))], kind="generation")
    assert "f:22: 'yesterday' is no time" in str(caught.value)
    assert "18 times cannot be read" in str(caught.value)


def test_near_duplicates_that_are_passed_as_clusters_stay_together():
    examples = distinct(300)
    clusters = {RowRef.of(example): n // 5 for n, example in enumerate(examples[:200])}
    result = split(examples, kind="generation", test_given=False, validation_given=False, seed=0, clusters=clusters)
    sides = [{clusters.get(RowRef.of(e)) for e in part} - {None} for part in parts(result).values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 40


@pytest.mark.parametrize(
    ("columns", "kind", "groups"),
    [
        (Columns(), "preference", 158),  # 12 instructions have only ties
        (Columns(input="instruction", output="response1", group="instruction"), "generation", 169),  # one is blank
    ],
)
def test_pandalm_is_split_by_instruction_not_by_row(shared_data: Path, columns: Columns, kind: str, groups: int):
    path = shared_data / "pandalm_pref" / "testset-v1.json"
    examples = read_examples(path, columns, kind).examples
    result = both(list(examples), kind=kind)
    sides = [{example.group for example in part} for part in parts(result).values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == groups
    assert sum(len(part) for part in parts(result).values()) == len(examples)
    assert abs(len(result.test) - 0.2 * len(examples)) <= 0.05 * len(examples)
