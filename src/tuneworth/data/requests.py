"""A sample of real requests: the texts that the model will be asked, without answers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuneworth.data.example import Example, Message, content_id
from tuneworth.data.jsonrows import parse_json_array, parse_json_lines
from tuneworth.data.opening import Opened, open_data
from tuneworth.data.problems import Tally, listed
from tuneworth.data.rows import Row
from tuneworth.data.shape import is_input_name
from tuneworth.data.tables import find_dialect, parquet_rows, parse_grid, parse_parquet, rows_of_grid
from tuneworth.errors import InputError, Problem

LARGEST = 256 << 20
"""Bytes of a file of requests, at most: a sample of some thousands is enough."""


def read_requests(path: Path, input_column: str | None) -> tuple[Example, ...]:
    """Read CSV, TSV, JSON Lines, a JSON array or Parquet with one text a row; the answers of the Examples are empty.

    The text is in the column that the training file has its input in, or else in the only column that is named like
    an input, or the only column; of conversations ("messages") it is the last user message. A table has a header.
    Rows without a text are left out. Raises InputError when the file cannot be used.
    """
    scratch = Path(tempfile.mkdtemp(prefix="tuneworth-"))
    try:
        opened = open_data(path, lambda: scratch)
        if opened.size > LARGEST:
            what = f"{opened.size / 2**20:,.0f} MiB of requests; at most {LARGEST >> 20} MiB are read"
            raise InputError(what, where=opened.shown, cure="give a random sample of them", code="file-too-large")
        tally = Tally(opened.shown)
        rows, names = _rows(opened, tally)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    problems = listed(tally.problems(), tally.counts, opened.shown)
    if problems:
        raise InputError.of(problems)
    column = _column(names, input_column, opened.shown)
    texts = [(row.line, _text(row.cells, column)) for row in rows]
    found = tuple(
        Example(content_id(text), (Message("user", text),), "", opened.shown, line)
        for line, text in texts
        if text.strip()
    )
    if not found:
        raise InputError("no row holds a request", where=opened.shown, cure="check the column", code="too-few-rows")
    return found


def _rows(opened: Opened, tally: Tally) -> tuple[Sequence[Row], tuple[str, ...]]:
    """The rows of the whole file, and the names of their columns."""
    if opened.format == "parquet":
        parsed = parse_parquet(opened.path, opened.shown, 0, parquet_rows(opened)[0], tally)
        return parsed.rows, parsed.columns
    data = opened.path.read_bytes()[opened.start :]
    if opened.format in ("csv", "tsv"):
        dialect = find_dialect(opened)
        grid = parse_grid(data, dialect, 1, opened.start, tally)
        names = tuple(cell.strip() for cell in grid.records[0][1]) if grid.records else ()
        return rows_of_grid(grid.records[1:], names, dialect, tally), names
    if opened.format not in ("json-lines", "json"):
        cure = "write CSV or JSON Lines with one text a row"
        raise InputError("requests are not read from this format", where=opened.shown, cure=cure, code="file-kind")
    read = parse_json_lines if opened.format == "json-lines" else None
    parsed = read(data, 1, opened.start, tally) if read else parse_json_array(data, opened.start, tally)
    return parsed.rows, parsed.columns


def _column(names: Sequence[str], input_column: str | None, where: str) -> str:
    if input_column in names:
        return str(input_column)
    if "messages" in names:
        return "messages"
    likely = [name for name in names if is_input_name(name)]
    if len(likely) == 1:
        return likely[0]
    if len(names) == 1:
        return names[0]
    wanted = f"'{input_column}', as in the training file" if input_column else "like 'text' or 'question'"
    what = f"no column can be recognised as the request; the columns are {', '.join(map(repr, names)) or 'none'}"
    raise InputError.of([Problem(what, where, f"call the column {wanted}", "columns")])


def _text(cells: Mapping[str, Any], column: str) -> str:
    cell = cells.get(column)
    if column == "messages" and isinstance(cell, list):
        said = [m.get("content") for m in cell if isinstance(m, Mapping) and m.get("role") == "user"]
        cell = said[-1] if said else ""
    return cell if isinstance(cell, str) else "" if cell is None else str(cell)
