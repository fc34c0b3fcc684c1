"""The classical floor: logistic regression on words or on word vectors for labels, the nearest row's answer for text.

Which features, and how strongly they are regularised, is chosen on validation; the most frequent label is scored beside
them, since a floor that does not beat it has learnt nothing. References: Salton & Buckley 1988 (TF-IDF); logistic
regression by scikit-learn.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tuneworth.data.example import Example
from tuneworth.data.vectors import Vectorise
from tuneworth.evaluation.records import RawAnswer

_STRENGTHS = (3.0, 30.0)
_CHOICE_ROWS = 4000


Texts = Sequence[str]


@dataclass(frozen=True, slots=True)
class Classical:
    """A fitted classical model: texts become answers; its settings in words, what fitting took, and (of labels) the
    probability of each answer."""

    predict: Callable[[Texts], list[str]]
    settings: dict[str, Any]
    fit_seconds: float
    probability: Callable[[Texts], NDArray[np.float64]] | None = None

    def answer(self, examples: Sequence[Example]) -> list[RawAnswer]:
        """Answers in order; seconds are each row's share of one pass over all."""
        start = time.perf_counter()
        written = self.predict([example.text for example in examples])
        seconds = (time.perf_counter() - start) / max(1, len(examples))
        return [RawAnswer(text, "stop", "", 0, 0, seconds) for text in written]


def fit_classifier(
    train: Sequence[Example], validation: Sequence[Example], seed: int, vectorise: Vectorise | None = None
) -> Classical:
    """TF-IDF of words, word pairs and characters, or (with `vectorise`) word vectors; then logistic regression.

    Features and the strength of regularisation are chosen on validation (fitted on at most 4,000 train rows); what is
    chosen is fitted on all.
    """
    start = time.perf_counter()
    some = train[:_CHOICE_ROWS]
    ways: dict[str, Callable[[float], Any]] = {"TF-IDF of words, word pairs and 2 to 4 characters": _tfidf}
    if vectorise is not None:
        ways["word vectors"] = lambda strength: make_pipeline(FunctionTransformer(vectorise), _regression(strength))
    wanted = np.array([example.answer for example in validation])
    texts = [example.text for example in validation]
    tried = []
    for features, make in ways.items():
        for strength in _STRENGTHS:
            right = _fit(make(strength), some, seed).predict(texts) == wanted
            tried.append((float(np.mean(right)), features, strength))
    score, features, strength = max(tried, key=lambda one: one[0])
    model = _fit(ways[features](strength), train, seed)
    most, _ = Counter(example.answer for example in train).most_common(1)[0]
    settings = {
        "features": features,
        "classifier": "logistic regression",
        "C": strength,
        "validation_score": score,
        "tried": [{"form": f"{way}, C {c:g}", "rows": len(wanted), "score": found} for found, way, c in tried],
        "most_frequent_label": most,
        "validation_score_of_most_frequent_label": float(np.mean(wanted == most)),
    }
    return Classical(
        lambda texts: [str(label) for label in model.predict(texts)],
        settings,
        time.perf_counter() - start,
        lambda texts: np.asarray(model.predict_proba(texts).max(axis=1), dtype=np.float64),
    )


def fit_retrieval(train: Sequence[Example]) -> Classical:
    """The answer of the nearest training row by TF-IDF cosine: the floor for free text."""
    start = time.perf_counter()
    vectoriser = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), dtype=np.float32)
    matrix = vectoriser.fit_transform([example.text for example in train])
    replies = tuple(example.answer for example in train)

    def predict(texts: Texts) -> list[str]:
        nearest = np.asarray((vectoriser.transform(texts) @ matrix.T).argmax(axis=1)).ravel()
        return [replies[i] for i in nearest]

    settings = {"features": "TF-IDF of words and word pairs", "answer": "of the nearest row"}
    return Classical(predict, settings, time.perf_counter() - start)


def _tfidf(strength: float) -> Pipeline:
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=1, dtype=np.float32)
    characters = TfidfVectorizer(
        sublinear_tf=True,
        analyzer="char_wb",
        ngram_range=(2, 4),
        min_df=2,
        max_features=50_000,
        dtype=np.float32,
    )
    return make_pipeline(FeatureUnion([("words", words), ("characters", characters)]), _regression(strength))


def _regression(strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=100, tol=1e-3)


def _fit(model: Pipeline, train: Sequence[Example], seed: int) -> Pipeline:
    model.set_params(logisticregression__random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last digit of a floor does not matter
        return model.fit([e.text for e in train], [e.answer for e in train])
