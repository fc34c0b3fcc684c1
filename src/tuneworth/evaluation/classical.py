"""The classical floor: TF-IDF and logistic regression for labels, the nearest training row's answer for text.

References: Salton & Buckley 1988 (TF-IDF); logistic regression by scikit-learn.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline

from tuneworth.data.example import Example
from tuneworth.evaluation.records import RawAnswer

_STRENGTHS = (3.0, 30.0)
_CHOICE_ROWS = 4000


@dataclass(frozen=True, slots=True)
class Classical:
    """A fitted classical model, its settings in words, and what fitting took."""

    model: Pipeline | tuple[TfidfVectorizer, Any, tuple[str, ...]]
    settings: dict[str, str | float]
    fit_seconds: float

    def answer(self, examples: Sequence[Example]) -> list[RawAnswer]:
        """Answers in order; seconds are each row's share of one pass over all."""
        start = time.perf_counter()
        texts = [example.text for example in examples]
        if isinstance(self.model, Pipeline):
            written = [str(label) for label in self.model.predict(texts)]
        else:
            vectoriser, matrix, replies = self.model
            nearest = np.asarray((vectoriser.transform(texts) @ matrix.T).argmax(axis=1)).ravel()
            written = [replies[i] for i in nearest]
        seconds = (time.perf_counter() - start) / max(1, len(examples))
        return [RawAnswer(text, "stop", "", 0, 0, seconds) for text in written]


def fit_classifier(train: Sequence[Example], validation: Sequence[Example], seed: int) -> Classical:
    """TF-IDF of words and word pairs and of characters, then logistic regression.

    The strength of regularisation is chosen on validation (fitted on at most 4,000 train rows), then all are fitted.
    """
    start = time.perf_counter()
    some = train[:_CHOICE_ROWS]
    scores = {}
    for strength in _STRENGTHS:
        model = _fit(some, strength, seed)
        right = model.predict([e.text for e in validation]) == np.array([e.answer for e in validation])
        scores[strength] = float(np.mean(right))
    best = max(_STRENGTHS, key=lambda strength: scores[strength])
    model = _fit(train, best, seed)
    settings: dict[str, str | float] = {
        "features": "TF-IDF of words, word pairs and 2 to 4 characters",
        "classifier": "logistic regression",
        "C": best,
        "validation_score": scores[best],
    }
    return Classical(model, settings, time.perf_counter() - start)


def fit_retrieval(train: Sequence[Example]) -> Classical:
    """The answer of the nearest training row by TF-IDF cosine: the floor for free text."""
    start = time.perf_counter()
    vectoriser = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), dtype=np.float32)
    matrix = vectoriser.fit_transform([example.text for example in train])
    replies = tuple(example.answer for example in train)
    settings: dict[str, str | float] = {
        "features": "TF-IDF of words and word pairs",
        "answer": "of the nearest row",
    }
    return Classical((vectoriser, matrix, replies), settings, time.perf_counter() - start)


def _fit(train: Sequence[Example], strength: float, seed: int) -> Pipeline:
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=1, dtype=np.float32)
    characters = TfidfVectorizer(
        sublinear_tf=True,
        analyzer="char_wb",
        ngram_range=(2, 4),
        min_df=2,
        max_features=50_000,
        dtype=np.float32,
    )
    classifier = LogisticRegression(C=strength, max_iter=100, tol=1e-3, random_state=seed)
    model = make_pipeline(FeatureUnion([("words", words), ("characters", characters)]), classifier)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last digit of a floor does not matter
        return model.fit([e.text for e in train], [e.answer for e in train])
