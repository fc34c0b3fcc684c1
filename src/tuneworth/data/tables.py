"""CSV, TSV and Parquet become rows. Line numbers are the editor's, also where cells contain line breaks."""

from __future__ import annotations

import csv
import io
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import polars

from tuneworth.data.characters import check_characters, decoded
from tuneworth.data.findings import plural
from tuneworth.data.opening import Opened
from tuneworth.data.problems import Tally
from tuneworth.data.rows import Row, Rows
from tuneworth.errors import InputError

_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_FIELD_LIMIT = threading.Lock()
LONGEST_ROW = 64 << 20
"""Bytes of the longest row that is read."""
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}

Quoting = Literal["none", "cells", "csv"]
"""How a table uses quotes: as plain characters, around whole cells on one line, or as CSV does (cells with line
breaks)."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the cells of a table file are told apart."""

    delimiter: str
    quoting: Quoting

    @property
    def lines_are_records(self) -> bool:
        """Whether every line is one record."""
        return self.quoting != "csv"


@dataclass(frozen=True, slots=True)
class Grid:
    """A piece of a table without any meaning yet: (line, cells) for each record, blank lines left out."""

    records: tuple[tuple[int, tuple[str, ...]], ...]
    blank: int = 0


def find_dialect(opened: Opened) -> Dialect:
    """The separator (CSV: the comma, unless the first line has none but has another one) and the use of quotes.

    Many TSV files quote nothing and use quotes as plain characters. A file counts as quoted only if every
    cell that begins with a quote is a well-formed quoted cell. Where both readings are possible, lines are
    records: the other reading would swallow rows between two quotes that have nothing to do with each other.
    """
    if opened.format == "tsv":
        return Dialect("\t", _tsv_quoting(opened))
    with _lines(opened) as lines:
        first = next(lines, "")
    return Dialect(next((mark for mark in DELIMITERS if mark in first), ","), "csv")


@contextmanager
def _lines(opened: Opened) -> Iterator[Iterator[str]]:
    """The lines of a file, one byte a character: enough to find separators, quotes and line ends."""
    with opened.path.open("rb") as raw:
        raw.seek(opened.start)
        # Split at line feeds only: U+2028, vertical tabs and the like inside a cell are no line ends.
        yield iter(io.TextIOWrapper(raw, "latin-1", newline="\n"))


def _tsv_quoting(opened: Opened) -> Quoting:
    widths: set[int] = set()
    quotes = starts = enclosing = 0
    with _lines(opened) as lines:
        for line in lines:
            if not line.strip():
                continue
            widths.add(line.count("\t"))
            if '"' in line:
                quotes += 1
                cells = line.removesuffix("\n").removesuffix("\r").split("\t")
                opening = [cell for cell in cells if cell.startswith('"')]
                starts += len(opening)
                enclosing += sum(_QUOTED.fullmatch(cell) is not None for cell in opening)
    if quotes and len(widths) > 1:
        return "csv"
    return "cells" if starts and starts == enclosing else "none"


def dialect_notes(opened: Opened, dialect: Dialect) -> tuple[str, ...]:
    """What is worth telling about how cells are told apart."""
    if dialect.quoting == "none":
        with _lines(opened) as lines:
            quoted = any(line.startswith('"') or '\t"' in line for line in lines)
        return ("quotes are read as plain characters, because not all of them enclose a cell",) if quoted else ()
    return (f"cells are separated by {DELIMITERS[dialect.delimiter]}s",) if dialect.delimiter in ";|" else ()


def cut_records(opened: Opened, dialect: Dialect, target: int) -> Iterator[tuple[int, int, int]]:
    """(first byte, byte after the last, line) of pieces of about `target` bytes, cut between records of quoted
    cells."""
    taken = 0

    def counted(lines: Iterator[str]) -> Iterator[str]:
        nonlocal taken
        for line in lines:
            taken += len(line)
            yield line

    with _lines(opened) as lines:
        start, first = 0, 1
        for line in _csv_records(counted(lines), dialect.delimiter):
            if taken - start >= target:
                yield opened.start + start, opened.start + taken, first
                start, first = taken, line[2] + 1
        if start < taken:
            yield opened.start + start, opened.start + taken, first


def parse_grid(data: bytes, dialect: Dialect, line: int, offset: int, tally: Tally) -> Grid:
    """Split a piece of a CSV or TSV file into cells. Mistakes in quoting and encoding go to `tally`.

    `line` and `offset` (bytes) say where the piece begins.
    """
    text = decoded(data, line, offset, tally)
    if dialect.lines_are_records:
        return _grid_of_lines(text, dialect, line)
    records: list[tuple[int, tuple[str, ...]]] = []
    blank = 0
    for start, cells, _ in _csv_records(iter(io.StringIO(text, newline="\n")), dialect.delimiter):
        if isinstance(cells, str):
            tally.add(line + start - 1, "quoting", cells, cure=_quoting_cure(cells))
        elif any(cell.strip() for cell in cells):
            records.append((line + start - 1, cells))
        else:
            blank += 1
    return Grid(tuple(records), blank)


def _grid_of_lines(text: str, dialect: Dialect, first: int) -> Grid:
    lines = [(number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), first)]
    records = [(number, tuple(line.split(dialect.delimiter))) for number, line in lines if line.strip()]
    blank = len(lines) - len(records) - (1 if not lines[-1][1].strip() else 0)
    if dialect.quoting == "cells":
        records = [(number, tuple(map(_unquoted, cells))) for number, cells in records]
    return Grid(tuple(records), blank)


def _csv_records(lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, tuple[str, ...] | str, int]]:
    """(line on which the record starts, its cells or what is wrong with it, line on which it ends)."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    with _FIELD_LIMIT:  # one limit for the whole process, by default 131,072 characters
        former = csv.field_size_limit(LONGEST_ROW)
        try:
            while True:
                start = reader.line_num + 1
                try:
                    yield start, tuple(next(reader)), reader.line_num
                except StopIteration:
                    return
                except csv.Error as error:
                    yield start, str(error), reader.line_num
        finally:
            csv.field_size_limit(former)


def _quoting_cure(message: str) -> str:
    if "unexpected end of data" in message or "field larger" in message:
        return 'the quote that opens in this row is never closed; close it, or write it as "" inside quotes'
    if "new-line character" in message:
        return "a carriage return stands outside quotes; save the file with one kind of line end"
    return 'put the whole cell in quotes and write each quote inside it as ""'


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if cell.startswith('"') else cell


def rows_of_grid(
    records: Sequence[tuple[int, tuple[str, ...]]], names: Sequence[str], dialect: Dialect, tally: Tally
) -> tuple[Row, ...]:
    """Give the cells names. Records with another number of cells go to `tally`."""
    rows: list[Row] = []
    for line, cells in records:
        if len(cells) == len(names):
            rows.append(Row(line, dict(zip(names, cells, strict=True))))
        else:
            what = f"{plural(len(cells), 'cell')}, but the table has {plural(len(names), 'column')}"
            mark = DELIMITERS[dialect.delimiter]
            cure = f'put a cell that contains a {mark} or a line break in quotes ("...")'
            tally.add(line, "cell-count", what, cure=cure)
    return tuple(rows)


def parse_tagged_lines(data: bytes, line: int, offset: int, tally: Tally) -> Rows:
    """Sentences of "token ... tag" lines with a blank line between them, as {"tokens": [...], "tags": [...]}."""
    text = decoded(data, line, offset, tally)
    rows: list[Row] = []
    tokens: list[str] = []
    tags: list[str] = []
    start = line
    for number, content in enumerate(chain(text.split("\n"), [""]), line):
        parts = content.split()
        if parts and parts[0] != "-DOCSTART-":
            start = start if tokens else number
            if len(parts) < 2:
                tally.add(number, "tags", f"there is no tag after '{parts[0][:40]}'", cure="write: token, blank, tag")
            tokens.append(parts[0])
            tags.append(parts[-1])
        elif tokens:
            rows.append(Row(start, {"tokens": tokens, "tags": tags}))
            tokens, tags = [], []
    return Rows(tuple(rows), tally)


def parse_parallel_lines(path: Path, shown: str, tally: Tally) -> Rows:
    """The lines of seq.in, each with the tags on its line of seq.out and the label on its line of label.

    Raises InputError when neither is there, or one has another number of lines.
    """
    columns = {"text": _lines_of(path, tally)}
    columns |= {
        name: _lines_of(path.with_name(name), tally) for name in ("seq.out", "label") if path.with_name(name).is_file()
    }
    if len({len(lines) for lines in columns.values()}) > 1 or len(columns) == 1:
        found = ", ".join(f"{name} {len(lines):,}" for name, lines in columns.items()).replace("text", path.name, 1)
        cure = "seq.out or label must stand beside it, with as many lines"
        raise InputError(f"the files do not belong together line by line: {found}", where=shown, cure=cure, code="tags")
    rows = []
    for number in range(len(columns["text"])):
        cells: dict[str, Any] = {name: lines[number].strip() for name, lines in columns.items()}
        if "seq.out" in cells:
            cells = {"tokens": cells["text"].split(), "tags": cells["seq.out"].split(), "intent": cells.get("label")}
        rows.append(Row(number + 1, cells))
    return Rows(tuple(rows), tally)


def _lines_of(path: Path, tally: Tally) -> list[str]:
    lines = decoded(path.read_bytes(), 1, 0, tally).split("\n")
    return lines[:-1] if not lines[-1] else lines


def parquet_rows(opened: Opened) -> tuple[int, int]:
    """(rows, bytes once unpacked as the file itself states them). Raises InputError when it is damaged."""
    with _readable(opened.shown):
        frame = polars.scan_parquet(opened.path)
        rows = int(frame.select(polars.len()).collect().item())
    return rows, opened.size


def parse_parquet(path: Path, shown: str, start: int, end: int, tally: Tally) -> Rows:
    """Rows `start` to `end` (from 0, the last not included) of a Parquet file; `line` is the row's number, from 1.

    A missing value in a nested cell is what Parquet writes for a key that an object does not have, so it is taken
    as absent. Raises InputError when the file is damaged.
    """
    with _readable(shown):
        frame = polars.scan_parquet(path).slice(start, end - start).collect()
        nested = [name for name, type_ in frame.schema.items() if type_.is_nested()]
        listed = list(frame.iter_rows(named=True))
    rows = []
    for number, cells in enumerate(listed, start + 1):
        for name in nested:
            cells[name] = _without_absent(cells[name])
        if check_characters(cells, number, tally):
            rows.append(Row(number, cells))
    return Rows(tuple(rows), tally)


def _without_absent(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_absent(inner) for key, inner in value.items() if inner is not None}
    return [_without_absent(inner) for inner in value] if isinstance(value, list) else value


@contextmanager
def _readable(shown: str) -> Iterator[None]:
    try:
        yield
    except (Exception, polars.exceptions.PanicException) as error:  # polars has no common base for damaged files
        first = (str(error).splitlines() or ["unknown reason"])[0]
        what = f"the Parquet file cannot be read: {first}"
        raise InputError(what, where=shown, cure="write it again", code="file-kind") from None
