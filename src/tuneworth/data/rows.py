"""Rows as they stand in a file, before anything is known about what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuneworth.data.opening import Format
from tuneworth.errors import Problem


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the line it starts on (from 1; in Parquet the row's number) and its cells by column name."""

    line: int
    cells: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """All rows of one file that could be parsed, and the mistakes in those that could not.

    `header` is False when columns are named by number ("1", "2", ...) because the file names none.
    """

    format: Format
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    header: bool = True
