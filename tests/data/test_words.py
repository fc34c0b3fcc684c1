"""Words as sparse vectors are those of scikit-learn; the plain classifier learns from what it is given and no more."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from topics import TOPICS, texts_on
from tuneworth.data.plain import answers, features_of
from tuneworth.data.words import learn, runs_of_four, words_and_pairs

TEXTS = [
    "Where is my card? My card is lost.", "where is my new card", "The card, my card!", "a", "", "Überweisung ist weg",
    "die Überweisung ist da", "42 cards at 3 p.m.", "at 42",
]  # fmt: skip
ROWS = [text for topic in TOPICS for text in texts_on(topic, 40)]
LABELS = np.repeat(np.arange(len(TOPICS)), 40)


def in_order(rows, names) -> np.ndarray:
    """A dense copy with the columns sorted by name."""
    return np.asarray(rows.todense())[:, np.argsort(np.array(names))]


def test_words_and_weights_are_those_of_scikit_learn():
    peer = TfidfVectorizer(binary=True, min_df=2, ngram_range=(1, 2))
    wanted = peer.fit_transform(TEXTS)
    vocabulary, present = learn(TEXTS, words_and_pairs)
    names = list(vocabulary.columns)
    assert sorted(names) == sorted(peer.get_feature_names_out())
    ours = in_order(vocabulary.tfidf(present), names)
    assert ours == pytest.approx(in_order(wanted, peer.get_feature_names_out()), abs=1e-6)
    asked = ["my card is at home", "nothing of this"]
    ours = in_order(vocabulary.tfidf(vocabulary.present(asked)), names)
    assert ours == pytest.approx(in_order(peer.transform(asked), peer.get_feature_names_out()), abs=1e-6)


def test_runs_of_letters_are_those_of_scikit_learn():
    peer = CountVectorizer(analyzer="char_wb", ngram_range=(4, 4), binary=True, min_df=2)
    wanted = peer.fit_transform(TEXTS)
    vocabulary, present = learn(TEXTS, runs_of_four)
    names = list(vocabulary.columns)
    assert (in_order(present, names) == in_order(wanted, peer.get_feature_names_out())).all()


def test_a_vocabulary_needs_a_word_that_is_in_two_texts():
    with pytest.raises(ValueError, match="two texts"):
        learn(["one", "two", ""], words_and_pairs)


def test_the_plain_classifier_learns_and_never_looks_at_the_labels_it_is_asked_for():
    features = features_of(ROWS)
    order = np.random.default_rng(0).permutation(len(ROWS))
    learnt, asked = order[:100], order[100:]
    found = answers(features, LABELS, learnt, asked)
    assert (found == LABELS[asked]).mean() > 0.95
    hidden = LABELS.copy()
    hidden[asked] = LABELS.max()
    assert (answers(features, hidden, learnt, asked) == found).all()
    wrong = LABELS.copy()
    wrong[learnt] = 0
    assert (answers(features, wrong, learnt, asked) == 0).all()


def test_the_audit_loads_no_machine_learning_library():
    code = "import sys, tuneworth.pipeline.preparing; print([m for m in ('sklearn', 'torch', 'transformers', 'scipy.stats') if m in sys.modules])"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
