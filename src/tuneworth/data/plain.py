"""The plain classifier that the audit asks: naive Bayes and ridge regression together, both in closed form.

It stands for what the texts say about the labels, not for the best that can be had from them. Naive Bayes on words,
word pairs and runs of four letters, and ridge regression on a Nystroem map of the TF-IDF kernel of words and word
pairs, are right as often as logistic regression on TF-IDF is, in a tenth of its time (docs/results.md, "Size"). Both
can predict each row from all others: naive Bayes takes the row's own counts off before it predicts, ridge regression
has the exact leave-one-out formula (y - Hy) / (1 - h).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack

from tuneworth.data.words import learn, runs_of_four, words_and_pairs

LANDMARKS = 500
"""Rows that span the Nystroem map."""
SMOOTHING = 0.3
RIDGE = 1.0
SHARPNESS_OF_RIDGE, SHARPNESS_OF_BAYES = 6.0, 2.0
"""What turns scores into probabilities: naive Bayes is far too sure of itself, ridge regression not at all. Chosen,
like the weights, on planted errors in banking77, snips and sms_spam; the ranking changes little with them."""
WEIGHT_OF_RIDGE = 2.0
_LEAST_AVOIDED = 0.1
_LARGEST_TABLE = 8_000_000  # numbers of the words' weights by class that are held at once

Numbers = NDArray[np.int64]
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Features:
    """What the classifier sees of some texts: `counts` says which words, pairs and runs are in each (1 or 0), `map`
    [texts, numbers] are the Nystroem features."""

    counts: csr_matrix
    map: NDArray[np.float32]


def features_of(texts: Sequence[str], seed: int = 0) -> Features:
    """Look at some texts. Raises ValueError when no word is in two of them."""
    vocabulary, words = learn(texts, words_and_pairs)
    _, runs = learn(texts, runs_of_four)
    return Features(hstack([words, runs]).tocsr(), _map(vocabulary.tfidf(words), seed))


def answers(features: Features, labels: Numbers, learnt: Numbers, asked: Numbers) -> Numbers:
    """The labels (0 to K-1) that the rows `asked` seem to have after the labels of the rows `learnt`."""
    classes, known = int(labels.max()) + 1, labels[learnt]
    counts = features.counts[asked]
    bayes = _Bayes.fitted(features.counts[learnt], known, classes).scores(counts) / _lengths(counts)
    inputs, wanted = _with_one(features.map[learnt]), _one_hot(known, classes)
    weights = np.linalg.solve(_gram(inputs), inputs.T @ wanted).astype(np.float32)
    return np.asarray(_joined(bayes, _with_one(features.map[asked]) @ weights).argmax(axis=1))


def scores_without_own(features: Features, labels: Numbers) -> Scores:
    """The log probability of each class (0 to K-1) for each row, from the labels of all other rows: [rows, K]."""
    counts, classes = features.counts, int(labels.max()) + 1
    bayes = _Bayes.fitted(counts, labels, classes).scores_without_own(counts, labels) / _lengths(counts)
    return _joined(bayes, _ridge_without_own(features.map, labels, classes))


def labels_follow(scores: Scores, labels: Numbers) -> bool:
    """Whether the labels follow from the texts at all, as `scores_without_own` see them: whether they avoid a tenth of
    the mistakes of whoever always says the most frequent label. Where they do not, they say nothing about single rows.
    """
    usual = np.bincount(labels).max() / len(labels)
    right = (scores.argmax(axis=1) == labels).mean()
    return bool(1 - right <= (1 - _LEAST_AVOIDED) * (1 - usual))


def _joined(bayes: Scores, ridge: NDArray[np.float32]) -> Scores:
    scores = _log_softmax(SHARPNESS_OF_BAYES * bayes)
    scores += WEIGHT_OF_RIDGE * _log_softmax(SHARPNESS_OF_RIDGE * ridge)
    return np.asarray(scores / (1 + WEIGHT_OF_RIDGE))


def _log_softmax(scores: NDArray[np.floating]) -> Scores:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), dtype=np.float64)


def _lengths(counts: csr_matrix) -> Scores:
    return np.asarray(np.sqrt(np.maximum(1, np.diff(counts.indptr)))[:, None])


@dataclass(frozen=True, slots=True)
class _Bayes:
    """Multinomial naive Bayes: rows with each word by class (sparse [K, words]), words by class, rows by class."""

    by_class: csr_matrix
    totals: Scores
    sizes: Numbers

    @classmethod
    def fitted(cls, counts: csr_matrix, labels: Numbers, classes: int) -> _Bayes:
        rows = counts.shape[0]
        member = csr_matrix((np.ones(rows, np.float32), (labels, np.arange(rows))), shape=(classes, rows))
        by_class = (member @ counts).tocsr()
        by_class.sort_indices()
        sums = np.asarray(by_class.sum(axis=1), dtype=np.float64).ravel()
        return cls(by_class, sums, np.bincount(labels, minlength=classes))

    def scores(self, counts: csr_matrix) -> Scores:
        """Log joint probability of each row and class: [rows, K].

        A word that a class lacks adds log(SMOOTHING) to it, and one that it has so much more that only those are
        summed up.
        """
        classes, words = self.by_class.shape
        more = self.by_class.copy()
        more.data = np.log1p(more.data / SMOOTHING)
        step = max(1, _LARGEST_TABLE // max(1, words))
        blocks = [
            counts @ np.ascontiguousarray(more[first : first + step].toarray().T) for first in range(0, classes, step)
        ]
        scores = np.hstack(blocks).astype(np.float64)
        scores += np.diff(counts.indptr)[:, None] * (np.log(SMOOTHING) - np.log(self.totals + SMOOTHING * words))
        return np.asarray(scores + np.log(self.sizes + 1.0))

    def scores_without_own(self, counts: csr_matrix, labels: Numbers) -> Scores:
        """`scores` of the rows that this was fitted on, each as if it had been left out."""
        scores, (rows, words) = self.scores(counts), counts.shape
        lengths = np.diff(counts.indptr)
        where = np.repeat(np.arange(rows), lengths)
        others = np.asarray(self.by_class[labels[where], counts.indices]).ravel() - counts.data
        own = np.bincount(where, np.log(others + SMOOTHING), minlength=rows)
        own -= lengths * np.log(self.totals[labels] - lengths + SMOOTHING * words)
        scores[np.arange(rows), labels] = own + np.log(self.sizes[labels])
        return scores


def _map(vectors: csr_matrix, seed: int) -> NDArray[np.float32]:
    """Nystroem features: products with some rows, made orthogonal."""
    chosen = np.random.default_rng(seed).permutation(vectors.shape[0])[:LANDMARKS]
    products = np.asarray((vectors @ vectors[chosen].T).todense(), dtype=np.float32)
    values, directions = np.linalg.eigh(products[chosen].astype(np.float64))
    kept = values > 1e-3 * values[-1]
    return np.asarray(products @ (directions[:, kept] / np.sqrt(values[kept])).astype(np.float32))


def _ridge_without_own(features: NDArray[np.float32], labels: Numbers, classes: int) -> NDArray[np.float32]:
    """Predictions of ridge regression on one-hot labels, each row left out of the fit that predicts it."""
    inputs, wanted = _with_one(features), _one_hot(labels, classes)
    inverse = np.linalg.inv(_gram(inputs)).astype(np.float32)
    predicted = inputs @ (inverse @ (inputs.T @ wanted))
    leverage = np.minimum(np.einsum("ij,ij->i", inputs @ inverse, inputs), 0.999)[:, None]
    return np.asarray((predicted - leverage * wanted) / (1 - leverage))


def _with_one(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.hstack([features, np.ones((len(features), 1), np.float32)])


def _one_hot(labels: Numbers, classes: int) -> NDArray[np.float32]:
    wanted = np.zeros((len(labels), classes), np.float32)
    wanted[np.arange(len(labels)), labels] = 1
    return wanted


def _gram(inputs: NDArray[np.float32]) -> Scores:
    return np.asarray((inputs.T @ inputs).astype(np.float64) + RIDGE * np.eye(inputs.shape[1]))
