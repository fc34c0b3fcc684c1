"""The plain classifier that the audit asks: TF-IDF of words and word pairs, logistic regression, in a fraction of a
second. It stands for what the texts say about the labels, not for the best that can be had from them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

LONGEST = 4_000
"""Characters of a text that are read."""

Labels = NDArray[np.str_]


def word_counts(learnt: Sequence[str], asked: Sequence[str] = ()) -> tuple[csr_matrix, csr_matrix | None]:
    """TF-IDF of some texts, and of others by the words of the first (None for no others).

    Raises ValueError when the first have no words.
    """
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), max_features=200_000, dtype=np.float32)
    counts = words.fit_transform(text[:LONGEST] for text in learnt)
    return counts, words.transform(text[:LONGEST] for text in asked) if len(asked) else None


def fit_plain(counts: csr_matrix, labels: Labels, strength: float = 30.0) -> LogisticRegression:
    """The classifier after these rows, of two labels or more; `strength` is scikit-learn's C.

    SAGA with few passes scores nearly as L-BFGS does (0.835 to 0.842 and 0.843 after 4,000 rows of banking77) in less
    than a fifth of its time.
    """
    model = LogisticRegression(C=strength, solver="saga", max_iter=15, tol=1e-3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        return model.fit(counts, labels)


def plain_answers(counts: csr_matrix, labels: Labels, asked: csr_matrix) -> Labels:
    """The labels that the classifier gives the rows `asked`; the only label where there is one."""
    if len(set(labels)) < 2:
        return np.full(asked.shape[0], labels[0])
    return np.asarray(fit_plain(counts, labels).predict(asked))
