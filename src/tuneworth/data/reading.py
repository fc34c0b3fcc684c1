"""A data file becomes Examples: `read_examples` is the one way in."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from tuneworth.data.conversations import read_conversation
from tuneworth.data.example import Example, Message, content_id
from tuneworth.data.findings import Finding, RowRef, Split, plural
from tuneworth.data.header import name_columns
from tuneworth.data.jsonrows import parse_json_array, parse_json_lines, type_name
from tuneworth.data.opening import Opened, listed, open_data
from tuneworth.data.rows import Row, Rows
from tuneworth.data.shape import RowShape, Shape, check_given, choose_columns, recognise_kind
from tuneworth.data.tables import parse_grid, parse_parquet
from tuneworth.errors import InputError, Problem
from tuneworth.task import Columns

TRAIN_ROWS_NEEDED = 20
"""Fewer rows than this cannot be split into parts that show anything."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read: the examples in file order, how the file was understood, and the rows left out."""

    examples: tuple[Example, ...]
    shape: Shape
    dropped: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class _Draft:
    """A row on its way to an Example. `wrong` says what is wrong with it."""

    line: int
    messages: tuple[Message, ...]
    answer: str
    group: str
    id: str
    wrong: tuple[str, ...]

    @property
    def flaw(self) -> str | None:
        """The code of the finding for which the row is left out."""
        if not any(message.content.strip() for message in self.messages if message.role == "user"):
            return "empty-input"
        return None if self.answer.strip() else "empty-answer"


def read_examples(path: Path, columns: Columns, kind: str, role: Split = "train") -> Reading:
    """Read CSV, TSV, JSON Lines, a JSON array or Parquet. What `columns` leaves open, and a `kind` "auto",
    is recognised and explained.

    `columns` may give input and output by number ("1" is the first) for a table without a header. Read the
    validation and test files of a data set with the `shape.columns` and `shape.kind` of its train file and
    their `role`: they may be small and hold one class.

    Rows with an empty input or answer are left out and reported in `dropped`. Raises InputError when the file
    cannot be used; every malformed row is a problem in it (at most 100 listed, the total stated).
    """
    opened = open_data(path)
    where = str(path)
    rows = _parse(opened, columns)
    try:
        row_shape, input_, output, reasons = _understand(rows, columns, where)
    except InputError as error:
        raise InputError.of(listed([*error.problems, *rows.problems], where)) from None
    drafts = [_draft(row, input_, output, columns) for row in rows.rows]
    _raise_problems(rows, drafts, columns, where)
    kept = [draft for draft in drafts if draft.flaw is None]
    found_kind, reason = recognise_kind([draft.answer for draft in kept], output, kind)
    shape = Shape(
        format=rows.format,
        rows=row_shape,
        input=input_,
        output=output,
        group=columns.group,
        id=columns.id,
        kind=found_kind,
        why=tuple(f"{sentence[0].upper()}{sentence[1:]}." for sentence in (*rows.notes, *reasons, reason)),
    )
    if found_kind == "classification":
        kept = [replace(draft, answer=draft.answer.strip()) for draft in kept]
    dropped = _dropped(drafts, where, role)
    _check_enough(kept, dropped, shape, role, where)
    return Reading(_examples(kept, where), shape, dropped)


def read_rows(path: Path, columns: Columns) -> Rows:
    """The rows of a file as they stand in it, whatever they mean. Raises InputError with every malformed row."""
    rows = _parse(open_data(path), columns)
    if rows.problems:
        raise InputError.of(listed(list(rows.problems), str(path)))
    return rows


def _parse(opened: Opened, columns: Columns) -> Rows:
    if opened.format in ("csv", "tsv"):
        rows = name_columns(opened, parse_grid(opened), columns)
    elif opened.format == "parquet":
        rows = parse_parquet(opened)
    else:
        rows = parse_json_lines(opened) if opened.format == "json-lines" else parse_json_array(opened)
    if not rows.rows:
        problems = list(rows.problems) or [Problem("the file has no rows", str(opened.path))]
        raise InputError.of(listed(problems, str(opened.path)))
    return rows


def _understand(rows: Rows, columns: Columns, where: str) -> tuple[RowShape, str | None, str | None, Sequence[str]]:
    """(row shape, input column, output column, why); conversations have no such columns."""
    row_shape = _row_shape(rows, columns, where)
    if row_shape == "table":
        return row_shape, *choose_columns(rows, columns, where)
    check_given(rows, columns, where)
    if row_shape == "chat":
        return row_shape, None, None, ["rows are conversations; the last answer of each is the wanted one"]
    return row_shape, "prompt", "completion", ["rows are prompts with their completions"]


def _schema(cells: Mapping[str, Any]) -> str:
    if "messages" in cells:
        return "chat"
    if "preferred_output" in cells or {"chosen", "rejected"} <= cells.keys():
        return "preference"
    if "conversations" in cells:
        return "ShareGPT"
    return "prompt-completion" if {"prompt", "completion"} <= cells.keys() else "table"


def _row_shape(rows: Rows, columns: Columns, where: str) -> RowShape:
    """The one shape that all rows have. Columns that the user chose make a table of any of them."""
    if columns.input is not None or columns.output is not None:
        return "table"
    counts = Counter(_schema(row.cells) for row in rows.rows)
    if len(counts) > 1:
        found = ", ".join(f"{plural(count, 'row')} of shape {name}" for name, count in counts.most_common())
        cure = "keep one shape in a file, or choose columns that all rows have (--input NAME --output NAME)"
        raise InputError(f"rows have different shapes: {found}", where=where, cure=cure)
    (schema,) = counts
    if schema == "chat":
        return "chat"
    if schema == "prompt-completion":
        return "prompt-completion"
    if schema != "table":
        found = "preference pairs" if schema == "preference" else "ShareGPT conversations"
        cure = "write rows as {'messages': [{'role': 'user', 'content': ...}, {'role': 'assistant', ...}]}"
        raise InputError(f"rows are {found}, which are not read", where=where, cure=cure.replace("'", '"'))
    return "table"


def _draft(row: Row, input_: str | None, output: str | None, columns: Columns) -> _Draft:
    wrong: list[str] = []
    if input_ is None or output is None:
        conversation = read_conversation(row.cells)
        messages, answer = conversation.messages, conversation.answer
        wrong += conversation.wrong
        for text in (*(message.content for message in messages), answer):
            wrong += _unusable(text, "a message")
    else:
        messages = (Message("user", _text(row, input_, wrong)),)
        answer = _text(row, output, wrong)
    group = _text(row, columns.group, wrong) if columns.group else ""
    id_ = _text(row, columns.id, wrong) if columns.id else ""
    return _Draft(row.line, messages, answer, group, id_, tuple(wrong))


def _text(row: Row, column: str, wrong: list[str]) -> str:
    """The text of one cell; numbers and dates as they are written, nothing for a missing value."""
    value = row.cells.get(column)
    if isinstance(value, str):
        wrong += _unusable(value, f"'{column}'")
        return value
    if value is None:
        if column not in row.cells:
            wrong.append(f"the row has no '{column}'")
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return ""  # how data frames write a missing value
    if isinstance(value, int | float | Decimal | date | time):
        return str(value)
    wrong.append(f"'{column}' is {type_name(value)}; a text is needed")
    return ""


def _unusable(text: str, what: str) -> list[str]:
    if "\0" in text:
        return [f"{what} holds a NUL character"]
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return [f"{what} holds half a character (a lone surrogate) at position {error.start}"]
    return []


def _raise_problems(rows: Rows, drafts: Sequence[_Draft], columns: Columns, where: str) -> None:
    """Raise InputError with every problem of the file, in the order of its lines."""
    found = [(_line(problem), problem) for problem in rows.problems]
    for draft in drafts:
        found += [(draft.line, Problem(wrong, f"{where}:{draft.line}")) for wrong in draft.wrong]
    if columns.id:
        first: dict[str, int] = {}
        for draft in drafts:
            line = first.setdefault(draft.id, draft.line)
            if not draft.id.strip():
                found.append((draft.line, Problem("the id is empty", f"{where}:{draft.line}")))
            elif line != draft.line:
                what = f"the id '{draft.id}' is already that of line {line}"
                found.append((draft.line, Problem(what, f"{where}:{draft.line}", "ids must be unique")))
    if found:
        found.sort(key=lambda pair: pair[0])
        raise InputError.of(listed([problem for _, problem in found], where))


def _line(problem: Problem) -> int:
    line = problem.where.rpartition(":")[2]
    return int(line) if line.isdigit() else 0


def _check_enough(drafts: Sequence[_Draft], dropped: Sequence[Finding], shape: Shape, role: Split, where: str) -> None:
    needed = TRAIN_ROWS_NEEDED if role == "train" else 1
    if len(drafts) < needed:
        left_out = "".join(f"; {finding.message}" for finding in dropped)
        what = f"{plural(len(drafts), 'usable row')}; at least {needed} needed{left_out}"
        cure = "add rows; a few hundred make a useful measurement" if role == "train" else "add rows"
        raise InputError(what, where=where, cure=cure)
    classes = {draft.answer for draft in drafts}
    if shape.kind != "classification" or role != "train":
        return
    if len(classes) == 1:
        what = f"every row has the same answer, '{drafts[0].answer[:80]}'; there is nothing to tell apart"
        cure = "give rows of at least two classes, or choose another answer column with --output NAME"
        raise InputError(what, where=where, cure=cure)
    if len(classes) == len(drafts):
        what = f"all {len(drafts):,} answers differ, so they are no classes"
        cure = "choose the kind generation, or another column with --output NAME"
        raise InputError(what, where=where, cure=cure)


def _examples(drafts: Sequence[_Draft], file: str) -> tuple[Example, ...]:
    seen: Counter[str] = Counter()
    examples = []
    for draft in drafts:
        id_ = draft.id
        if not id_:
            id_ = content_id(*_identity(draft.messages), draft.answer)
            seen[id_] += 1
            # The same row again gets a suffix, so that ids stay when rows are appended.
            id_ = id_ if seen[id_] == 1 else f"{id_}-{seen[id_]}"
        examples.append(Example(id_, draft.messages, draft.answer, file, draft.line, draft.group or None))
    return tuple(examples)


def _identity(messages: Sequence[Message]) -> list[str]:
    if len(messages) == 1:
        return [messages[0].content]
    return [part for message in messages for part in (message.role, message.content)]


def _dropped(drafts: Sequence[_Draft], file: str, role: Split) -> tuple[Finding, ...]:
    findings = []
    for code, part in (("empty-input", "input"), ("empty-answer", "answer")):
        rows = tuple(RowRef(file, draft.line, draft.id) for draft in drafts if draft.flaw == code)
        if rows:
            message = f"{plural(len(rows), 'row')} of {role} with an empty {part}"
            findings.append(Finding(code, "warn", len(rows), message, rows, "left out", role))
    return tuple(findings)
