"""MinHash sketches of texts: which rows could be nearly the same, without comparing each with each.

A text is the set of its runs of `RUN` bytes in normal form. Its signature holds, for each of `HASHES` random orders of
all runs, the first of its own (Broder 1997), cut to 8 bits (Li and Koenig 2010): two texts agree in a place with the
chance that is their Jaccard similarity, and in one of 256 of the others. `PLACES_IN_BAND` places make a band, and texts
that agree in a whole band are candidates (locality-sensitive hashing): with 42 bands of 3, 99.6 % of pairs of
similarity 0.5 and 94 % of 0.4 are found. Candidates whose signatures agree in fewer than `LEAST_AGREEMENT` of all
places are dropped unseen; what is left has to be compared as text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

RUN = 4
SHORTEST = 20
"""Characters. In shorter texts one other word makes another question."""
BANDS, PLACES_IN_BAND = 42, 3
HASHES = BANDS * PLACES_IN_BAND
LEAST_AGREEMENT = 0.33

_BLOCK = 200_000  # pairs whose signatures are compared at a time


def signatures_of(texts: Sequence[str]) -> NDArray[np.uint8]:
    """The signatures of texts in normal form: [texts, HASHES]. Zero for texts shorter than `SHORTEST`."""
    if not texts:
        return np.zeros((0, HASHES), np.uint8)
    # A space on both sides marks the ends, and gives even one letter a run.
    encoded = [f"  {text}  ".encode("utf-8", "surrogatepass") for text in texts]
    ends = np.cumsum([len(one) for one in encoded])
    runs = _run_hashes(np.frombuffer(b"".join(encoded), np.uint8), ends)
    offsets = np.concatenate([[0], ends - np.arange(1, len(texts) + 1) * (RUN - 1)]).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(runs, offsets, num_perm=HASHES, seed=1)
    signatures = (np.array(matrix.to_rows(), dtype=np.uint32) & np.uint32(255)).astype(np.uint8)
    signatures[[len(text) < SHORTEST for text in texts]] = 0
    return signatures


def _run_hashes(data: NDArray[np.uint8], ends: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A well-mixed hash (splitmix64) of each run of `RUN` bytes that lies within one text."""
    hashes = np.zeros(len(data) - RUN + 1, np.uint64)
    for place in range(RUN):
        hashes |= data[place : len(hashes) + place].astype(np.uint64) << np.uint64(8 * place)
    within = np.ones(len(hashes), bool)
    for place in range(1, RUN):
        within[ends[:-1] - place] = False
    values = hashes[within]
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def candidates(signatures: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Pairs of rows that could be nearly the same: [pairs, 2], the earlier row first, in order.

    Of rows that fall together each is paired with the first and with the one before it, not with all: that is enough
    to name it, and keeps the pairs at most 2 * BANDS a row.
    """
    usable = np.flatnonzero(signatures.any(axis=1))
    found = [pairs for band in range(BANDS) for pairs in _agreeing(signatures, usable, band)]
    if not found:
        return np.zeros((0, 2), np.int64)
    one, other = np.concatenate(found).T
    codes = np.unique(one * np.int64(len(signatures)) + other)
    return np.stack(np.divmod(codes, len(signatures)), axis=1)


def _agreeing(signatures: NDArray[np.uint8], usable: NDArray[np.int64], band: int) -> Iterator[NDArray[np.int64]]:
    key = np.zeros(len(usable), np.uint32)
    for place in range(band * PLACES_IN_BAND, (band + 1) * PLACES_IN_BAND):
        key = (key << np.uint32(8)) | signatures[usable, place]
    order = np.argsort(key, kind="stable")
    key = key[order]
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    firsts = np.repeat(starts, np.diff(np.append(starts, len(key))))
    rows = usable[order]
    members = np.flatnonzero(firsts != np.arange(len(key)))
    first, before, member = rows[firsts[members]], rows[members - 1], rows[members]
    chained = first != before
    pairs = np.concatenate([np.stack([first, member], 1), np.stack([before, member], 1)[chained]])
    for start in range(0, len(pairs), _BLOCK):
        block = pairs[start : start + _BLOCK]
        agreement = np.mean(signatures[block[:, 0]] == signatures[block[:, 1]], axis=1)
        yield block[agreement >= LEAST_AGREEMENT]
