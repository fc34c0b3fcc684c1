"""Which rows do not belong to the task: off-topic texts, answers of another form, labels spelt in another way.

A row is off-topic when it is far from the bulk of the set and its label does not follow from its text: either alone is
usual (rare questions, wrong labels), both together are not. Figures on planted rows, and the false alarms on clean
sets, are in docs/results.md ("Relevance").
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import orjson
from numpy.typing import NDArray

from tuneworth.data.plain import Features, labels_follow, scores_without_own
from tuneworth.data.vectors import Floats

BULK = 0.06
"""A row's isolation is its likeness to the neighbour at this share of the set: foreign rows are one another's nearest
neighbours, but seldom so many."""
OFF_TOPIC = 6.2
"""Score from which a row counts as off-topic; few rows of clean sets get there (docs/results.md, "Relevance")."""
MANY = 0.01
"""Share of rows, found in one round, from which they are no accident."""
FEWEST_ROWS = 200
"""Rows below which nothing is called off-topic."""

_REFERENCES = 4_000
_P_FLOOR = 0.01
_FEW = 0.05  # share of answers that is a minority
_SAME_LABEL = 0.85  # likeness of two spellings (difflib's ratio)
_TIMES = 10  # how much more often the usual spelling has to occur

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spelling:
    """A label that seems to be another one: `usual` is spelt so in far more rows."""

    label: str
    usual: str
    rows: tuple[int, ...]


def off_topic(features: Features, labels: Sequence[str], vectors: Floats, seed: int = 0) -> NDArray[np.int64] | None:
    """Numbers of the rows that look off-topic, the worst first; None where that cannot be told (fewer than 200 rows,
    one label, or labels that do not follow from the texts). `features` and `vectors` [rows, numbers] are of the texts.

    Many foreign rows hide one another, for each is as far from the bulk as the next. So while a round finds more than
    clean sets have, the rows left are looked at again without them.
    """
    if len(labels) < FEWEST_ROWS or len(set(labels)) < 2:
        return None
    seen = foreignness(features, labels, vectors, seed)
    if seen is None:
        return None
    left = np.arange(len(labels))
    found: list[NDArray[np.int64]] = []
    while True:
        score = seen.scores(left)
        order = np.argsort(-score, kind="stable")
        found.append(left[order[score[order] > OFF_TOPIC]])
        left = np.setdiff1d(left, found[-1])
        if len(found[-1]) < MANY * len(labels):
            return np.concatenate(found)


@dataclass(frozen=True, slots=True)
class Foreignness:
    """How far each row is from the bulk of the set, and how little its label follows from its text [rows]."""

    isolation: Floats
    doubt: Numbers

    def scores(self, rows: NDArray[np.int64]) -> Numbers:
        """How foreign each of some rows is among these; larger is more.

        - log(share of them that are as far from the bulk) - log(p of the label), less the median of the latter: where
        there are few rows to learn from, all labels are unlikely.
        """
        own = self.isolation[rows]
        ordered = np.sort(own)
        ranks = (np.searchsorted(ordered, own, "left") + np.searchsorted(ordered, own, "right")) / 2  # ties share one
        further = 1 - ranks / len(rows)
        return np.asarray(self.doubt[rows] - np.median(self.doubt) - np.log(further))


def foreignness(features: Features, labels: Sequence[str], vectors: Floats, seed: int = 0) -> Foreignness | None:
    """Look at every row; None where labels do not follow from texts."""
    wanted = np.unique(np.array(labels), return_inverse=True)[1]
    scores = scores_without_own(features, wanted)
    if not labels_follow(scores, wanted):
        return None
    own = scores[np.arange(len(wanted)), wanted]
    return Foreignness(1 - likeness_to_bulk(vectors, seed), -np.log(np.exp(own) + _P_FLOOR))


def likeness_to_bulk(rows: Floats, seed: int = 0) -> Floats:
    """Likeness of each row [n, d] to its neighbour at `BULK` of (at most 4,000 sampled) rows."""
    random = np.random.default_rng(seed)
    some = rows if len(rows) <= _REFERENCES else rows[random.choice(len(rows), _REFERENCES, replace=False)]
    place = len(some) - max(1, int(BULK * len(some)))
    block = max(1, 20_000_000 // len(some))
    parts = [
        np.partition(rows[start : start + block] @ some.T, place, axis=1)[:, place]
        for start in range(0, len(rows), block)
    ]
    return np.concatenate(parts)


def misspelt_labels(labels: Sequence[str]) -> tuple[Spelling, ...]:
    """Labels that differ from a more frequent one only in case, spaces and punctuation, or by a typo.

    A typo is told from a label of its own by its rarity: at most 2 rows where the other has ten times as many.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        rows[label].append(row)
    by_form: dict[str, list[str]] = defaultdict(list)
    for label in rows:
        by_form[_form(label)].append(label)
    found = []
    for label, places in rows.items():
        same = max(by_form[_form(label)], key=lambda other: (len(rows[other]), other))
        if same != label:
            found.append(Spelling(label, same, tuple(places)))
            continue
        if len(places) > 2 or not _form(label):
            continue
        frequent = {_form(other): other for other in rows if len(rows[other]) >= _TIMES * len(places)}
        alike = get_close_matches(_form(label), frequent, 3, _SAME_LABEL)
        close = [form for form in alike if _is_typo(_form(label), form)]
        if close:
            found.append(Spelling(label, frequent[close[0]], tuple(places)))
    return tuple(found)


def _form(label: str) -> str:
    """A label without case, spaces and punctuation, unless nothing is left."""
    return re.sub(r"[\W_]+", "", label.casefold()) or label.strip()


def _is_typo(form: str, usual: str) -> bool:
    """Whether two spellings differ in letters, by at most two: numbers tell labels apart."""
    if re.findall(r"\d+", form) != re.findall(r"\d+", usual) or min(len(form), len(usual)) < 5:
        return False
    return abs(len(form) - len(usual)) <= 2 and sum((Counter(form) - Counter(usual)).values()) <= 2


def odd_forms(answers: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Rows whose answers have a form that at most 1 in 20 have while at least 9 in 10 share another one.

    Forms: JSON, code block, number, one line, several lines. The keys name the odd form.
    """
    forms = [answer_form(answer) for answer in answers]
    counts = Counter(forms)
    if not forms or counts.most_common(1)[0][1] < 0.9 * len(forms):
        return {}
    usual = counts.most_common(1)[0][0]
    odd: dict[str, list[int]] = defaultdict(list)
    for row, form in enumerate(forms):
        # Plain text may well have one line or several.
        if form != usual and counts[form] <= _FEW * len(forms) and {form, usual} != {"one line", "several lines"}:
            odd[form].append(row)
    return {form: tuple(rows) for form, rows in odd.items()}


def answer_form(answer: str) -> str:
    """The outward form of an answer: JSON (objects and lists), code block, number, one line, several lines."""
    text = answer.strip()
    if text[:1] in "{[" and text[-1:] in "}]" and _is_json(text):
        return "JSON"
    if text.startswith("```"):
        return "code block"
    if re.fullmatch(r"[-+]?[$€£]?\d[\d.,]*\s?%?", text):
        return "number"
    return "several lines" if "\n" in text else "one line"


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
