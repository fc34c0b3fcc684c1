"""Reasoning: where a final answer is found, what equals what, and that a cut text states none by accident."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.rows import judged, raw, row
from tuneworth.evaluation.metrics.finals import final_answer, normal_form


@pytest.mark.parametrize(
    ("text", "final"),
    [
        ("2 + 3 = 5\n#### 5", "5"),
        ("#### 4\nno, wait\n#### 5\n", "5"),
        ("####\n#### 7", "7"),
        ("so \\boxed{42} it is, not 43", "42"),
        ("\\boxed{1} and \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{ } but \\boxed{8", "8"),
        ("The answer is 12. I am sure about all 3 steps.", "12"),
        ("Answer: $1,250.50", "$1,250.50"),
        ("The answer is Paris.", "Paris"),
        ("First 3 apples, then 4 more, 7 in all.", "7"),
        ("he has -5 left", "-5"),
        ("no number here", None),
        ("", None),
        ("step #### 5 in the middle of a line, then 6", "6"),
    ],
)
def test_the_final_answer_is_found_where_the_documentation_says(text: str, final: str | None) -> None:
    assert final_answer(text) == final


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,234", "1234"),
        ("$18", "18"),
        ("18$", "18"),
        ("18.00", "18"),
        ("18.50", "18.5"),
        ("70%", "70"),
        ("70\\%", "70"),
        ("-3", "−3"),
        ("- 3", "-3"),
        ("+3", "3"),
        ("-$3", "$-3"),
        (".5", "0.5"),
        ("1/2", "0.5"),
        ("\\frac{1}{2}", "1/2"),
        ("2/6", "1/3"),
        ("12 apples", "12"),
        ("12 km.", "12"),
        ("5.", "5"),
        ("$\\text{12}$", "12"),
        ("007", "7"),
        ("Paris.", "paris"),
        ("'Yes'", "yes"),
    ],
)
def test_what_means_the_same_is_equal(one: str, other: str) -> None:
    assert normal_form(one) == normal_form(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("12", "120"), ("1.2", "12"), ("1,2", "12"), ("3", "-3"), ("1/0", "0"), ("12", "twelve"), ("5 3", "53")],
)
def test_what_means_something_else_is_not(one: str, other: str) -> None:
    assert normal_form(one) != normal_form(other)


@given(st.integers(-(10**9), 10**9), st.integers(0, 3))
def test_numbers_equal_their_value_however_they_are_written(number: int, zeros: int) -> None:
    decimals = f".{'0' * zeros}" if zeros else ""
    assert normal_form(f"${number:,}{decimals}") == str(number) == normal_form(str(number))


@given(st.fractions(max_denominator=10**4))
def test_fractions_equal_their_decimals_where_these_end(value: Fraction) -> None:
    form = normal_form(f"{value.numerator}/{value.denominator}")
    assert Fraction(form) == value


@given(st.text(max_size=60), st.booleans())
def test_no_text_breaks_the_reading(text: str, whole: bool) -> None:
    found = final_answer(text, whole=whole)
    assert found is None or normal_form(found) == normal_form(found)


@pytest.mark.parametrize("text", ["2 + 3 = 5, and then 5 + 1 =", "the answer is 12", "#### 1", "so \\boxed{1"])
def test_law_51_a_text_that_was_cut_states_nothing_by_accident(text: str) -> None:
    assert final_answer(text, whole=False) is None


@pytest.mark.parametrize(("text", "final"), [("#### 18\nand so", "18"), ("\\boxed{3} because", "3")])
def test_law_51_a_text_cut_after_its_answer_still_states_it(text: str, final: str) -> None:
    assert final_answer(text, whole=False) == final


def test_law_51_truncated_is_counted_as_truncated_and_not_as_wrong() -> None:
    """A stub that needs 300 tokens and gets 256: the text stops inside a calculation."""
    steps = " ".join(f"{n} + 1 = {n + 1}." for n in range(30))
    wanted = row(f"{steps}\n#### 31")
    rows = [
        (wanted, raw(steps, "length")),
        (wanted, raw(f"{steps}\n#### 31")),
        (wanted, raw("#### 30")),
        (wanted, raw("I do not know")),
        (wanted, raw("", "error", "timed out")),
    ]
    answers, totals = judged("reasoning", rows)
    assert [a.score for a in answers] == [0, 1, 0, 0, 0]
    assert [a.parsed for a in answers] == [None, "31", "30", None, None]
    shares = {
        "final_answer_right": 0.2,
        "wrong": 0.2,
        "truncated_before_the_final_answer": 0.2,
        "no_final_answer": 0.2,
        "failed": 0.2,
    }
    assert shares.items() <= totals.items()


def test_an_answer_without_a_mark_is_wanted_as_a_whole_or_by_its_number() -> None:
    (a, b), _ = judged("reasoning", [(row("42"), raw("It is 42.")), (row("Paris"), raw("The answer is Paris"))])
    assert (a.score, b.score) == (1, 1)
