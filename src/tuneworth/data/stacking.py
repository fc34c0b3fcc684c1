"""The splits of a data set one after the other, so that a row has one number in all checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tuneworth.data.example import Example
from tuneworth.data.facts import Facts, Part
from tuneworth.data.findings import Finding, RowRef, Severity, Split

Numbers = NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Flaw:
    """A finding whose rows are numbers in a `Stack`."""

    code: str
    severity: Severity
    count: int
    message: str
    rows: Numbers
    repair: str | None = None
    split: Split | None = None


@dataclass(frozen=True, slots=True)
class Stack:
    """All rows of a data set, numbered from 0: those of train, then of validation, then of test."""

    parts: Mapping[Split, Part]

    def __len__(self) -> int:
        return sum(len(part.facts) for part in self.parts.values())

    def facts(self, split: Split) -> Facts:
        """The facts of one split."""
        return self.parts[split].facts

    def start(self, split: Split) -> int:
        """The number of the first row of a split."""
        splits = list(self.parts)
        return sum(len(self.parts[earlier].facts) for earlier in splits[: splits.index(split)])

    def numbers(self, split: Split) -> Numbers:
        """The numbers of all rows of a split."""
        start = self.start(split)
        return np.arange(start, start + len(self.facts(split)))

    def column(self, name: str) -> NDArray[Any]:
        """A column of `Facts` over all rows."""
        filled = [getattr(part.facts, name) for part in self.parts.values() if len(part.facts)]
        if not filled:
            return np.asarray(getattr(self.facts("train"), name))
        return np.asarray(filled[0]) if len(filled) == 1 else np.concatenate(filled)

    def splits_of(self, rows: Numbers) -> NDArray[np.int64]:
        """The place of each row's split among the splits."""
        starts = [self.start(split) for split in self.parts]
        return np.searchsorted(np.array(starts), rows, side="right") - 1 if len(rows) else rows

    def look(self, rows: Numbers | Sequence[int], at: Callable[[Example], T]) -> list[T]:
        """What `at` returns for some rows, in their order; each row is looked at once."""
        numbers = np.asarray(rows, dtype=np.int64)
        wanted, places = np.unique(numbers, return_inverse=True)
        seen: list[T] = []
        for split, part in self.parts.items():
            start = self.start(split)
            own = wanted[(wanted >= start) & (wanted < start + len(part.facts))] - start
            if len(own):
                seen += part.look(own, at)
        return [seen[place] for place in places]

    def findings(self, flaws: Sequence[Flaw]) -> list[Finding]:
        """The flaws with the places of their rows. Rows in files are read again, each once and only those listed."""
        limits = [part.listed for part in self.parts.values() if part.listed is not None]
        shown = [flaw.rows[: min(limits)] if limits else flaw.rows for flaw in flaws]
        places = iter(self.look(np.concatenate(shown), RowRef.of)) if shown else iter(())
        return [_finding(flaw, tuple(next(places) for _ in rows)) for flaw, rows in zip(flaws, shown, strict=True)]


def _finding(flaw: Flaw, rows: tuple[RowRef, ...]) -> Finding:
    return Finding(flaw.code, flaw.severity, flaw.count, flaw.message, rows, flaw.repair, flaw.split)
