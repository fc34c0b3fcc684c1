"""What is wrong with some rows of a data set, and which rows they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tuneworth.data.example import Example

Severity = Literal["info", "warn", "error"]
Split = Literal["train", "validation", "test"]
Status = Literal["pass", "warn", "fail", "not-measured"]

LISTED = 100
"""How many rows, or problems, are listed one by one; counts are always of all."""


@dataclass(frozen=True, slots=True)
class RowRef:
    """Where a row is: file, line as an editor shows it (from 1), and id (empty for a row that has none)."""

    file: str
    line: int
    id: str = ""

    @classmethod
    def of(cls, example: Example) -> RowRef:
        """The place of an example."""
        return cls(example.file, example.line, example.id)


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of flaw in a data set.

    `count` is in the unit that `message` names; `rows` holds all rows concerned, the JSON the first 100.
    `repair` says what is done about it by default, None when nothing is. `split` is None when the finding is
    about several splits together.
    """

    code: str
    severity: Severity
    count: int
    message: str
    rows: tuple[RowRef, ...] = ()
    repair: str | None = None
    split: Split | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object as in the contract of audit.json, and the split."""
        return {
            "code": self.code,
            "severity": self.severity,
            "split": self.split,
            "count": self.count,
            "message": self.message,
            "rows": [{"file": r.file, "line": r.line, "id": r.id} for r in self.rows[:LISTED]],
            "repair": self.repair,
        }


@dataclass(frozen=True, slots=True)
class Judgement:
    """The answer to one question about a data set, and why."""

    status: Status
    why: str


def refs(examples: Sequence[Example]) -> tuple[RowRef, ...]:
    """The places of some examples, in order."""
    return tuple(RowRef.of(example) for example in examples)


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """`1 row`, `12,345 rows`."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"
