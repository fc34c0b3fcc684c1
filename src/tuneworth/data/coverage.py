"""How well the training rows cover what is asked: which requests are far from all of them, and what these are about.

A request is far when the mean likeness to its three nearest training rows is below that of all but 5 % of the training
rows themselves. Requests like the training rows are far in 5 % of cases, so the share beyond that is what counts. That
far requests are answered worse is measured in docs/results.md ("Coverage").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import scipy
from numpy.typing import NDArray

from tuneworth.data.private import private_kinds
from tuneworth.data.vectors import Floats, Vectorise, fitted_vectors, unit_rows

NEAREST = 3
FAR_OF_OWN = 0.05
"""Share of the training rows that are as far from the others as a request has to be to count as far."""
CONFIDENCE = 0.95
KNOWN_ROWS = 10_000
"""Training rows that requests are compared with, at most; more are sampled."""
REQUESTS = 20_000
"""Requests that are looked at, at most; more are sampled."""
FEWEST_ROWS = 50
"""Training rows, and requests, below which nothing is measured."""

_LIKENESS_IN_GAP = 0.4
_GROUPED = 1_500
_SHOWN = 90
_WORD = re.compile(r"[^\W\d_][\w'’-]{2,}")
_COMMON = """
about after again all also and any are because been before being both but can cannot could did does doing done down
during each else even every few for from get give gives got had has have having her here hers him his how into its
just let like made make makes may maybe might mine more most much must myself need neither never nor not now off
often once one only onto other others our ours out over own please put really said same say see shall she should
since some still such than that the their theirs them then there these they this those though through thus too under
until upon use very via want was way were what when where whether which while who whom whose why will with within
without would yes yet you your yours yourself
"""  # three letters and longer; they do not tell what a text is about
_COMMON_WORDS = frozenset(_COMMON.split())
_LINK_OR_NUMBER = re.compile(r"@|\d[\d -]{5,}|https?:|www\.")


@dataclass(frozen=True, slots=True)
class Gap:
    """Requests about one thing that the training rows do not cover. `requests` counts them in the sample, `rows` are
    their numbers among the requests, `words` tell them from the training rows, `examples` are the most typical."""

    requests: int
    rows: tuple[int, ...]
    words: tuple[str, ...]
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many of `requests` are not covered: `uncovered` (0..1) is the share beyond the one that is far by chance,
    `interval` its 95 % interval; `far` holds the numbers of the far requests, the farthest first; `gaps` the groups
    among them, the largest first (empty when the interval begins at zero)."""

    requests: int
    uncovered: float
    interval: tuple[float, float]
    far: tuple[int, ...]
    gaps: tuple[Gap, ...]


def coverage(known: Sequence[str], asked: Sequence[str], vectorise: Vectorise, seed: int = 0) -> Coverage | None:
    """Compare the requests `asked` with the training texts `known`. None when there are fewer than 50 of either."""
    if min(len(known), len(asked)) < FEWEST_ROWS:
        return None
    sampled = sample_rows(len(asked), REQUESTS, seed)
    known = [known[row] for row in sample_rows(len(known), KNOWN_ROWS, seed)]
    texts = [asked[row] for row in sampled]
    likeness, usual, vectors = likeness_to(known, texts, vectorise, seed)
    far = np.flatnonzero(likeness < np.quantile(usual, FAR_OF_OWN))
    uncovered, interval = _beyond_chance(len(far), len(texts))
    far = far[np.argsort(likeness[far], kind="stable")]
    gaps = _gaps(far, vectors, texts, known, sampled) if interval[0] > 0 else ()
    return Coverage(len(texts), uncovered, interval, tuple(sampled[far].tolist()), gaps)


def likeness_to(
    known: Sequence[str], asked: Sequence[str], vectorise: Vectorise, seed: int = 0
) -> tuple[Floats, Floats, Floats]:
    """(likeness of each request [asked] to its nearest of `known`, likeness of these to the others [known], vectors of
    the requests [asked, numbers])."""
    joined = fitted_vectors(vectorise, known, seed)
    rows, requests = joined(known), joined(asked)
    return _nearest(requests, rows, itself=False), _nearest(rows, rows, itself=True), requests


def sample_rows(rows: int, most: int, seed: int) -> NDArray[np.int64]:
    """The numbers of at most `most` of `rows` rows, in order; the same for the same seed."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _nearest(rows: Floats, others: Floats, *, itself: bool) -> Floats:
    """Mean likeness of each row to its nearest others; with `itself`, `others` are the rows, and a row is none."""
    means = np.empty(len(rows), np.float32)
    block = max(1, 20_000_000 // len(others))
    for start in range(0, len(rows), block):
        like = rows[start : start + block] @ others.T
        if itself:
            like[np.arange(len(like)), start + np.arange(len(like))] = -1
        means[start : start + block] = np.partition(like, len(others) - NEAREST, axis=1)[:, -NEAREST:].mean(axis=1)
    return means


def _beyond_chance(far: int, requests: int) -> tuple[float, tuple[float, float]]:
    """The share that is far for another reason than chance, and its interval (Wilson 1927, for the share far)."""
    z2 = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) ** 2
    share = far / requests
    centre = (share + z2 / (2 * requests)) / (1 + z2 / requests)
    half = (z2 * (share * (1 - share) / requests + z2 / (4 * requests**2))) ** 0.5 / (1 + z2 / requests)
    estimate, low, high = (
        min(1.0, max(0.0, (value - FAR_OF_OWN) / (1 - FAR_OF_OWN))) for value in (share, centre - half, centre + half)
    )
    return estimate, (low, high)


def _gaps(
    far: NDArray[np.int64], vectors: Floats, texts: Sequence[str], known: Sequence[str], sampled: NDArray[np.int64]
) -> tuple[Gap, ...]:
    """Groups of far requests that are like one another (average linkage), at least 3 and 1 in 500 of all requests."""
    grouped = far[:_GROUPED]
    if len(grouped) < 2:
        return ()
    # A row of zeros has no direction; a tiny one keeps the cosine defined and the row alone.
    tree = scipy.cluster.hierarchy.linkage(vectors[grouped] + np.float32(1e-9), "average", "cosine")
    labels = scipy.cluster.hierarchy.fcluster(tree, 1 - _LIKENESS_IN_GAP, "distance")
    usual = _shares(known)
    gaps = []
    for label in range(1, labels.max() + 1):
        members = grouped[labels == label]
        if len(members) < max(3, len(texts) / 500):
            continue
        own = [texts[row] for row in members]
        centre = unit_rows(vectors[members].mean(axis=0, keepdims=True))[0]
        typical = members[np.argsort(-(vectors[members] @ centre), kind="stable")]
        rows = tuple(sampled[members].tolist())
        gaps.append(Gap(len(members), rows, key_words(own, usual), showable([texts[row] for row in typical])))
    return tuple(sorted(gaps, key=lambda gap: -gap.requests))


def key_words(texts: Sequence[str], usual: dict[str, float]) -> tuple[str, ...]:
    """Up to three words in at least a fifth of the texts that are more frequent there than in `usual`."""
    here = _shares(texts)
    told = {word: share - usual.get(word, 0.0) for word, share in here.items() if share >= 0.2}
    words = sorted(told, key=lambda word: (-told[word], word))
    return tuple(word for word in words[:3] if told[word] > 0.1)


def _shares(texts: Sequence[str]) -> dict[str, float]:
    """The share of texts that each word is in, stop words left out."""
    counts: dict[str, int] = {}
    for text in texts:
        for word in set(_WORD.findall(text.lower())) - _COMMON_WORDS:
            counts[word] = counts.get(word, 0) + 1
    return {word: count / len(texts) for word, count in counts.items()}


def showable(texts: Sequence[str], most: int = 2) -> tuple[str, ...]:
    """The first different texts, shortened, that hold no private data, link or long number."""
    shown: dict[str, None] = {}
    for text in texts:
        line = " ".join(text.split())
        if line and not _LINK_OR_NUMBER.search(line) and not any(private_kinds(line)):
            shown.setdefault(line if len(line) <= _SHOWN else line[: _SHOWN - 1].rstrip() + "…")
        if len(shown) == most:
            break
    return tuple(shown)
