"""Retrieved few-shot: the training rows that are most like a request are its examples, the likest one last.

Likeness is the cosine of the word vectors joined with the set's own words (`data/vectors.py`; measured beside TF-IDF in
docs/log.md). Where the table of word vectors cannot be had, TF-IDF of 2 to 4 characters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from tuneworth.data.example import Example
from tuneworth.data.vectors import Vectorise, fitted_vectors
from tuneworth.evaluation.prompts import PromptForm

_CLOSE = 64  # candidates looked at; a row's own copies and its group may be among them


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Rows that can be shown, and how like a text is to each: `likeness(text)` is float32 [rows]."""

    rows: tuple[Example, ...]
    likeness: Callable[[str], NDArray[np.float32]] = field(repr=False)
    features: str

    @classmethod
    def of(cls, rows: Sequence[Example], vectorise: Vectorise | None, seed: int) -> Neighbours:
        """Neighbours among `rows`, all of which may be shown: training rows, never validation or test (LAW 50)."""
        texts = [row.text for row in rows]
        if vectorise is None:
            return cls(tuple(rows), _by_characters(texts), "TF-IDF of 2 to 4 characters")
        vectors = fitted_vectors(vectorise, texts, seed)
        table = vectors(texts)
        return cls(tuple(rows), lambda text: table @ vectors([text])[0], "word vectors and the set's own words")

    def nearest(self, example: Example, count: int) -> tuple[Example, ...]:
        """The `count` likest rows, the likest last; never the row itself, one of its text, or one of its group."""
        likeness = self.likeness(example.text)
        close = min(_CLOSE, len(likeness))
        order = np.argpartition(-likeness, close - 1)[:close]
        order = order[np.lexsort((order, -likeness[order]))]
        found: list[Example] = []
        own = _plain(example.text)
        for index in order:
            row = self.rows[int(index)]
            same_group = row.group is not None and row.group == example.group
            if row.id != example.id and _plain(row.text) != own and not same_group:
                found.append(row)
            if len(found) == count:
                break
        return tuple(reversed(found))


@dataclass(frozen=True, slots=True)
class RetrievedForm:
    """`base` with the `count` training rows that are likest to the request shown before it."""

    name: str
    base: PromptForm
    neighbours: Neighbours
    count: int
    shots: tuple[Example, ...] = ()

    def messages(self, example: Example) -> list[dict[str, Any]]:
        """The conversation that asks for `example`'s answer."""
        return replace(self.base, shots=self.neighbours.nearest(example, self.count)).messages(example)

    @property
    def keeps_own_system(self) -> bool:
        """Whether a row's own system message is kept."""
        return self.base.keeps_own_system

    def opening(self) -> list[dict[str, Any]]:
        """What all conversations begin with: the system text alone."""
        return self.base.opening()


def retrieved_forms(full: PromptForm, short: PromptForm, neighbours: Neighbours) -> list[RetrievedForm]:
    """4 or 8 retrieved rows behind the full prompt or the short one, the dearest last: examples tell much of the task,
    and small models do better without a list of labels before them.
    """
    order = [(full, 4), (short, 4), (short, 8), (full, 8)]
    return [RetrievedForm(f"{base.name}, {count} retrieved", base, neighbours, count) for base, count in order]


def _by_characters(texts: Sequence[str]) -> Callable[[str], NDArray[np.float32]]:
    vectoriser = TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(2, 4), dtype=np.float32)
    table = vectoriser.fit_transform(texts)
    return lambda text: np.asarray((table @ vectoriser.transform([text]).T).toarray(), dtype=np.float32).ravel()


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
