"""What the audit keeps of each row: hashes, sizes and marks, about 170 bytes, however long the row is.

Texts are looked at once, by whichever process reads them; all joins (duplicates, leaks, contradictions, near
duplicates) are made from these columns, and texts are read again only of rows that have to be compared or named.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tuneworth.data.answers import is_boilerplate, is_cut_off
from tuneworth.data.example import Example
from tuneworth.data.normalising import input_key, normal_forms
from tuneworth.data.private import KINDS, private_kinds
from tuneworth.data.sketches import signatures_of

MARKS = (*KINDS, "special-token", "truncated-answer", "boilerplate-answer")
"""Codes of what a row can be marked with; bit by bit in `Facts.marks`."""

BYTES_OF_FORM = 16
"""How many bytes a message counts beside its text: what a chat template writes around it takes fewer tokens."""

_SPECIAL = r"<\|[^|<>\s]{1,40}\|>|\[/?INST\]|</?s>|<(?:start|end)_of_turn>|</?think>"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Inspection:
    """What to look for in rows: `special_tokens` are the control strings of the model that will be trained."""

    kind: str
    special_tokens: tuple[str, ...] = ()

    @property
    def special(self) -> re.Pattern[str]:
        """The model's control strings and those of other models."""
        own = sorted((token for token in self.special_tokens if len(token) > 2), key=len, reverse=True)
        return re.compile("|".join([*map(re.escape, own), _SPECIAL]))


@dataclass(frozen=True, slots=True)
class Facts:
    """Columns, one entry a row. Hashes are 64 bits of BLAKE2b: among a million rows two different texts have the same
    one with a chance below one in ten million."""

    inputs: NDArray[np.uint64]
    answers: NDArray[np.uint64]
    groups: NDArray[np.uint64]
    """0 for a row without a group."""
    sizes: NDArray[np.uint32]
    """UTF-8 bytes of all texts, and BYTES_OF_FORM for each message: never fewer than tokens (byte-level BPE)."""
    answer_sizes: NDArray[np.uint32]
    text_sizes: NDArray[np.uint32]
    """Characters of `near_text`."""
    marks: NDArray[np.uint16]
    lines: NDArray[np.uint32]
    signatures: NDArray[np.uint8]
    """[rows, HASHES]; all zero for a row whose input is too short to be compared."""
    labels: Mapping[str, int] = field(default_factory=dict)
    """How many rows have each answer; empty unless the task is a classification."""

    def __len__(self) -> int:
        return len(self.inputs)

    def marked(self, code: str) -> NDArray[np.int64]:
        """The rows that bear a mark."""
        return np.flatnonzero(self.marks & np.uint16(1 << MARKS.index(code)))


class Part(Protocol):
    """The rows of one split, in memory or in files."""

    @property
    def facts(self) -> Facts:
        """What is known of each row."""

    @property
    def listed(self) -> int | None:
        """How many rows of a finding are named; None for all of them."""

    def look(self, rows: Sequence[int] | NDArray[np.int64], at: Callable[[Example], T]) -> list[T]:
        """What `at` returns for some rows. Rows in files are read by other processes, so `at` has to be pickled."""


@dataclass(frozen=True, slots=True)
class InMemory:
    """Rows that are held as Examples."""

    examples: Sequence[Example]
    facts: Facts
    listed: int | None = None

    def look(self, rows: Sequence[int] | NDArray[np.int64], at: Callable[[Example], T]) -> list[T]:
        """What `at` returns for some rows."""
        return [at(self.examples[row]) for row in rows]


def facts_of(examples: Sequence[Example], inspection: Inspection) -> Facts:
    """Look at every text of some rows once."""
    look = _Look(inspection)
    seen = [look(example) for example in examples]
    columns: dict[str, Any] = {
        name: np.fromiter((row[place] for row in seen), dtype, len(seen))
        for place, (name, dtype) in enumerate(_COLUMNS.items())
    }
    return Facts(**columns, signatures=signatures_of(look.texts), labels=dict(look.labels))


_COLUMNS: dict[str, type] = {
    "inputs": np.uint64,
    "answers": np.uint64,
    "groups": np.uint64,
    "sizes": np.uint32,
    "answer_sizes": np.uint32,
    "text_sizes": np.uint32,
    "marks": np.uint16,
    "lines": np.uint32,
}


class _Look:
    """One entry of each of `_COLUMNS` for an example."""

    def __init__(self, inspection: Inspection) -> None:
        self._special = inspection.special
        self._is_classification = inspection.kind == "classification"
        # A pattern with many beginnings is slow to search for; most texts hold none of their first signs.
        self._signs = {"<", "["} | {token[0] for token in inspection.special_tokens if token}
        self.labels: Counter[str] = Counter()
        self.texts: list[str] = []

    def __call__(self, example: Example) -> tuple[int, ...]:
        answer = answer_key(example)
        taught = answer if example.rejected is None else f"{answer}\0{example.rejected.content}"
        forms = normal_forms(example)
        self.texts.append(near_text(example, forms))
        whole = "\n".join([*(message.content for message in example.messages), answer])
        return (
            hash_of(input_key(example, forms)),
            hash_of(taught),
            hash_of(example.group) if example.group is not None else 0,
            _bytes(whole) + BYTES_OF_FORM * (len(example.messages) + 1) + len(example.tools),
            _bytes(answer),
            len(self.texts[-1]),
            self._marks(whole, example.answer),
            example.line,
        )

    def _marks(self, whole: str, answer: str) -> int:
        found = list(private_kinds(whole))
        if any(sign in whole for sign in self._signs) and self._special.search(whole):
            found.append("special-token")
        if self._is_classification:
            self.labels[answer] += 1
        else:
            found += ["truncated-answer"] * is_cut_off(answer)
            found += ["boilerplate-answer"] * is_boilerplate(answer)
        return sum(1 << MARKS.index(code) for code in found)


def joined(parts: Sequence[Facts]) -> Facts:
    """The facts of several batches, one after the other."""
    labels: Counter[str] = Counter()
    for part in parts:
        labels.update(part.labels)
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in (*_COLUMNS, "signatures")
    }
    return Facts(**columns, labels=dict(labels))


def near_text(example: Example, forms: Sequence[str] | None = None) -> str:
    """What is compared to find near duplicates: the conversation in normal form without the system message, which
    many rows share. `forms` are its normal forms if they are known."""
    forms = normal_forms(example) if forms is None else forms
    if len(forms) == 1:
        return forms[0]
    return "\n".join(form for message, form in zip(example.messages, forms, strict=True) if message.role != "system")


def answer_key(example: Example) -> str:
    """What makes two answers the same: the text, and the tool calls."""
    if not example.calls:
        return example.answer.strip()
    return "\n".join([example.answer.strip(), *(f"{call.name} {call.arguments}" for call in example.calls)])


def hash_of(text: str) -> int:
    """64 bits of BLAKE2b."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
