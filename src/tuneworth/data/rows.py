"""Rows as they stand in a file, before anything is known about what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuneworth.data.problems import Tally


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the line it starts on (from 1; in Parquet the row's number) and its cells by column name."""

    line: int
    cells: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a piece of a file that could be parsed, and in `tally` the mistakes in those that could not."""

    rows: tuple[Row, ...]
    tally: Tally
    blank: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that a row has, in the order in which they come up."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.cells))
