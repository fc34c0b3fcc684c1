"""Rows become Examples: each through the reader of its shape, with an id, a group and a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

from tuneworth.data import contents
from tuneworth.data.contents import Content, Reader
from tuneworth.data.conversations import Note
from tuneworth.data.example import Example, Message, content_id
from tuneworth.data.findings import RowRef
from tuneworth.data.jsonrows import type_name
from tuneworth.data.kinds import answer_of
from tuneworth.data.problems import RowProblem, Tally
from tuneworth.data.rows import Row, Rows
from tuneworth.data.shape import Kind, RowShape, shape_of
from tuneworth.task import Columns

READERS: Mapping[RowShape, Reader] = {
    "table": contents.read_table,
    "chat": contents.read_chat,
    "prompt-completion": contents.read_prompt,
    "alpaca": contents.read_alpaca,
    "sharegpt": contents.read_conversations,
    "preference": contents.read_preference,
    "chosen-rejected": contents.read_pair,
    "comparison": contents.read_comparison,
    "chunks": contents.read_chunks,
    "tags": contents.read_tags,
}
"""How the row of each shape is read."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the rows of a source are understood. `nested` are the columns whose cells are lists of texts or
    objects, `separator` stands between the labels of one cell, `chosen` says that the user chose the shape."""

    shape: RowShape
    columns: Columns
    kind: Kind
    nested: frozenset[str] = frozenset()
    separator: str | None = None
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """What a job read.

    The ids of `examples` come from their content, so that the same row twice has the same id until the batches are
    collected. `problems` are the first five of each code, `counts` counts all of them, warnings too. `left_out` are
    rows that were not used, with the code of the reason; `shapes` counts the rows by their shape.
    """

    examples: tuple[Example, ...]
    problems: tuple[RowProblem, ...]
    counts: Mapping[str, int]
    left_out: tuple[tuple[str, RowRef], ...]
    shapes: Mapping[RowShape, int]
    rows: int
    blank: int


def contents_of(rows: Sequence[Row], layout: Layout, tally: Tally) -> Iterator[tuple[Row, Content | None]]:
    """Each row with its content, None where it is wrong; what is wrong goes to `tally`."""
    reader, columns = READERS[layout.shape], layout.columns
    for row in rows:
        before = tally.errors
        note = Note(tally, row.line)
        if layout.shape == "table":
            for name in (columns.input, columns.output):
                value = row.cells.get(name or "")
                if name not in layout.nested and isinstance(value, list | tuple | Mapping):
                    note("cell-type", f"'{name}' is {type_name(value)}; a text is needed")
        content = reader(row.cells, columns, note) if tally.errors == before else None
        yield row, content if tally.errors == before else None


def batch_of(rows: Rows, layout: Layout) -> Batch:
    """The Examples of some rows."""
    tally = rows.tally
    shapes: Counter[RowShape] = Counter()
    kept = list(rows.rows)
    if not layout.chosen:
        kept = []
        for row in rows.rows:
            found = shape_of(row.cells)
            shapes[found] += 1
            if found == layout.shape:
                kept.append(row)
            else:
                what = f"the row is of shape {found}, but most rows are of shape {layout.shape}"
                tally.add(row.line, "mixed-shapes", what)
    examples: list[Example] = []
    left_out: list[tuple[str, RowRef]] = []
    for row, content in contents_of(kept, layout, tally):
        if content is None:
            continue
        example = _example(row, content, layout, tally)
        flaw = content.flaw(layout.kind)
        if flaw:
            left_out.append((flaw, RowRef.of(example)))
        else:
            examples.append(example)
    return Batch(
        tuple(examples), tally.problems(), dict(tally.counts), tuple(left_out), shapes, len(rows.rows), rows.blank
    )


def _example(row: Row, content: Content, layout: Layout, tally: Tally) -> Example:
    columns, note = layout.columns, Note(tally, row.line)
    answer, references = answer_of(content, layout.kind, layout.separator)
    id_ = contents.cell_text(row.cells, columns.id, note) if columns.id else ""
    if columns.id and not id_.strip():
        note("id-empty", "the id is empty", cure="give each row an id of its own")
    group = contents.cell_text(row.cells, columns.group, note) if columns.group else content.group
    time = contents.cell_text(row.cells, columns.time, note) if columns.time else ""
    return Example(
        id_ or content_id(*_identity(content.messages), answer, *_rest(content)),
        content.messages,
        answer,
        tally.file,
        row.line,
        group or None,
        time or None,
        content.reply.calls,
        content.reply.weight,
        content.tools,
        content.parallel,
        content.rejected,
        references,
    )


def _identity(messages: Sequence[Message]) -> list[str]:
    if len(messages) == 1:
        return [messages[0].content]
    parts = []
    for message in messages:
        parts += [message.role, message.content]
        parts += [part for call in message.calls for part in (call.name, call.arguments)]
    return parts


def _rest(content: Content) -> list[str]:
    """What else makes two rows different ones."""
    parts = [part for call in content.reply.calls for part in (call.name, call.arguments)]
    if content.tools:
        parts.append(content.tools)
    if content.rejected is not None:
        parts.append(orjson.dumps(content.rejected.to_openai()).decode())
    return parts
