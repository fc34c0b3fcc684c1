"""Which words, word pairs and runs of letters are in some texts: rows of a sparse matrix, in one pass over the texts.

Tokens, pairs, runs and TF-IDF weights are those of scikit-learn's vectorisers (binary), which take four times as long
and half a second to import. Columns are numbered as they first occur, so that equal texts give equal bits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

LONGEST = 4_000
"""Characters of a text that are read."""

Parts = Callable[[str], Iterable[str]]
"""A text in lower case becomes what is counted of it."""

_WORD = re.compile(r"\w\w+")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The parts that count, with their column, and how much each weighs: log((1 + texts) / (1 + texts with it)) + 1."""

    parts: Parts
    columns: Mapping[str, int]
    weights: NDArray[np.float32]

    def present(self, texts: Sequence[str]) -> csr_matrix:
        """Which parts are in each text: float32 [texts, columns], 1 or 0."""
        columns = self.columns
        rows = [[columns[part] for part in _distinct(self.parts, text) if part in columns] for text in texts]
        return _matrix(rows, len(columns))

    def tfidf(self, present: csr_matrix) -> csr_matrix:
        """The rows of `present` weighted, and scaled to length 1; a text without a known part stays zero."""
        weighted = present.copy()
        weighted.data = self.weights[present.indices]
        row = np.repeat(np.arange(present.shape[0]), np.diff(present.indptr))
        squares = np.bincount(row, weighted.data.astype(np.float64) ** 2, minlength=present.shape[0])
        weighted.data /= np.sqrt(squares).astype(np.float32)[row]
        return weighted


def learn(texts: Sequence[str], parts: Parts) -> tuple[Vocabulary, csr_matrix]:
    """The parts that are in two texts or more, and which of them are in each text (as `present` says).

    Raises ValueError when there is none.
    """
    numbers: dict[str, int] = {}
    rows = [[numbers.setdefault(part, len(numbers)) for part in _distinct(parts, text)] for text in texts]
    present = _matrix(rows, len(numbers))
    texts_with = np.bincount(present.indices, minlength=len(numbers))
    kept = texts_with >= 2
    if not kept.any():
        raise ValueError("no part is in two texts")
    column = np.cumsum(kept) - 1
    columns = {part: int(column[number]) for part, number in numbers.items() if kept[number]}
    weights = np.log((1 + len(texts)) / (1 + texts_with[kept])) + 1
    return Vocabulary(parts, columns, weights.astype(np.float32)), present[:, np.flatnonzero(kept)]


def words_and_pairs(text: str) -> Iterable[str]:
    """Words of two letters or more, and each two that follow one another."""
    words = _WORD.findall(text)
    return [*words, *map(" ".join, pairwise(words))]


def runs_of_four(text: str) -> Iterable[str]:
    """Every four letters within a word with a space on both sides."""
    padded = [f" {word} " for word in text.split()]
    return [word[place : place + 4] for word in padded for place in range(max(1, len(word) - 3))]


def _distinct(parts: Parts, text: str) -> Iterable[str]:
    return dict.fromkeys(parts(text[:LONGEST].lower()))


def _matrix(rows: Sequence[Sequence[int]], columns: int) -> csr_matrix:
    ends = np.cumsum([0, *map(len, rows)])
    indices = np.fromiter((number for row in rows for number in row), np.int32, int(ends[-1]))
    return csr_matrix((np.ones(len(indices), np.float32), indices, ends), shape=(len(rows), columns))
