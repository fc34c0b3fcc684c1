"""Rows of one shape become rows of another, exactly, or are refused by name.

Each row that is written is read back through the reader of its shape and compared: what a shape cannot hold (a system
message in a table, the ids of calls in ShareGPT's shape) is a refusal with its reason, never a loss.
"""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import polars

from tuneworth.data.conversations import Note
from tuneworth.data.example import Example, Message
from tuneworth.data.findings import Finding, RowRef, Split
from tuneworth.data.opening import FORMAT_NAMES, SUFFIXES, Format
from tuneworth.data.problems import Tally, listed
from tuneworth.data.reading import Verdicts, left_out_findings
from tuneworth.data.shape import RowShape, Shape
from tuneworth.data.sharegpt import arguments_text
from tuneworth.data.streaming import READERS, Source
from tuneworth.errors import InputError, nearest
from tuneworth.store.atomic import disk_errors
from tuneworth.task import Columns

Row = dict[str, Any]
_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}
_TABLE = Columns(input="input", output="output")


class CannotHoldError(ValueError):
    """The target shape has no place for something; the message names it."""


@dataclass(frozen=True, slots=True)
class Converted:
    """How many rows were written, how the source was understood, and which rows were left out."""

    rows: int
    shape: Shape
    left_out: tuple[Finding, ...]


def to_row(example: Example, shape: RowShape) -> Row:
    """`example` as a row of `shape`, with `group` and `time` beside it where it has them.

    Raises CannotHoldError when the shape cannot hold it. Reading the row gives the same messages, answer, tools and
    rejected answer.
    """
    if shape not in _WRITERS:
        raise CannotHoldError(f"rows of shape {shape} are read, not written")
    if example.references:
        raise CannotHoldError("several equally good answers")
    if example.rejected is not None and shape not in ("preference", "chosen-rejected"):
        raise CannotHoldError("a rejected answer")
    row = _WRITERS[shape](example)
    _check_same(example, row, shape)
    beside = {name: value for name, value in (("group", example.group), ("time", example.time)) if value is not None}
    return {**row, **beside}


def _check_same(example: Example, row: Row, shape: RowShape) -> None:
    tally = Tally(example.file)
    content = READERS[shape](row, _TABLE if shape == "table" else Columns(), Note(tally, example.line))
    if content is None or tally.errors:
        why = next((p.what for p in tally.problems() if p.severity == "error"), "no reason given")
        raise CannotHoldError(f"the row, which would be refused when read: {why}")
    before = (example.messages, example.reply, example.tools, example.parallel_tool_calls, example.rejected)
    after = (content.messages, content.reply, content.tools, content.parallel, content.rejected)
    names = ("the messages", "the answer", "the tools", "parallel_tool_calls", "the rejected answer")
    for name, old, new in zip(names, before, after, strict=True):
        if old != new:
            raise CannotHoldError(f"{name} as they are" if name.endswith("s") else f"{name} as it is")


def _chat(example: Example) -> Row:
    return {"messages": [message.to_openai() for message in example.conversation], **_tools(example)}


def _tools(example: Example) -> Row:
    row: Row = {"tools": example.tool_definitions} if example.tools else {}
    if example.parallel_tool_calls is not None:
        row["parallel_tool_calls"] = example.parallel_tool_calls
    return row


def _prompt_completion(example: Example) -> Row:
    _need_no_tools(example)
    return {"prompt": _messages_or_text(example), "completion": _reply_or_text(example.reply, example)}


def _chosen_rejected(example: Example) -> Row:
    _need_no_tools(example)
    if example.rejected is None:
        raise CannotHoldError("a row without a rejected answer")
    texts = _is_plain(example.messages) and _is_text(example.reply) and _is_text(example.rejected)
    if texts:
        chosen: Any = example.answer
        rejected: Any = example.rejected.content
        return {"prompt": example.messages[0].content, "chosen": chosen, "rejected": rejected}
    prompt = [message.to_openai() for message in example.messages]
    return {"prompt": prompt, "chosen": [example.reply.to_openai()], "rejected": [example.rejected.to_openai()]}


def _preference(example: Example) -> Row:
    if example.rejected is None:
        raise CannotHoldError("a row without a rejected answer")
    return {
        "input": {"messages": [message.to_openai() for message in example.messages], **_tools(example)},
        "preferred_output": [example.reply.to_openai()],
        "non_preferred_output": [example.rejected.to_openai()],
    }


def _table(example: Example) -> Row:
    text, answer = _one_turn(example, "")
    return {"input": text, "output": answer}


def _alpaca(example: Example) -> Row:
    system = ""
    if example.messages[0].role == "system":
        system = example.messages[0].content
    text, answer = _one_turn(example, system)
    row = {"instruction": text, "input": "", "output": answer}
    return {**row, "system": system} if system else row


def _one_turn(example: Example, system: str) -> tuple[str, str]:
    """(question, answer) of a row of one turn and plain texts."""
    _need_no_tools(example)
    asked = example.messages[1:] if system else example.messages
    if any(message.role == "system" for message in asked):
        raise CannotHoldError("a system message")
    if not _is_plain(asked):
        raise CannotHoldError("several turns" if len(asked) > 1 else "a message's name")
    if not _is_text(example.reply):
        raise CannotHoldError("a weight of the answer")
    return asked[0].content, example.answer


def _need_no_tools(example: Example) -> None:
    if example.tools or any(m.calls or m.role == "tool" for m in example.conversation):
        raise CannotHoldError("tools and tool calls")


def _is_plain(messages: Sequence[Message]) -> bool:
    return len(messages) == 1 and messages[0] == Message("user", messages[0].content)


def _is_text(reply: Message) -> bool:
    return reply == Message("assistant", reply.content)


def _messages_or_text(example: Example) -> Any:
    if _is_plain(example.messages) and _is_text(example.reply):
        return example.messages[0].content
    return [message.to_openai() for message in example.messages]


def _reply_or_text(reply: Message, example: Example) -> Any:
    return reply.content if _is_plain(example.messages) and _is_text(reply) else [reply.to_openai()]


def _sharegpt(example: Example) -> Row:
    listed: list[Row] = []
    for message in example.conversation:
        if message.name is not None:
            raise CannotHoldError("a message's name")
        if message.calls:
            if message.content:
                raise CannotHoldError("a text beside tool calls")
            made = [{"name": call.name, "arguments": _arguments(call.arguments)} for call in message.calls]
            value = orjson.dumps(made[0] if len(made) == 1 else made).decode()
            listed.append({"from": "function_call", "value": value})
        else:
            listed.append({"from": _SPEAKERS[message.role], "value": message.content})
        if message.weight is not None:
            listed[-1]["weight"] = message.weight
    if example.parallel_tool_calls is not None:
        raise CannotHoldError("parallel_tool_calls")
    row: Row = {"conversations": listed}
    if example.tools:
        tools = example.tool_definitions
        bare = all(tool.keys() == {"type", "function"} for tool in tools)
        row["tools"] = orjson.dumps([tool["function"] for tool in tools] if bare else tools).decode()
    try:
        _check_same(example, row, "sharegpt")
    except CannotHoldError as error:
        if any(message.calls for message in example.conversation):
            raise CannotHoldError("ids of tool calls other than call_1, call_2, ... in their order") from error
        raise
    return row


def _arguments(text: str) -> Any:
    """Arguments as an object if that gives the same text again, else the text."""
    found = orjson.loads(text)
    return found if arguments_text(found) == text else text


_WRITERS: Mapping[RowShape, Callable[[Example], Row]] = {
    "chat": _chat,
    "prompt-completion": _prompt_completion,
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
    "preference": _preference,
    "chosen-rejected": _chosen_rejected,
    "table": _table,
}
TARGETS: tuple[RowShape, ...] = tuple(_WRITERS)
"""The shapes that can be written."""


def target_shape(name: str) -> RowShape:
    """The shape of that name. Raises InputError that names the nearest one that can be written."""
    for shape in TARGETS:
        if shape == name:
            return shape
    raise InputError(f"'{name}' is no shape that can be written", where="--to", cure=nearest(name, TARGETS))


def convert(source: Source, target: Path, shape: RowShape, role: Split = "train") -> Converted:
    """Write the rows of `source` to `target` in `shape`; the ending of the name says the format (JSON Lines, JSON,
    CSV, TSV, Parquet). `role` is what the rows are called where some are left out.

    Raises InputError with every row that is malformed or that the shape cannot hold; `target` is then as it was.
    """
    format_ = _format(target)
    verdicts, refusals = Verdicts(source.file), Tally(source.file)
    left_out: list[tuple[str, RowRef]] = []
    count = 0

    def rows() -> Iterator[Row]:
        nonlocal count
        for batch in source.batches():
            verdicts.add(batch)
            left_out.extend(batch.left_out)
            for example in batch.examples:
                try:
                    row = to_row(example, shape)
                    _check_format(row, format_)
                except CannotHoldError as error:
                    refusals.file = example.file
                    refusals.add(example.line, "cannot-hold", f"{shape} cannot hold {error}", cure=_CURE)
                    continue
                count += 1
                if shape == "alpaca" and format_ not in ("json-lines", "json"):
                    row = {"system": "", **row}
                yield {**row, "id": example.id} if source.shape.id else row
        verdicts.raise_errors()
        if refusals.errors:
            raise InputError.of(listed(refusals.problems(), refusals.counts, source.file))
        if not count:
            raise InputError("no row is left to write", where=source.file, code="too-few-rows")

    _write(target, _WRITE[format_], rows())
    return Converted(count, source.shape, left_out_findings(left_out, role))


_CURE = "choose another shape with --to, or leave these rows out"


def _format(target: Path) -> Format:
    found = SUFFIXES.get(target.suffix.lower())
    if found is None or found not in _WRITE:
        endings = ", ".join(f"*{suffix}" for suffix, format_ in SUFFIXES.items() if format_ in _WRITE)
        raise InputError("the ending says no format that can be written", where=str(target), cure=f"choose {endings}")
    return found


def _check_format(row: Row, format_: Format) -> None:
    """Raise CannotHoldError when a row does not fit into a table file."""
    if format_ in ("csv", "tsv", "parquet") and not all(isinstance(cell, str) for cell in row.values()):
        raise CannotHoldError(f"lists in a {FORMAT_NAMES[format_]} file")
    if format_ == "tsv" and any(mark in cell for cell in row.values() for mark in '\t\n\r"'):
        raise CannotHoldError("tabs, line breaks and quotes in a TSV file")
    if format_ == "csv" and not any(cell.strip() for cell in row.values()):
        raise CannotHoldError("a blank row in a CSV file")


def _write(target: Path, write: Callable[[Iterable[Row], Path], None], rows: Iterator[Row]) -> None:
    """Write beside `target` and put it in place when it is whole."""
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:80]}.", suffix=".tmp")
        os.close(descriptor)
        try:
            write(rows, Path(name))
            with Path(name).open("rb") as file:
                os.fsync(file.fileno())
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _write_lines(rows: Iterable[Row], path: Path) -> None:
    with path.open("wb") as file:
        for row in rows:
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def _write_array(rows: Iterable[Row], path: Path) -> None:
    with path.open("wb") as file:
        for number, row in enumerate(rows):
            file.write((b",\n" if number else b"[\n") + orjson.dumps(row))
        file.write(b"\n]\n")


def _write_csv(rows: Iterable[Row], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        for cells in _cells(rows):
            line = io.StringIO()
            csv.writer(line, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(cells)
            file.write(line.getvalue())


def _write_tsv(rows: Iterable[Row], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        for cells in _cells(rows):
            file.write("\t".join(cells) + "\n")


def _cells(rows: Iterable[Row]) -> Iterator[list[str]]:
    """The header, which is that of the first row, and the cells of each row."""
    names: list[str] = []
    for row in rows:
        if not names:
            names = list(row)
            yield names
        more = row.keys() - set(names)
        if more:
            what = f"some rows have a column {', '.join(sorted(more))} that the first row lacks"
            raise InputError(what, cure="write JSON Lines instead of a table", code="cannot-hold")
        yield [row.get(name, "") for name in names]


def _write_parquet(rows: Iterable[Row], path: Path) -> None:
    polars.DataFrame(list(rows), infer_schema_length=None).write_parquet(path)


_WRITE: Mapping[Format | None, Callable[[Iterable[Row], Path], None]] = {
    "json-lines": _write_lines,
    "json": _write_array,
    "csv": _write_csv,
    "tsv": _write_tsv,
    "parquet": _write_parquet,
}
