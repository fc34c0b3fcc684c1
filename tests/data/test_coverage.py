"""What requests ask that the training rows do not cover: found, counted, named; and nothing where all is covered."""

from __future__ import annotations

import numpy as np
import pytest

from topics import TOPICS, by_topic, foreign_texts, texts_on
from tuneworth.data.coverage import _beyond_chance, coverage, key_words, likeness_to, showable
from tuneworth.data.vectors import fitted_vectors

KNOWN = [text for topic in TOPICS for text in texts_on(topic, 60)]


def test_requests_like_the_training_rows_are_covered():
    asked = [text for topic in TOPICS for text in texts_on(topic, 40, seed=1)]
    found = coverage(KNOWN, asked, by_topic)
    assert found is not None
    assert (found.interval[0], found.gaps) == (0.0, ())
    assert found.uncovered < 0.05


def test_requests_like_the_training_rows_are_as_often_far_as_these():
    assert _beyond_chance(50, 1_000)[0] == 0
    assert _beyond_chance(50, 1_000)[1][0] == 0
    assert _beyond_chance(525, 1_000)[0] == pytest.approx(0.5)
    assert _beyond_chance(1_000, 1_000)[1][1] == 1


def test_a_topic_that_is_not_in_train_is_found_counted_and_named():
    asked = [text for topic in TOPICS for text in texts_on(topic, 40, seed=1)] + foreign_texts(40)
    found = coverage(KNOWN, asked, by_topic)
    assert found is not None
    assert found.interval[0] < 40 / 200 < found.interval[1]
    assert set(range(160, 200)) <= set(found.far)
    gap = found.gaps[0]
    assert set(gap.rows) <= set(range(160, 200))
    assert gap.requests == len(gap.rows) >= 20
    assert set(gap.words) <= {word for text in foreign_texts(40) for word in text.split()}
    assert gap.examples[0] in asked[160:]


def test_a_row_is_not_its_own_neighbour():
    likeness, usual, _ = likeness_to(KNOWN, KNOWN[:5], by_topic)
    assert (likeness > usual[:5]).all()


def test_too_few_rows_say_nothing():
    assert coverage(KNOWN[:49], KNOWN, by_topic) is None
    assert coverage(KNOWN, KNOWN[:49], by_topic) is None


def test_the_same_rows_give_the_same_answer():
    asked = texts_on("card", 60, seed=2) + foreign_texts(20)
    assert coverage(KNOWN, asked, by_topic) == coverage(KNOWN, asked, by_topic)


def test_empty_and_wordless_requests_are_far_and_break_nothing():
    found = coverage(KNOWN, [*texts_on("card", 60, seed=3), *["", "?!", "12"] * 10], by_topic)
    assert found is not None
    assert found.interval[0] > 0


@pytest.mark.parametrize(
    "text",
    ["write to jo@example.org", "card 4111 1111 1111 1111", "see https://example.org/x", "call 07123 456 789 now"],
)
def test_private_texts_are_never_shown(text):
    assert showable([text, "what is a comet"]) == ("what is a comet",)


def test_long_texts_are_shown_shortened_and_each_once():
    (shown,) = showable(["word " * 50, "word " * 50])
    assert len(shown) <= 90
    assert shown.endswith("\u2026")


def test_key_words_tell_a_group_from_the_rest():
    assert key_words(["apple pay fails", "apple pay now", "apple"], {"pay": 0.6, "fails": 0.0}) == ("apple", "fails")


def test_fitted_vectors_are_unit_rows_and_fall_back_where_nothing_repeats():
    rows = fitted_vectors(by_topic, KNOWN)(KNOWN[:10])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert fitted_vectors(by_topic, ["one two", "three four"]) is by_topic
