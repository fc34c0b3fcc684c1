"""Sentence vectors without a model hub and without torch: texts become unit rows whose dot product is likeness.

A text's vector is the mean of its tokens' vectors, from the table of WordLlama (256 numbers for each of 32,000
tokens, trained so that means of sentences that say the same lie close; MIT, 16 MB, English). It was measured against
other ways to do this: docs/log.md, 2026-11-24. The table comes out of a wheel of the package index, once.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy.sparse import csr_matrix
from tokenizers import Tokenizer

from tuneworth.data.words import learn, words_and_pairs
from tuneworth.store.cache import cached_folder
from tuneworth.store.index import download_wheel

Floats = NDArray[np.float32]
Vectorise = Callable[[Sequence[str]], Floats]
"""Texts become rows [texts, numbers] of length 1; a text without a token becomes zeros."""

LONGEST = 8_000
"""Characters of a text that are read: what it is about is clear by then."""

_WHEEL = "wordllama==0.2.2.post0"
_WHEEL_SHA256 = "8d8a3ae6137d3187b730c5439fb685e06a849bd234ad9cd3a9b7e33277f938d8"
_MEMBERS = {
    "wordllama/weights/l2_supercat_256.safetensors": "model.safetensors",
    "wordllama/tokenizers/l2_supercat_tokenizer_config.json": "tokenizer.json",
}
_FOLDER = f"vectors/wordllama-256-{_WHEEL_SHA256[:12]}-1"
_BATCH = 4_096

OWN_SHARE = 0.3
"""Share of the squared length that a set's own words have in `fitted_vectors`; 0.5 was better on sets of few word
forms (snips) and worse on others."""
_OWN_NUMBERS = 128
_FITTED_ROWS = 4_000


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """A `Vectorise`: the mean of the vectors of a text's tokens. `table` is float32 [tokens, numbers].

    A row depends on its text alone, to the bit: neither on the other texts nor on their order.
    """

    tokenizer: Tokenizer
    table: Floats

    def __call__(self, texts: Sequence[str]) -> Floats:
        parts = [self._batch(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, self.table.shape[1]), np.float32)

    def _batch(self, texts: Sequence[str]) -> Floats:
        readable = [text[:LONGEST].encode("utf-8", "replace").decode() for text in texts]
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch_fast(readable, add_special_tokens=False)]
        ends = np.cumsum([0, *map(len, ids)])
        flat = np.fromiter((token for row in ids for token in row), np.int64, int(ends[-1]))
        ones = np.ones(len(flat), np.float32)
        sums = csr_matrix((ones, flat, ends), shape=(len(ids), len(self.table))) @ self.table
        return unit_rows(sums)


def unit_rows(rows: Floats) -> Floats:
    """Each row of [n, d] scaled to length 1; rows of zeros stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def fitted_vectors(vectorise: Vectorise, texts: Sequence[str], seed: int = 0) -> Vectorise:
    """`vectorise` joined with what the words of these texts tell: TF-IDF and truncated SVD, fitted on them.

    Names and terms that the table does not know well count too, and so does a language other than English. Rows keep
    length 1 unless a text has no known word.
    """
    some = texts
    if len(texts) > _FITTED_ROWS:
        some = [texts[row] for row in np.random.default_rng(seed).choice(len(texts), _FITTED_ROWS, replace=False)]
    try:
        vocabulary, present = learn(some, words_and_pairs)
    except ValueError:  # no word occurs twice
        return vectorise
    numbers = min(_OWN_NUMBERS, *(size - 1 for size in present.shape))
    if numbers < 2:
        return vectorise
    directions = _directions(vocabulary.tfidf(present), numbers, seed)

    def joined(texts: Sequence[str]) -> Floats:
        own = unit_rows(vocabulary.tfidf(vocabulary.present(texts)) @ directions)
        return unit_rows(np.hstack([(1 - OWN_SHARE) ** 0.5 * vectorise(texts), OWN_SHARE**0.5 * own]))

    return joined


def _directions(rows: csr_matrix, numbers: int, seed: int) -> Floats:
    """The right singular vectors [columns, numbers] of the largest singular values, nearly (randomised range finder
    with two power iterations; Halko, Martinsson and Tropp 2011)."""
    basis = np.linalg.qr(rows @ np.random.default_rng(seed).standard_normal((rows.shape[1], numbers + 10), np.float32))[
        0
    ]
    for _ in range(2):
        basis = np.linalg.qr(rows @ (rows.T @ basis))[0]
    across = rows.T @ basis
    # The singular vectors of a matrix so tall are cheaper by way of its products with itself.
    squares, mixed = np.linalg.eigh((across.T @ across).astype(np.float64))
    kept = np.argsort(-squares)[:numbers]
    lengths = np.sqrt(np.maximum(squares[kept], 1e-12))
    return np.asarray(across @ (mixed[:, kept] / lengths).astype(np.float32))


def default_vectors() -> TokenVectors:
    """The table of the module's description, from the cache or, the first time, from the package index.

    Raises MachineError when the cache is empty and the package index cannot be reached.
    """
    folder = cached_folder(_FOLDER, _build, needed_bytes=60_000_000)
    return read_vectors(folder)


def read_vectors(folder: Path) -> TokenVectors:
    """The vectors of a folder with `tokenizer.json` and `model.safetensors` (one table [tokens, numbers])."""
    (table,) = load_file(folder / "model.safetensors").values()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return TokenVectors(tokenizer, np.ascontiguousarray(table, dtype=np.float32))


def _build(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wheel = download_wheel(_WHEEL, _WHEEL_SHA256, Path(scratch), holding="the table of word vectors")
        with zipfile.ZipFile(wheel) as archive:
            for member, name in _MEMBERS.items():
                (folder / name).write_bytes(archive.read(member))
