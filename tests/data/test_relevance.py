"""Rows that do not belong to the task: texts, labels and forms of answers; and clean rows are left alone."""

from __future__ import annotations

import random

import pytest

from topics import TOPICS, by_topic, foreign_texts, texts_on
from tuneworth.data.plain import features_of
from tuneworth.data.relevance import answer_form, misspelt_labels, odd_forms, off_topic

TEXTS = [text for topic in TOPICS for text in texts_on(topic, 250)]
LABELS = [topic for topic in TOPICS for _ in range(250)]


def strays(texts: list[str], labels: list[str]) -> list[int]:
    found = off_topic(features_of(texts), labels, by_topic(texts))
    assert found is not None
    return found.tolist()


def test_planted_rows_with_random_labels_are_found_and_little_else():
    source = random.Random(5)
    planted = foreign_texts(15)
    found = strays(TEXTS + planted, LABELS + [source.choice(LABELS) for _ in planted])
    hits = [row for row in found if row >= len(TEXTS)]
    assert len(hits) >= 9
    assert len(found) - len(hits) <= 2


def test_clean_rows_are_not_off_topic():
    assert len(strays(TEXTS, LABELS)) <= len(TEXTS) / 200


def test_a_wrong_label_alone_is_not_off_topic():
    labels = list(LABELS)
    for row in range(0, 100, 10):
        labels[row] = "refund"
    assert not set(range(0, 100, 10)) & set(strays(TEXTS, labels)[:3])


def test_rare_rows_whose_label_follows_from_the_text_are_not_off_topic():
    rare = foreign_texts(30)
    found = strays(TEXTS + rare, LABELS + ["astronomy"] * 30)
    assert len([row for row in found if row >= len(TEXTS)]) <= 3


SHUFFLED = random.Random(3).sample(LABELS, len(LABELS))


@pytest.mark.parametrize(("texts", "labels"), [(TEXTS[:199], LABELS[:199]), (TEXTS, ["one"] * 1000), (TEXTS, SHUFFLED)])
def test_where_nothing_can_be_told_no_row_is_named(texts, labels):
    assert off_topic(features_of(texts), labels, by_topic(texts)) is None


@pytest.mark.parametrize(
    ("odd", "usual"),
    [
        ("Card Arrival", "card_arrival"),
        ("card-arrival", "card_arrival"),
        (" card_arrival", "card_arrival"),
        ("card_arival", "card_arrival"),
        ("crad_arrival", "card_arrival"),
    ],
)
def test_other_spellings_of_a_label_are_found(odd, usual):
    labels = [usual] * 30 + ["card_linking"] * 30 + [odd]
    (found,) = misspelt_labels(labels)
    assert (found.label, found.usual, found.rows) == (odd, usual, (60,))


@pytest.mark.parametrize(
    "labels",
    [
        ["subscription_level_1"] * 30 + ["subscription_level_2"],
        ["yes"] * 30 + ["yep"],
        ["cash_withdrawal"] * 30 + ["card_withdrawal"] * 5,
        ["positive"] * 30 + ["negative"],
        ["\u002b"] * 30 + ["\u2212"],
        [],
    ],
)
def test_labels_of_their_own_are_not_spellings(labels):
    assert misspelt_labels(labels) == ()


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ('{"a": 1}', "JSON"),
        ("[1, 2]", "JSON"),
        ("{not json}", "one line"),
        ("```py\nx\n```", "code block"),
        (" -1,200.50 ", "number"),
        ("$12", "number"),
        ("12 apples", "one line"),
        ("two\nlines", "several lines"),
    ],
)
def test_forms_of_answers(answer, form):
    assert answer_form(answer) == form


def test_an_odd_form_is_found_among_many_of_one_and_not_where_forms_mix():
    assert odd_forms(["plain text"] * 99 + ['{"a": 1}']) == {"JSON": (99,)}
    assert odd_forms(["plain text"] * 60 + ["{}"] * 40) == {}
    assert odd_forms(["plain text"] * 99 + ["two\nlines"]) == {}
    assert odd_forms([]) == {}
