"""Classification: one label a row. Accuracy, F1 averaged over classes, and "none of these"."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tuneworth.data.example import Example
from tuneworth.evaluation.metrics.metric import Kit
from tuneworth.evaluation.records import Answer, RawAnswer

_EDGES = re.compile(r"^[\s\"'`*.:\-]+|[\s\"'`*.:]+$")
_NONE = re.compile(
    r"(none|no(ne)?[ _-](of[ _-](these|them|the[ _-]above)|intent|label|match)|others?|oos|unknown|nothing"
    r"|out[ _-]of[ _-](scope|domain))"
)


def fold(text: str) -> str:
    """A label without what writers of labels vary: white space, quotes around it, a full stop, letter case."""
    return _EDGES.sub("", spaced(text)).casefold()


def spaced(text: str) -> str:
    """NFC, with every run of white space one blank."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def none_label(labels: Sequence[str]) -> str | None:
    """The label that stands for "none of these", by its name, if there is one."""
    return next((label for label in labels if _NONE.fullmatch(fold(label))), None)


class LabelReader:
    """Reads which of the labels a text states."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = frozenset(labels)
        folded = Counter(map(fold, labels))
        # Labels that differ only in what is forgiven are told apart by their exact spelling alone.
        self._known = {fold(label): label for label in labels if folded[fold(label)] == 1}

    def read(self, text: str) -> str | None:
        """The label that `text` states, or None.

        White space, quotes and letter case around it are forgiven; more words are not, except that a label which
        opens the first line and is followed by a break counts ("card_arrival - the customer ...").
        """
        if text.strip() in self._labels:
            return text.strip()
        cleaned = fold(text)
        if cleaned in self._known:
            return self._known[cleaned]
        first_line = fold(text.strip().split("\n", 1)[0])
        if first_line in self._known:
            return self._known[first_line]
        openings = [label for label in self._known if re.match(re.escape(label) + r"(?![\w])(?!-\w)", first_line)]
        return self._known[max(openings, key=len)] if openings else None


def parse_label(text: str, labels: Sequence[str]) -> str | None:
    """See LabelReader.read."""
    return LabelReader(labels).read(text)


def label_kit(labels: Sequence[str]) -> Kit:
    """Reading and measuring answers that are one of `labels`. The main metric is accuracy: a row is right or wrong,
    so arms are compared by exact tests."""
    reader, none = LabelReader(labels), none_label(labels)

    def parse(example: Example, answer: RawAnswer) -> str | None:
        return reader.read(answer.text)

    def accuracy(example: Example, answer: RawAnswer, parsed: str | None) -> float:
        return float(parsed == example.answer)

    def totals(examples: Sequence[Example], answers: Sequence[Answer]) -> dict[str, Any]:
        found: dict[str, Any] = {
            "accuracy": sum(a.parsed == a.wanted for a in answers) / len(answers),
            "macro_f1": macro_f1([a.wanted for a in answers], [a.parsed for a in answers]),
        }
        if none is not None:
            found["none_of_these"] = none_of_these(answers, none)
        return found

    return Kit(parse, {"accuracy": accuracy}, totals, lambda example: example.answer)


def macro_f1(wanted: Sequence[str], given: Sequence[str | None]) -> float:
    """The plain mean of F1 over every class that is wanted or answered at least once."""
    rows, named = Counter(wanted), Counter(given)
    right = Counter(w for w, g in zip(wanted, given, strict=True) if w == g)
    classes = [label for label in {*rows, *named} if label is not None]
    return sum(2 * right[label] / (rows[label] + named[label]) for label in classes) / len(classes)


def none_of_these(answers: Sequence[Answer], none: str) -> dict[str, Any]:
    """How well the rows that fit no class are told apart from the others; null where there are none."""
    wanted = [a for a in answers if a.wanted == none]
    given = [a for a in answers if a.parsed == none]
    right = sum(a.parsed == none for a in wanted)
    return {
        "label": none,
        "rows": len(wanted),
        "recall": right / len(wanted) if wanted else None,
        "precision": right / len(given) if given else None,
    }
