"""Rows that nearly repeat another one: candidates by their sketches, then compared letter by letter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cpdist

from tuneworth.data.checks import LEARNT_AND_HELD_OUT, TOO_MANY
from tuneworth.data.facts import near_text
from tuneworth.data.findings import Severity, plural
from tuneworth.data.sketches import candidates
from tuneworth.data.stacking import Flaw, Numbers, Stack

SIMILAR = 0.8
"""Least similarity of near duplicates: 1 less the share of letters that have to be changed (Levenshtein distance by
the longer text's length)."""
NEARLY_EQUAL = 0.9
"""Least similarity from which two rows of one data set should have the same label."""
MANY_LEAKS = 0.05
"""Share of held-out rows from which near leaks are a warning."""
COMPARED = 10_000
"""Characters of a text that are compared; the time grows with the square."""

_BLOCK = 300_000  # pairs whose texts are in memory at a time
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Pairs:
    """Rows that are nearly the same but not equal: `one` stands before `other`, `similarity` is 0 to 1."""

    one: Numbers
    other: Numbers
    similarity: NDArray[np.float64]


def near_pairs(stack: Stack) -> Pairs:
    """All pairs that are similar enough. Of rows with equal inputs in a split only the first takes part."""
    inputs = stack.column("inputs")
    signatures = stack.column("signatures").copy()
    for split in stack.parts:
        own = stack.numbers(split)
        first = np.unique(inputs[own], return_index=True)[1] if len(own) else own
        signatures[np.delete(own, first)] = 0
    pairs = candidates(signatures)
    del signatures
    sizes = stack.column("text_sizes")
    shorter, longer = np.minimum(*sizes[pairs].T), np.maximum(*sizes[pairs].T)
    pairs = pairs[(inputs[pairs[:, 0]] != inputs[pairs[:, 1]]) & (shorter >= SIMILAR * longer)]
    similarity = np.zeros(len(pairs))
    for start in range(0, len(pairs), _BLOCK):
        rows, places = np.unique(pairs[start : start + _BLOCK], return_inverse=True)
        texts = stack.look(rows, near_text)
        ones, others = ([texts[place] for place in column] for column in places.reshape(-1, 2).T)
        similarity[start : start + _BLOCK] = similarities(ones, others)
    kept = similarity >= SIMILAR
    return Pairs(pairs[kept, 0], pairs[kept, 1], similarity[kept])


def likeness(ones: Sequence[str], others: Sequence[str]) -> NDArray[np.float32]:
    """The similarity of each pair of texts in normal form; 0 when it is below `SIMILAR`."""
    cut_ones, cut_others = ([text[:COMPARED] for text in texts] for texts in (ones, others))
    found: NDArray[np.float32] = cpdist(
        cut_ones, cut_others, scorer=Levenshtein.normalized_similarity, score_cutoff=SIMILAR, workers=-1
    )
    return found


def similarities(ones: Sequence[str], others: Sequence[str]) -> NDArray[np.float32]:
    """As `likeness`, and 0 when nothing but numbers differ.

    "12 apples" and "15 apples" are two questions, however long the rest is.
    """
    found = likeness(ones, others)
    for place in np.flatnonzero(found).tolist():
        if _DIGITS.sub("0", ones[place]) == _DIGITS.sub("0", others[place]):
            found[place] = 0
    return found


def near_duplicates(stack: Stack, pairs: Pairs) -> list[Flaw]:
    """Rows that nearly repeat an earlier row of their split."""
    flaws = []
    ones, others = stack.splits_of(pairs.one), stack.splits_of(pairs.other)
    for place, split in enumerate(stack.parts):
        rows = np.unique(pairs.other[(ones == place) & (others == place)])
        if len(rows):
            verb = plural(len(rows), f"row of {split} nearly repeats", f"rows of {split} nearly repeat")
            severity: Severity = "warn" if len(rows) > TOO_MANY * len(stack.facts(split)) else "info"
            message = f"{verb} an earlier one (at least {SIMILAR:.0%} of the letters are the same)"
            repair = "the rows stay; remove those that add nothing" if split == "train" else None
            flaws.append(Flaw("duplicate-near", severity, len(rows), message, rows, repair, split))
    return flaws


def near_leaks(stack: Stack, pairs: Pairs) -> list[Flaw]:
    """Held-out rows that are nearly the same as a row to learn or choose from, and not known to be equal to one."""
    flaws = []
    splits = list(stack.parts)
    ones, others = stack.splits_of(pairs.one), stack.splits_of(pairs.other)
    inputs = stack.column("inputs")
    for earlier, later in LEARNT_AND_HELD_OUT:
        across = (ones == splits.index(earlier)) & (others == splits.index(later))
        rows = np.unique(pairs.other[across])
        rows = rows[~np.isin(inputs[rows], stack.facts(earlier).inputs)]
        if len(rows):
            severity: Severity = "warn" if len(rows) > MANY_LEAKS * len(stack.facts(later)) else "info"
            verb = plural(len(rows), f"{later} row is", f"{later} rows are")
            message = f"{verb} nearly the same as a row of {earlier}"
            repair = f"the rows stay; a score on them says little about new requests: remove their twins from {earlier}"
            flaws.append(Flaw("leak-near", severity, len(rows), message, rows, repair, later))
    return flaws


def near_contradictions(stack: Stack, pairs: Pairs) -> list[Flaw]:
    """Pairs of nearly equal inputs with different labels. Names both rows of each pair, the most similar first."""
    answers = stack.column("answers")
    differ = (answers[pairs.one] != answers[pairs.other]) & (pairs.similarity >= NEARLY_EQUAL)
    count = int(differ.sum())
    if not count:
        return []
    order = np.argsort(-pairs.similarity[differ], kind="stable")
    rows = np.stack([pairs.one[differ], pairs.other[differ]], axis=1)[order].ravel()
    severity: Severity = "warn" if count > 0.01 * len(stack) else "info"
    verb = plural(count, "pair of nearly equal inputs has", "pairs of nearly equal inputs have")
    message = f"{verb} different answers"
    repair = "the rows stay; read each pair and correct the answer that is wrong, if one is"
    return [Flaw("contradiction-near", severity, count, message, _once(rows), repair)]


def _once(rows: Sequence[int] | Numbers) -> Numbers:
    return np.array(list(dict.fromkeys(int(row) for row in rows)), dtype=np.int64)
