"""How answers are read and scored, how prompts are formed, and what the rows of an arm add up to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneworth.data import Example, Message
from tuneworth.evaluation.arms import stratified
from tuneworth.evaluation.classical import fit_classifier, fit_retrieval
from tuneworth.evaluation.metrics import choose_metric, score
from tuneworth.evaluation.metrics.labels import parse_label
from tuneworth.evaluation.metrics.texts import exact_match, rouge_l
from tuneworth.evaluation.prompts import FULL, SHORT, PromptForm, prompt_form, with_shots
from tuneworth.evaluation.records import Answer, RawAnswer
from tuneworth.evaluation.summary import summary
from tuneworth.task import Task

LABELS = ("card_arrival", "card_not_working", "card", "Top Up")
ACCURACY = choose_metric(Task(), "classification", LABELS)


def example(number: int, label: str = "card", text: str | None = None) -> Example:
    return Example(f"r{number}", (Message("user", text or f"text {number}"),), label, "file.csv", number + 2)


def raw(text: str, finish: str = "stop", error: str | None = None) -> RawAnswer:
    return RawAnswer(text, finish, "hash", 10, 2, 0.1, error)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("card_arrival", "card_arrival"),
        ("  Card_Arrival.\n", "card_arrival"),
        ('"card_arrival"', "card_arrival"),
        ("top  up", "Top Up"),
        ("card_arrival - it has not come", "card_arrival"),
        ("card_arrival\nbecause it is late", "card_arrival"),
        ("card: not sure", "card"),
        ("card_unknown", None),
        ("cards", None),
        ("The label is card_arrival", None),
        ("I am sorry, I cannot help", None),
        ("", None),
        ("card-not-working", None),
    ],
)
def test_a_label_is_read_with_its_edges_forgiven_and_nothing_else(text: str, label: str | None) -> None:
    assert parse_label(text, LABELS) == label


@given(st.text(max_size=40))
def test_any_text_is_a_known_label_or_none(text: str) -> None:
    assert parse_label(text, LABELS) in (*LABELS, None)


def test_scores_are_those_of_the_definitions() -> None:
    assert exact_match(" a  b\n", "a b") == 1
    assert exact_match("a b", "a c") == 0
    # Longest common subsequence 2 of 3 and 4 words: precision 2/3, recall 2/4, F1 = 4/7.
    assert rouge_l("the cat ran", "the dog ran away") == pytest.approx(4 / 7)


def test_law_51_a_failed_call_scores_nothing_and_keeps_its_error() -> None:
    rows = score([example(0), example(1)], [raw("card"), raw("card", "error", "timed out")], ACCURACY)
    assert [row.score for row in rows] == [1, 0]
    assert rows[1].error == "timed out"


def test_law_51_cut_answers_are_reported_as_truncated_not_only_as_wrong() -> None:
    examples = [example(n) for n in range(4)]
    rows = score(examples, [raw("card"), raw("ca", "length"), raw(""), raw("card_arrival")], ACCURACY)
    found = summary(rows, examples, ACCURACY, LABELS)
    assert found["score"] == 0.25
    assert (found["truncated"], found["empty"], found["invalid"]) == (0.25, 0.25, 0.5)
    assert found["finish_reasons"] == {"stop": 3, "length": 1}
    assert {(c["wanted"], c["parsed"], c["count"]) for c in found["confusions"]} == {
        ("card", None, 2),
        ("card", "card_arrival", 1),
    }
    (row,) = found["classes"]
    assert (row["label"], row["rows"], row["recall"], row["precision"]) == ("card", 4, 0.25, 1.0)
    assert {worst["id"] for worst in found["worst"]} == {"r1", "r2", "r3"}


def test_the_short_form_leaves_out_what_the_full_form_lists() -> None:
    task = Task.model_validate({"prompt": {"system": "Sort the mail."}})
    full, short = (prompt_form(name, task, "classification", LABELS) for name in (FULL, SHORT))
    assert full.system is not None
    assert full.system.startswith("Sort the mail.")
    assert all(f"- {label}\n" in full.system for label in LABELS)
    assert len(short.messages(example(0))[0]["content"]) < 60
    assert full.messages(example(0))[-1] == {"role": "user", "content": "text 0"}


def test_free_text_rows_keep_their_own_system_message_in_the_full_form_only() -> None:
    row = Example("a", (Message("system", "Be brief."), Message("user", "hi")), "hello", "f", 1)
    full, short = (prompt_form(name, Task(), "generation", ()) for name in (FULL, SHORT))
    assert [m["role"] for m in full.messages(row)] == ["system", "user"]
    assert [m["role"] for m in short.messages(row)] == ["user"]


def test_the_opening_is_the_forms_own_and_holds_nothing_of_a_row() -> None:
    talk = (
        Message("system", "Be brief."),
        Message("user", "hi"),
        Message("assistant", "hello"),
        Message("user", "so?"),
    )
    row = Example("a", talk, "yes", "f", 1)
    shown = PromptForm("full", "Sort.", (example(1),))
    assert [m["content"] for m in shown.opening()] == ["Sort.", "text 1", "card"]
    assert shown.messages(row)[:3] == shown.opening()
    assert PromptForm("full", None).opening() == []
    assert [m["content"] for m in PromptForm("full", None).messages(row)] == [m.content for m in talk]


def test_law_50_shots_come_from_train_and_cover_different_labels() -> None:
    train = [example(n, label) for n, label in enumerate(LABELS * 10)]
    form = with_shots(prompt_form(FULL, Task(), "classification", LABELS), train, 4, 0, "classification")
    assert {shot.answer for shot in form.shots} == set(LABELS)
    assert {shot.id for shot in form.shots} <= {e.id for e in train}
    shown = form.messages(example(99))
    assert [m["role"] for m in shown] == ["system", *["user", "assistant"] * 4, "user"]
    assert form.shots == with_shots(form, train, 4, 0, "classification").shots
    assert form.shots != with_shots(form, train, 4, 1, "classification").shots


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=80), st.integers(1, 90), st.integers(0, 3))
def test_a_subset_is_stratified_seeded_and_in_order(labels: list[str], count: int, seed: int) -> None:
    rows = [example(n, label) for n, label in enumerate(labels)]
    some = stratified(rows, count, seed, "classification")
    assert some == stratified(rows, count, seed, "classification")
    assert len(some) == min(count, len(rows))
    assert [r.line for r in some] == sorted({r.line for r in some})
    for label in set(labels):
        share = labels.count(label) / len(labels)
        assert abs(sum(r.answer == label for r in some) - share * len(some)) <= 2


def test_the_classical_floor_learns_and_is_reproducible() -> None:
    words = {"late": "parcel waiting delivery", "pay": "card bank charge"}
    rows = [example(n, label, f"{words[label]} {n}") for n in range(40) for label in words]
    one, two = (fit_classifier(rows[:60], rows[60:70], 0) for _ in range(2))
    answers = [a.text for a in one.answer(rows[70:])]
    assert answers == [e.answer for e in rows[70:]] == [a.text for a in two.answer(rows[70:])]


def test_the_retrieval_floor_copies_the_nearest_answer() -> None:
    rows = [example(0, "It is on its way.", "where is my parcel"), example(1, "Please try again.", "card was refused")]
    (answer,) = fit_retrieval(rows).answer([example(2, "", "my card is refused again")])
    assert answer.text == "Please try again."


def test_answers_survive_their_json() -> None:
    row = Answer("a", None, "h", "w", "r", None, 0.0, 1, 2, 0.5, "stop")
    assert Answer(**row.to_json()) == row
