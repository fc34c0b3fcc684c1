"""Rows that belong together: they share an input, a group or a cluster of near duplicates, and are never divided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b

from tuneworth.data.example import Example
from tuneworth.data.findings import RowRef
from tuneworth.data.normalising import input_key


class Units:
    """Units of rows, built row by row in file order (union-find): what one row does never depends on later ones."""

    def __init__(self, examples: Sequence[Example], clusters: Mapping[RowRef, int] | None = None) -> None:
        self._keys = [input_key(example) for example in examples]
        self._examples = examples
        self._clusters = clusters or {}
        self._parent = list(range(len(examples)))
        self._first: dict[tuple[str, str | int], int] = {}

    def join(self, row: int) -> tuple[int, set[int]]:
        """Add the next row; returns the unit it is in, and the units that there were before and are one now. A unit
        is named by the first of its rows."""
        found = {self.unit(self._first[mark]) for mark in self._marks(row) if mark in self._first}
        for mark in self._marks(row):
            self._first.setdefault(mark, row)
        unit = min(found, default=row)
        for other in {*found, row}:
            self._parent[other] = unit
        return unit, found

    def unit(self, row: int) -> int:
        """The unit that a row is in now."""
        while self._parent[row] != row:
            self._parent[row] = self._parent[self._parent[row]]
            row = self._parent[row]
        return row

    def name(self, row: int) -> str:
        """What a unit is called by its first row: the group, or else the input."""
        group = self._examples[row].group
        return self._keys[row] if group is None else f"group {group}"

    def members(self) -> dict[int, list[int]]:
        """The rows of each unit, in order."""
        found: dict[int, list[int]] = {}
        for row in range(len(self._examples)):
            found.setdefault(self.unit(row), []).append(row)
        return found

    def _marks(self, row: int) -> Iterator[tuple[str, str | int]]:
        example = self._examples[row]
        yield "input", self._keys[row]
        if example.group is not None:
            yield "group", example.group
        cluster = self._clusters.get(RowRef.of(example)) if self._clusters else None
        if cluster is not None:
            yield "cluster", cluster


class Chance:
    """A seeded number in [0, 1) for every text: the same for ever, whatever else is in the data."""

    def __init__(self, seed: int, purpose: str) -> None:
        self._key = f"{seed}:{purpose}".encode()

    def __call__(self, text: str) -> float:
        digest = blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64


class Balance:
    """Counts of the rows of each label, in all and in test, kept row by row."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.rows: Counter[str] = Counter()
        self.tested: Counter[str] = Counter()

    def wants(self, label: str, chance: float) -> bool:
        """Whether a new unit, that begins with one more row of `label` (counted already), goes to test.

        A label's first row stays for learning. Then chance decides, as long as the label's share in test stays within
        a quarter of the wanted one, give or take a row.
        """
        rows, tested = self.rows[label], self.tested[label]
        if tested == rows - 1:  # nothing of this label is left to learn from
            return False
        room = 1 + self.share / 4 * rows
        if tested + 1 - self.share * rows > room:
            return False
        return tested - self.share * rows < -room or chance < self.share
