"""Requests without answers, for a model to answer and another to learn from: none that is held out, in any spelling.

A request that repeats a validation or test row, or nearly does, would carry that row's answer into a training (LAW 50:
nothing held out is learnt). What is left out is counted by its reason.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tuneworth.data.example import Example
from tuneworth.data.near import SIMILAR, likeness
from tuneworth.data.normalising import normalise
from tuneworth.data.sketches import LEAST_AGREEMENT, SHORTEST, signatures_of

MOST = 2_000
"""Requests that are kept at most, a seeded sample: more than a run answers, and few enough to be compared with all."""

_LIKEST = 64  # texts that one is compared with before all others


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests in a seeded order, so that the first of them are a sample; and how many were left out, and why."""

    rows: tuple[Example, ...]
    left_out: Mapping[str, int]


def unseen_requests(
    requests: Sequence[Example], learnt: Sequence[Example], held_out: Sequence[Example], seed: int
) -> Requests:
    """The requests that are no row's: not of `learnt`, whose answers are known, not of `held_out` or nearly one of it.

    What is compared is the last message of the user in normal form. Nearly the same is as in the audit (`data.near`),
    and of short texts and those in which only numbers differ too: what is left out in vain costs little.
    """
    known, hidden = ({normalise(row.text) for row in rows} for rows in (learnt, held_out))
    left_out = Counter[str]()
    found: dict[str, Example] = {}
    order = list(requests)
    random.Random(f"requests/{seed}").shuffle(order)
    for request in order:
        text = normalise(request.text)
        if text in hidden:
            left_out["held out"] += 1
        elif text in known:
            left_out["in the training rows"] += 1
        elif text in found:
            left_out["repeats another request"] += 1
        else:
            found[text] = request
    left_out["beyond the sample"] = max(0, len(found) - MOST)
    texts = list(found)[:MOST]
    near = _near(texts, sorted(hidden))
    left_out["nearly held out"] = len(near)
    rows = tuple(found[text] for number, text in enumerate(texts) if number not in near)
    return Requests(rows, {reason: count for reason, count in left_out.items() if count})


def _near(texts: Sequence[str], hidden: Sequence[str]) -> set[int]:
    """The numbers of the texts that nearly repeat one that is hidden. Every text is held against all that are hidden:
    by their sketches, or as it is where one of the two is too short for one; then those that may be alike letter by
    letter, the likest first, until one is."""
    if not hidden:
        return set()
    ours, theirs = signatures_of(texts), signatures_of(hidden)
    sizes = np.array([len(text) for text in hidden])
    near = set()
    for number, text in enumerate(texts):
        agreement = np.mean(theirs == ours[number], axis=1)
        agreement[np.minimum(sizes, len(text)) < SHORTEST] = 1.0
        fits = np.minimum(sizes, len(text)) >= SIMILAR * np.maximum(sizes, len(text))
        found = np.flatnonzero(fits & (agreement >= LEAST_AGREEMENT))
        found = found[np.argsort(-agreement[found], kind="stable")]
        blocks = [block for block in (found[:_LIKEST], found[_LIKEST:]) if len(block)]
        if any(likeness([text] * len(block), [hidden[place] for place in block]).any() for block in blocks):
            near.add(number)
    return near
