"""A data set of any size, read in pieces: each piece is a small job that any process can do on its own.

    source = open_source(path, Columns(), "auto")     # looks at the beginning: format, shape, columns, kind
    for batch in map(Job.read, source.jobs):          # or a process pool's map: jobs and batches can be pickled
        batch.examples, batch.problems

Small files are one job. Lines of JSON are cut at line feeds, tables between records, Parquet between rows; a JSON
array is one piece. Memory is that of one piece. Compressed files are unpacked first, into a temporary folder that
lives as long as the source.
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuneworth.data.batches import Batch, Layout, batch_of, contents_of
from tuneworth.data.findings import plural
from tuneworth.data.header import find_names
from tuneworth.data.jsonrows import parse_json_array, parse_json_lines
from tuneworth.data.kinds import recognise_kind
from tuneworth.data.opening import FORMAT_NAMES, Opened, open_data
from tuneworth.data.problems import WARNINGS, Tally, listed
from tuneworth.data.rows import Row, Rows
from tuneworth.data.shape import (
    Sample,
    Shape,
    any_separator,
    choose_columns,
    choose_shape,
    label_separator,
)  # fmt: skip
from tuneworth.data.tables import (
    LONGEST_ROW,
    Dialect,
    cut_records,
    dialect_notes,
    find_dialect,
    parquet_rows,
    parse_grid,
    parse_parallel_lines,
    parse_parquet,
    parse_tagged_lines,
    rows_of_grid,
)  # fmt: skip
from tuneworth.errors import InputError, Problem
from tuneworth.task import Columns

__all__ = ["LARGEST_WHOLE", "PIECE", "Batch", "Job", "Piece", "Source", "batch_of", "open_source", "read_rows"]

PIECE = 8 << 20
"""Bytes of a job, about."""
LARGEST_WHOLE = 1 << 30
"""Bytes of the largest file that is read in one piece (a JSON array)."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a file: bytes `start` to `end` (rows from 0 in Parquet), of which the first is on `line`.

    `names` are the columns of a table, `skip` says that the first record is the header.
    """

    file: Opened
    start: int
    end: int
    line: int
    dialect: Dialect | None = None
    names: tuple[str, ...] = ()
    skip: bool = False

    def parse(self, tally: Tally) -> Rows:
        """The rows of this part; mistakes go to `tally`."""
        if self.file.format == "parquet":
            return parse_parquet(self.file.path, self.file.shown, self.start, self.end, tally)
        if self.file.format == "parallel-lines":
            return parse_parallel_lines(self.file.path, self.file.shown, tally)
        if self.end - self.start > LONGEST_ROW + PIECE and self.file.format != "json":
            size = f"{(self.end - self.start) / 2**20:,.0f} MiB"
            what = f"a row of {size}; at most {LONGEST_ROW >> 20} MiB are read"
            tally.add(self.line, "line-too-long", what, byte=self.start, cure="check that line ends are not missing")
            return Rows((), tally)
        data = self.read()
        if self.file.format == "json-lines":
            return parse_json_lines(data, self.line, self.start, tally)
        if self.file.format == "json":
            return parse_json_array(data, self.start, tally)
        if self.dialect is None:
            return parse_tagged_lines(data, self.line, self.start, tally)
        grid = parse_grid(data, self.dialect, self.line, self.start, tally)
        rows = rows_of_grid(grid.records[int(self.skip) :], self.names, self.dialect, tally)
        return Rows(rows, tally, grid.blank)

    def read(self) -> bytes:
        """The bytes of this part. Raises InputError when the file has become shorter since it was opened."""
        with self.file.path.open("rb") as file:
            file.seek(self.start)
            data = file.read(self.end - self.start)
        if len(data) < self.end - self.start:
            what = "the file became shorter while it was read"
            cure = "wait until whoever writes it is done, and run the same command again"
            raise InputError(what, where=self.file.shown, cure=cure, code="file-missing")
        return data


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of a source, and how to understand it. Can be pickled."""

    piece: Piece
    layout: Layout

    def read(self) -> Batch:
        """Parse, validate, and make Examples. Raises InputError only when the file itself cannot be read."""
        tally = Tally(self.piece.file.shown)
        with _without_collector():
            return batch_of(self.piece.parse(tally), self.layout)


class Scratch:
    """A temporary folder that is made when it is needed and goes when nobody holds this object any more."""

    def __init__(self) -> None:
        self._path: Path | None = None

    def __call__(self) -> Path:
        """The folder."""
        if self._path is None:
            self._path = Path(tempfile.mkdtemp(prefix="tuneworth-"))
            weakref.finalize(self, shutil.rmtree, self._path, ignore_errors=True)
        return self._path


@contextmanager
def _without_collector() -> Iterator[None]:
    """Rows are trees of new objects without cycles: looking for cycles among them takes 40 % of the time of a job."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@dataclass(slots=True)
class Source:
    """A data set that was looked at. `shape` says how it is understood, `jobs` read it in file order."""

    shape: Shape
    layout: Layout
    jobs: tuple[Job, ...]
    file: str
    _first: Rows | None = field(default=None, repr=False)
    _scratch: Scratch | None = field(default=None, repr=False)

    def batches(self) -> Iterator[Batch]:
        """The batches of all jobs, one after the other in this process."""
        for number, job in enumerate(self.jobs):
            # The beginning was parsed when the source was looked at.
            yield batch_of(self._first, self.layout) if number == 0 and self._first else job.read()
            self._first = None


def open_source(files: Path | Sequence[Path], columns: Columns, kind: str, told: Sequence[str] = ()) -> Source:
    """Look at a file, or at several of one data set, and cut them into jobs.

    Format, shape, columns and kind are recognised from the first piece of the first file (all of a small file);
    what `columns` and `kind` (unless "auto") say is kept; `told` is put before the reasons. Raises InputError when a
    file is missing, empty, of another kind, or cannot be understood.
    """
    paths = [files] if isinstance(files, Path) else list(files)
    scratch = Scratch()
    opened = [open_data(path, scratch) for path in paths]
    formats = {file.format: file.shown for file in opened}
    if len(formats) > 1:
        above = os.path.commonpath([path.parent for path in paths])
        found = ", ".join(
            f"{os.path.relpath(name, above)} is {FORMAT_NAMES[format_]}" for format_, name in formats.items()
        )
        what = f"files of several formats cannot be read as one: {found}"
        cure = "give one file, or a folder with files of one format"
        raise InputError(what, where=above, cure=cure, code="mixed-formats")
    pieces: list[Piece] = []
    notes = [*told, *opened[0].notes]
    first: Rows | None = None
    tally = Tally(opened[0].shown)
    header = True
    for file in opened:
        cut = _pieces(file)
        if cut[0].dialect is not None:
            cut, header, told = _named(cut, columns, tally if first is None else Tally(file.shown))
            notes += told if first is None else []
        if first is None:
            tally = Tally(file.shown)
            first = cut[0].parse(tally)
        pieces += cut
    assert first is not None
    if not first.rows:
        broken = listed(tally.problems(), tally.counts, tally.file)
        raise InputError.of(broken or [Problem("the file has no rows", tally.file, code="too-few-rows")])
    names = pieces[0].names or first.columns
    sample = Sample(opened[0].format, names, first.rows, opened[0].shown, header)
    try:
        layout, why = _understand(sample, columns, kind)
    except InputError as error:
        more = listed(tally.problems(), tally.counts, tally.file)
        raise InputError.of([*error.problems, *more]) from None
    if first.blank and len(pieces) == 1:
        notes.append(f"{plural(first.blank, 'blank line was', 'blank lines were')} skipped")
    if len(pieces) > 1:
        notes.append(f"the shape was recognised from the first {plural(len(first.rows), 'row')}")
    if len(opened) > 1:
        notes.append(f"{len(opened)} files are read as one")
    shape = Shape(
        format=opened[0].format,
        rows=layout.shape,
        input=layout.columns.input,
        output=layout.columns.output,
        group=columns.group,
        id=columns.id,
        time=columns.time,
        rejected=columns.rejected,
        kind=layout.kind,
        why=tuple(f"{sentence[0].upper()}{sentence[1:]}." for sentence in (*notes, *why)),
    )
    jobs = tuple(Job(piece, layout) for piece in pieces)
    return Source(shape, layout, jobs, opened[0].shown if len(opened) == 1 else str(paths[0].parent), first, scratch)


def read_rows(path: Path, columns: Columns) -> list[Row]:
    """The rows of a file as they stand in it, whatever they mean. Raises InputError with the malformed ones."""
    scratch = Scratch()
    file = open_data(path, scratch)
    pieces, tally = _pieces(file), Tally(file.shown)
    if pieces[0].dialect is not None:
        pieces, _, _ = _named(pieces, columns, Tally(file.shown))
    rows = [row for piece in pieces for row in piece.parse(tally).rows]
    counts = {code: count for code, count in tally.counts.items() if code not in WARNINGS}
    problems = [problem for problem in tally.problems() if problem.code not in WARNINGS]
    if problems:
        raise InputError.of(listed(problems, counts, file.shown))
    if not rows:
        raise InputError("the file has no rows", where=file.shown, code="too-few-rows")
    return rows


def _pieces(file: Opened) -> list[Piece]:
    if file.format == "parquet":
        rows, size = parquet_rows(file)
        step = max(1, min(rows, rows * PIECE // (4 * size)))  # Parquet is some four times smaller than its rows
        return [Piece(file, at, min(at + step, rows), at + 1) for at in range(0, max(rows, 1), step)]
    if file.format == "json":
        if file.size > LARGEST_WHOLE:
            what = f"a JSON array of {file.size / 2**30:.1f} GiB cannot be read piece by piece"
            cure = "save it as JSON Lines, one object a line (for example: jq -c '.[]' old.json > new.jsonl)"
            raise InputError(what, where=file.shown, cure=cure, code="file-too-large")
        return [Piece(file, file.start, file.size, 1)]
    if file.format in ("tagged-lines", "parallel-lines"):
        return [Piece(file, file.start, file.size, 1)]
    dialect = find_dialect(file) if file.format in ("csv", "tsv") else None
    if file.size <= PIECE:
        return [Piece(file, file.start, file.size, 1, dialect)]
    if dialect is None or dialect.lines_are_records:
        return [Piece(file, *place, dialect) for place in _cut_lines(file, PIECE)]
    return [Piece(file, *place, dialect) for place in cut_records(file, dialect, PIECE)]


def _cut_lines(file: Opened, size: int) -> Iterator[tuple[int, int, int]]:
    """(first byte, byte after the last, line) of pieces of about `size` bytes, cut at line feeds.

    A line that is longer than LONGEST_ROW is a piece of its own, and never held in memory here.
    """
    start = position = file.start
    line = 1
    with file.path.open("rb") as stream:
        stream.seek(position)
        while block := stream.read(size):
            first, last = position + block.find(b"\n") + 1, position + block.rfind(b"\n") + 1
            if first > position:  # there is a line feed in this block
                if first - start > LONGEST_ROW + size:
                    yield start, first, line
                    start, line = first, line + 1
                    block = block[first - position :]
                if last > start:
                    yield start, last, line
                    line += block.count(b"\n")
                    start = last
            position = stream.tell()
    if start < position:
        yield start, position, line


def _named(pieces: list[Piece], columns: Columns, tally: Tally) -> tuple[list[Piece], bool, list[str]]:
    """(pieces of a table file with the names of its columns, whether it has a header, what is worth telling)."""
    head = pieces[0]
    assert head.dialect is not None
    try:
        grid = parse_grid(head.read(), head.dialect, head.line, head.start, tally)
        names, header = find_names(grid, columns, head.file.format, tally)
    except InputError as error:
        raise InputError.of([*error.problems, *listed(tally.problems(), tally.counts, tally.file)]) from None
    named = [replace(piece, names=names, skip=header and piece is head) for piece in pieces]
    return named, header, list(dialect_notes(head.file, head.dialect))


def _understand(sample: Sample, columns: Columns, kind: str) -> tuple[Layout, list[str]]:
    shape = choose_shape(sample, columns) if sample.rows else "table"
    found, why = choose_columns(sample, columns, shape)
    lists = frozenset[str]()
    if shape in ("table", "alpaca"):
        wanted = {found.input, found.output}
        lists = frozenset(name for name in wanted if name and _is_nested(sample.rows, name, name == found.output))
        why += [f"the texts of each list in '{name}' are joined by blanks" for name in lists - {found.output}]
    chosen = columns.input is not None or columns.rejected is not None
    layout = Layout(
        shape, found, "generation", lists, chosen=chosen or (columns.output is not None and shape == "table")
    )
    silent = Tally(sample.where)
    understood = [content for _, content in contents_of(sample.rows, layout, silent) if content is not None]
    found_kind, reason = recognise_kind(understood, shape, found.output, kind)
    separator = None
    if found_kind == "multilabel":
        answers = [content.answer for content in understood if content.listed is None]
        separator = label_separator(found.output, answers) or any_separator(answers)
    several = any(content.listed is not None and len(content.listed) > 1 for content in understood)
    if found_kind not in ("multilabel", "classification") and found.output in lists and several:
        why.append(f"of each list in '{found.output}' the first is the answer; the others count as much in judging")
    return replace(layout, kind=found_kind, separator=separator), [*why, reason]


def _is_nested(rows: Sequence[Row], name: str, objects: bool) -> bool:
    """Whether most cells of a column are lists (or `objects`), so that none of them is a mistake."""
    types = (list, tuple, Mapping) if objects else (list, tuple)
    return sum(isinstance(row.cells.get(name), types) for row in rows) > len(rows) / 2
