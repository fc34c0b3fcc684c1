"""CSV, TSV and Parquet become rows. Line numbers are the editor's, also where cells contain line breaks."""

from __future__ import annotations

import csv
import io
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars

from tuneworth.data.findings import plural
from tuneworth.data.opening import Opened
from tuneworth.data.rows import Row, Rows
from tuneworth.errors import InputError, Problem

_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
_FIELD_LIMIT = threading.Lock()


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of text cells without any meaning yet: (line, cells) for each record, blank lines left out."""

    records: tuple[tuple[int, tuple[str, ...]], ...]
    delimiter: str
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


def parse_grid(opened: Opened) -> Grid:
    """Split a CSV or TSV file into cells. Mistakes in quoting are collected, not raised."""
    text = opened.text
    if opened.format == "tsv":
        plain = _plain_tsv(text)
        if plain is not None:
            return plain
        delimiter = "\t"
    else:
        delimiter = _delimiter(text)
    records: list[tuple[int, tuple[str, ...]]] = []
    problems: list[Problem] = []
    blank = 0
    for line, cells in _csv_records(text, delimiter):
        if isinstance(cells, str):
            problems.append(Problem(cells, f"{opened.path}:{line}", _quoting_cure(cells)))
        elif any(cell.strip() for cell in cells):
            records.append((line, cells))
        else:
            blank += 1
    notes = [f"cells are separated by {_DELIMITERS[delimiter]}s"] if delimiter not in ",\t" else []
    return Grid(tuple(records), delimiter, tuple(problems), (*notes, *_blank_note(blank)))


def _csv_records(text: str, delimiter: str) -> Iterator[tuple[int, tuple[str, ...] | str]]:
    """(line on which the record starts, its cells) or (line, what is wrong with it)."""
    # Split at line feeds only: U+2028, vertical tabs and the like inside a cell are no line ends.
    lines = io.StringIO(text, newline="\n")
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    with _FIELD_LIMIT:  # one limit for the whole process, by default 131,072 characters
        former = csv.field_size_limit(max(len(text), 1))
        try:
            while True:
                start = reader.line_num + 1
                try:
                    yield start, tuple(next(reader))
                except StopIteration:
                    return
                except csv.Error as error:
                    yield start, str(error)
        finally:
            csv.field_size_limit(former)


def _quoting_cure(message: str) -> str:
    if "unexpected end of data" in message:
        return 'the quote that opens in this row is never closed; close it, or write it as "" inside quotes'
    if "new-line character" in message:
        return "a carriage return stands outside quotes; save the file with one kind of line end"
    return 'put the whole cell in quotes and write each quote inside it as ""'


def _delimiter(text: str) -> str:
    """The separator of a CSV file: the comma, unless the first line has none but has another one."""
    first = text.partition("\n")[0]
    return next((mark for mark in _DELIMITERS if mark in first), ",")


def _plain_tsv(text: str) -> Grid | None:
    """A TSV file in which every line is one record; None when quoted cells contain tabs or line breaks.

    Many TSV files quote nothing and use quotes as plain characters. A file counts as quoted only if every
    cell that begins with a quote is a well-formed quoted cell. Where both readings are possible, lines are
    records: the other reading would swallow rows between two quotes that have nothing to do with each other.
    """
    lines = [(number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), 1)]
    records = [(number, tuple(line.split("\t"))) for number, line in lines if line.strip()]
    if len({len(cells) for _, cells in records}) > 1 and '"' in text:
        return None
    blank = len(lines) - len(records) - (1 if not lines[-1][1].strip() else 0)
    notes = _blank_note(blank)
    if '"' in text:
        starts = [cell for _, cells in records for cell in cells if cell.startswith('"')]
        if starts and all(_QUOTED.fullmatch(cell) for cell in starts):
            records = [(number, tuple(map(_unquoted, cells))) for number, cells in records]
        elif starts:
            notes = (*notes, "quotes are read as plain characters, because not all of them enclose a cell")
    return Grid(tuple(records), "\t", (), notes)


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if cell.startswith('"') else cell


def _blank_note(blank: int) -> tuple[str, ...]:
    return (f"{plural(blank, 'blank line was', 'blank lines were')} skipped",) if blank else ()


def rows_of_grid(opened: Opened, grid: Grid, names: Sequence[str] | None) -> Rows:
    """Give the cells names: `names` (then every record is a row), or those of the first record.

    Records with another number of cells become problems.
    """
    records = grid.records if names is not None else grid.records[1:]
    header = tuple(names) if names is not None else tuple(cell.strip() for cell in grid.records[0][1])
    rows: list[Row] = []
    problems = list(grid.problems)
    for line, cells in records:
        if len(cells) == len(header):
            rows.append(Row(line, dict(zip(header, cells, strict=True))))
        else:
            what = f"{plural(len(cells), 'cell')}, but the table has {plural(len(header), 'column')}"
            mark = _DELIMITERS[grid.delimiter]
            cure = f'put a cell that contains a {mark} or a line break in quotes ("...")'
            problems.append(Problem(what, f"{opened.path}:{line}", cure))
    notes = (*opened.notes, *grid.notes)
    return Rows(opened.format, header, tuple(rows), tuple(problems), notes, header=names is None)


def parse_parquet(opened: Opened) -> Rows:
    """The rows of a Parquet file; `line` is the row's number, from 1."""
    try:
        frame = polars.read_parquet(io.BytesIO(opened.data))
    except Exception as error:  # polars has no common base for what a damaged file can raise
        first = (str(error).splitlines() or ["unknown reason"])[0]
        raise InputError(
            f"the Parquet file cannot be read: {first}", where=str(opened.path), cure="write it again"
        ) from None
    rows = tuple(Row(number, cells) for number, cells in enumerate(frame.iter_rows(named=True), 1))
    return Rows("parquet", tuple(frame.columns), rows, notes=opened.notes)
