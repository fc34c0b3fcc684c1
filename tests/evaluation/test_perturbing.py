"""Altered requests and prompts: what carries the answer is left alone, all is seeded, and something does change."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneworth.data import Example, Message
from tuneworth.evaluation.perturbing import (
    PERTURBATIONS,
    REWORDINGS,
    TYPO_RATE,
    altered,
    answer_words,
    is_protected,
    other_case,
    other_spacing,
    reformed,
    typos,
)
from tuneworth.evaluation.prompts import FULL, SHORT, PromptForm, prompt_form, with_shots
from tuneworth.task import Task

LABELS = ("card_arrival", "card_not_working", "Labels: other", "top up")
BY_NAME = {p.name: p for p in PERTURBATIONS}
OF_REQUESTS = [p for p in PERTURBATIONS if p.target == "request"]
WORDS = st.sampled_from(
    ["please", "transfer", "Zürich", "the", "money,", "tomorrow.", "a1b2", "x@y.org", "17:30", "--"]
)
TEXTS = st.lists(WORDS, min_size=1, max_size=30).map(" ".join)


def example(text: str, answer: str = "top up", number: int = 0) -> Example:
    return Example(f"r{number}", (Message("system", "Be brief."), Message("user", text)), answer, "f.csv", number + 2)


def form(name: str = FULL) -> PromptForm:
    return prompt_form(name, Task(), "classification", LABELS)


@given(TEXTS, st.integers(0, 20))
def test_words_that_carry_the_answer_are_never_altered(text: str, seed: int) -> None:
    row = example(text, '{"city": "Zürich", "when": ["tomorrow"]}', seed)
    kept = answer_words(row, "extraction")
    for perturbation in OF_REQUESTS:
        changed = altered(row, perturbation, "extraction", seed).text
        before, after = text.split(), changed.split()
        assert len(after) == len(before)
        for old, new in zip(before, after, strict=True):
            if is_protected(old, kept):
                assert new == old


@pytest.mark.parametrize(
    ("word", "protected"),
    [
        ("12.50", True), ("A-17", True), ("me@home.org", True), ("https://a.b/c", True), ("www.a.b", True),
        ("--", True), ("zürich,", True), ("Tomorrow", True), ("money", False), ("the", False),
    ],
)  # fmt: skip
def test_what_is_protected(word: str, protected: bool) -> None:
    assert is_protected(word, frozenset(["zürich", "tomorrow"])) == protected


def test_the_words_of_a_label_are_no_copied_answer() -> None:
    assert answer_words(example("top up my card"), "classification") == frozenset()
    assert answer_words(example("top up my card"), "generation") == {"top", "up"}


def test_the_space_within_a_copied_name_stays_as_it_is() -> None:
    text = "a flight to New York today please " * 8
    for number in range(10):
        changed = altered(example(text, '{"to": "New York"}', number), BY_NAME["spacing"], "extraction", 0).text
        assert changed.count("New York") == 8
        assert changed.split() == text.split()


@given(TEXTS, st.integers(0, 50))
def test_alterations_depend_on_seed_and_row_alone(text: str, number: int) -> None:
    rows = [example(text, number=number), example("another text here", number=number + 1)]
    for perturbation in OF_REQUESTS:
        one, two = (altered(row, perturbation, "classification", 3) for row in rows)
        assert altered(rows[0], perturbation, "classification", 3) == one
        assert [altered(row, perturbation, "classification", 3) for row in rows[::-1]] == [two, one]
        assert one.messages[0] == rows[0].messages[0]
        assert (one.id, one.answer) == (rows[0].id, rows[0].answer)


def test_typos_hit_their_share_of_the_words_and_at_least_one() -> None:
    text = "nothing arrived although somebody promised delivery yesterday evening " * 200
    changed = typos(text, frozenset(), random.Random(0))
    pairs = list(zip(text.split(), changed.split(), strict=True))
    share = sum(old != new for old, new in pairs) / len(pairs)
    assert share == pytest.approx(TYPO_RATE, abs=0.03)
    assert all(abs(len(old) - len(new)) <= 1 for old, new in pairs)
    assert all(typos("please", frozenset(), random.Random(n)) != "please" for n in range(200))
    assert typos("no 4 me", frozenset(), random.Random(0)) == "no 4 me"


@pytest.mark.parametrize("text", ["Where is my card?", "where is my card?", "WHERE IS MY CARD?"])
def test_the_other_case_differs_in_letter_case_alone(text: str) -> None:
    found = {other_case(text, frozenset(), random.Random(n)) for n in range(20)}
    assert text not in found
    assert {one.casefold() for one in found} == {text.casefold()}


def test_other_spacing_changes_spaces_and_ends_of_sentences_alone() -> None:
    text = "Hello, my card is late. Where is it? Please help me now."
    found = other_spacing(text, frozenset(), random.Random(1))
    assert found != text
    assert [w.rstrip(".,?") for w in found.split()] == [w.rstrip(".,?") for w in text.split()]


def test_every_built_in_sentence_is_reworded_and_the_labels_stay() -> None:
    texts = [form(FULL).system or "", form(SHORT).system or ""]
    for sentence in REWORDINGS:
        assert any(sentence in text for text in texts), f"no prompt form says '{sentence}' any more"
    for name in ("instruction-1", "instruction-2"):
        for shape in (FULL, SHORT):
            changed = reformed(form(shape), BY_NAME[name], LABELS, 0)
            assert changed is not None and changed.system is not None
            assert changed.system != form(shape).system
            assert not any(sentence in changed.system.replace("- Labels: other", "") for sentence in REWORDINGS)
        full = reformed(form(FULL), BY_NAME[name], LABELS, 0)
        assert full is not None and full.system is not None
        assert "\n".join(f"- {label}" for label in LABELS) in full.system
    one, two = (reformed(form(), BY_NAME[f"instruction-{n}"], LABELS, 0) for n in (1, 2))
    assert one != two


def test_a_users_own_instruction_is_framed_not_reworded() -> None:
    own = PromptForm("full", "Summarise for a lawyer.")
    changed = reformed(own, BY_NAME["instruction-1"], (), 0)
    assert changed is not None and changed.system is not None
    assert "Summarise for a lawyer." in changed.system
    assert changed.system != own.system


def test_labels_and_examples_are_the_same_ones_in_another_order() -> None:
    train = [example(f"text {n}", LABELS[n % 4], n) for n in range(20)]
    shown = with_shots(form(), train, 4, 0, "classification")
    for name in ("labels-1", "labels-2"):
        changed = reformed(shown, BY_NAME[name], LABELS, 0)
        assert changed is not None and changed.system is not None and shown.system is not None
        assert changed.system != shown.system
        assert Counter(changed.system.split("\n")) == Counter(shown.system.split("\n"))
        assert changed.shots == shown.shots
    for name in ("examples-1", "examples-2"):
        changed = reformed(shown, BY_NAME[name], LABELS, 0)
        assert changed is not None
        assert changed.system == shown.system
        assert changed.shots != shown.shots
        assert Counter(shot.id for shot in changed.shots) == Counter(shot.id for shot in shown.shots)


def test_what_is_not_there_cannot_be_altered() -> None:
    assert reformed(form(SHORT), BY_NAME["labels-1"], LABELS, 0) is None
    assert reformed(form(), BY_NAME["examples-1"], LABELS, 0) is None
    assert reformed(PromptForm("short", ""), BY_NAME["instruction-1"], (), 0) is None
