"""The classical floor: a linear model on words or on word vectors where answers are classes or preferences, else the
nearest training row's answer.

Which features, and how strongly they are regularised, is chosen on validation; the most frequent label is scored beside
them, since a floor that does not beat it has learnt nothing.

References: Salton & Buckley 1988 (TF-IDF); logistic regression by scikit-learn; Bradley & Terry 1952 (preferences).
"""

from __future__ import annotations

import json
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack, vstack
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MultiLabelBinarizer

from tuneworth.data.example import Example
from tuneworth.data.vectors import Vectorise
from tuneworth.evaluation.metrics.labelsets import set_f1
from tuneworth.evaluation.metrics.pairs import preferred
from tuneworth.evaluation.records import RawAnswer
from tuneworth.rendering.tools import reply_text

_STRENGTHS = (3.0, 30.0)
_CHOICE_ROWS = 4000
Written = tuple[str, dict[str, float]]
"""An answer, and further numbers of it as in RawAnswer.parts."""
Fit = Callable[[Sequence[Example], float], Any]
"""Rows and the strength of regularisation become a model."""


@dataclass(frozen=True, slots=True)
class Classical:
    """A fitted classical model, its settings in words, and what fitting took."""

    write: Callable[[Sequence[Example]], list[Written]]
    settings: dict[str, Any]
    fit_seconds: float

    def answer(self, examples: Sequence[Example]) -> list[RawAnswer]:
        """Answers in order; seconds are each row's share of one pass over all."""
        start = time.perf_counter()
        written = self.write(examples)
        seconds = (time.perf_counter() - start) / max(1, len(examples))
        return [RawAnswer(text, "stop", "", 0, 0, seconds, parts=parts) for text, parts in written]


def fit_classical(
    kind: str, train: Sequence[Example], validation: Sequence[Example], seed: int, vectorise: Vectorise | None = None
) -> Classical:
    """The floor of a kind; with `vectorise` word vectors are tried beside words."""
    if kind == "classification":
        return fit_classifier(train, validation, seed, vectorise)
    if kind == "multilabel":
        return fit_label_sets(train, validation, seed, vectorise)
    if kind == "preference":
        return fit_preferences(train, validation, seed)
    return fit_retrieval(train)


def fit_classifier(
    train: Sequence[Example], validation: Sequence[Example], seed: int, vectorise: Vectorise | None = None
) -> Classical:
    """TF-IDF of words and word pairs and of characters, or word vectors; then logistic regression.

    Features and the strength of regularisation are chosen on validation (fitted on at most 4,000 train rows), then all
    are fitted.
    """
    start = time.perf_counter()
    wanted = np.array([e.answer for e in validation])

    def fit(features: Any, rows: Sequence[Example], strength: float) -> Pipeline:
        classifier = LogisticRegression(C=strength, max_iter=100, tol=1e-3, random_state=seed)
        return _fitted(make_pipeline(features, classifier), rows, [e.answer for e in rows])

    def validated(model: Pipeline) -> float:
        return float(np.mean(model.predict(_texts(validation)) == wanted))

    model, settings = _chosen(train, _ways(fit, vectorise), validated)
    most, _ = Counter(e.answer for e in train).most_common(1)[0]
    settings |= {"most_frequent_label": most, "validation_score_of_most_frequent": float(np.mean(wanted == most))}

    def write(examples: Sequence[Example]) -> list[Written]:
        chances = model.predict_proba(_texts(examples))
        best = chances.argmax(axis=1)
        return [
            (str(model.classes_[which]), {"confidence": float(row[which])})
            for row, which in zip(chances, best, strict=True)
        ]

    return Classical(write, settings | {"classifier": "logistic regression"}, time.perf_counter() - start)


def fit_label_sets(
    train: Sequence[Example], validation: Sequence[Example], seed: int, vectorise: Vectorise | None = None
) -> Classical:
    """The same features, and one logistic regression for each label; labels at least as likely as not are answered."""
    start = time.perf_counter()
    names = MultiLabelBinarizer().fit([e.labels for e in train])

    def fit(features: Any, rows: Sequence[Example], strength: float) -> Pipeline:
        one = LogisticRegression(C=strength, max_iter=100, tol=1e-3, random_state=seed, class_weight="balanced")
        model = make_pipeline(features, OneVsRestClassifier(one))
        return _fitted(model, rows, names.transform([e.labels for e in rows]))

    def answers(model: Pipeline, examples: Sequence[Example]) -> list[list[str]]:
        found = names.inverse_transform(np.asarray(model.predict(_texts(examples))))
        return [list(map(str, labels)) for labels in found]

    def validated(model: Pipeline) -> float:
        given = answers(model, validation)
        return float(np.mean([set_f1(set(e.labels), set(g)) for e, g in zip(validation, given, strict=True)]))

    model, settings = _chosen(train, _ways(fit, vectorise), validated)

    def write(examples: Sequence[Example]) -> list[Written]:
        return [(json.dumps(labels, ensure_ascii=False), {}) for labels in answers(model, examples)]

    return Classical(write, settings | {"classifier": "logistic regression per label"}, time.perf_counter() - start)


def fit_preferences(train: Sequence[Example], validation: Sequence[Example], seed: int) -> Classical:
    """Pairwise logistic regression (Bradley-Terry) on the difference of the two answers' TF-IDF and lengths. It never
    reads the prompt: what it gets right can be had by style and length alone, which is also why it is the floor.

    `longest_answer` among the settings is the validation accuracy of always taking the longer answer.
    """
    start = time.perf_counter()
    vectoriser = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2, max_features=50_000, dtype=np.float32)
    vectoriser.fit([text for e in train for text in _pair(e)] + ["a a"])

    def features(examples: Sequence[Example]) -> csr_matrix:
        better, worse = (vectoriser.transform([_pair(e)[side] for e in examples]) for side in (0, 1))
        lengths = np.array([[np.log1p(len(text)) for text in _pair(e)] for e in examples])
        return hstack([better - worse, csr_matrix(lengths[:, :1] - lengths[:, 1:])]).tocsr()

    def fit(rows: Sequence[Example], strength: float) -> Any:
        model = LogisticRegression(C=strength, max_iter=200, tol=1e-3, random_state=seed, fit_intercept=False)
        seen = features(rows)
        # Each pair the right way and turned round, so that neither side is special.
        return model.fit(vstack([seen, -seen]).tocsr(), np.repeat([1, -1], seen.shape[0]))

    def margins(model: Any, examples: Sequence[Example]) -> NDArray[np.float64]:
        return np.asarray(model.decision_function(features(examples)), dtype=np.float64)

    about = "TF-IDF of words and word pairs, and length, of one answer less the other"
    model, settings = _chosen(train, {about: fit}, lambda model: float(np.mean(margins(model, validation) > 0)))
    longer = float(np.mean([len(_pair(e)[0]) > len(_pair(e)[1]) for e in validation]))

    def write(examples: Sequence[Example]) -> list[Written]:
        return [(preferred(margin), {"margin": float(margin)}) for margin in margins(model, examples)]

    settings |= {"classifier": "pairwise logistic regression", "longest_answer": longer}
    return Classical(write, settings, time.perf_counter() - start)


def fit_retrieval(train: Sequence[Example]) -> Classical:
    """The answer of the nearest training row by TF-IDF cosine: the floor for free text, objects and calls."""
    start = time.perf_counter()
    vectoriser = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), dtype=np.float32, token_pattern=r"(?u)\b\w+\b")
    matrix = vectoriser.fit_transform(_last_messages(train))
    replies = [reply_text(example.reply.to_openai()) for example in train]
    settings = {"features": "TF-IDF of words and word pairs", "answer": "of the nearest row"}

    def write(examples: Sequence[Example]) -> list[Written]:
        near = vectoriser.transform(_last_messages(examples)) @ matrix.T
        return [(replies[i], {}) for i in np.asarray(near.argmax(axis=1)).ravel()]

    return Classical(write, settings, time.perf_counter() - start)


def _ways(fit: Callable[[Any, Sequence[Example], float], Any], vectorise: Vectorise | None) -> dict[str, Fit]:
    """How texts can become features, each as a fit of its own."""
    ways: dict[str, Fit] = {
        "TF-IDF of words, word pairs and 2 to 4 characters": lambda rows, strength: fit(
            _words_and_characters(), rows, strength
        )
    }
    if vectorise is not None:
        ways["word vectors"] = partial(fit, FunctionTransformer(vectorise))
    return ways


def _chosen(
    train: Sequence[Example], ways: Mapping[str, Fit], validated: Callable[[Any], float]
) -> tuple[Any, dict[str, Any]]:
    """The model with the features and the strength of regularisation that are best on validation, fitted on all."""
    some = train[:_CHOICE_ROWS]
    tried = [(name, c, validated(fit(some, c))) for name, fit in ways.items() for c in _STRENGTHS]
    features, strength, score = max(tried, key=lambda one: one[2])
    settings = {
        "features": features,
        "C": strength,
        "validation_score": score,
        "tried": [{"form": f"{name}, C {c:g}", "score": found} for name, c, found in tried],
    }
    return ways[features](train, strength), settings


def _fitted(model: Pipeline, rows: Sequence[Example], wanted: Any) -> Pipeline:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last digit of a floor does not matter
        warnings.filterwarnings("ignore", message="Label not .* is present in all training examples")
        return model.fit(_texts(rows), wanted)


def _words_and_characters() -> FeatureUnion:
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=1, dtype=np.float32)
    characters = TfidfVectorizer(
        sublinear_tf=True, analyzer="char_wb", ngram_range=(2, 4), min_df=2, max_features=50_000, dtype=np.float32
    )
    return FeatureUnion([("words", words), ("characters", characters)])


def _texts(examples: Sequence[Example]) -> list[str]:
    return [example.text for example in examples]


def _last_messages(examples: Sequence[Example]) -> list[str]:
    return [example.messages[-1].content if example.messages else "" for example in examples]


def _pair(example: Example) -> tuple[str, str]:
    return example.answer, example.rejected.content if example.rejected is not None else ""
