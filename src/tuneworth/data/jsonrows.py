"""JSON Lines and JSON arrays become rows, strictly: what another reader would take differently is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import orjson

from tuneworth.data.findings import plural
from tuneworth.data.opening import Opened
from tuneworth.data.rows import Row, Rows
from tuneworth.errors import Problem

_BLANK = re.compile(r"[ \t\r\n]*")
_TYPES: dict[type, str] = {
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "a truth value",
    dict: "an object",
}


def type_name(value: object) -> str:
    """The JSON type of a value in words."""
    return "null" if value is None else _TYPES.get(type(value), f"a {type(value).__name__}")


class _ComplaintError(ValueError):
    """What is wrong with a JSON value although it can be parsed."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise _ComplaintError(f"the key '{twice}' stands twice in one object")
    return found


def _constant(name: str) -> NoReturn:
    raise _ComplaintError(f"{name} is no JSON value")


def _integer(digits: str) -> int:
    if len(digits) > 300:
        raise _ComplaintError(f"a number of {len(digits)} digits is too large")
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise _ComplaintError(f"the number {digits[:40]} is too large")
    return value


_STRICT = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_real)
# Finds the end of a value that was complained about, whatever its numbers are.
_LENIENT = json.JSONDecoder(parse_int=str, parse_float=str)


def parse_json_lines(opened: Opened) -> Rows:
    """One JSON object a line; lines end at line feeds only. Mistakes are collected, not raised."""
    rows: list[Row] = []
    problems: list[Problem] = []
    lines = opened.data.split(b"\n")
    blank = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            blank += number < len(lines)
            continue
        cells, wrong = _json_line(line)
        if wrong:
            problems.append(Problem(wrong, f"{opened.path}:{number}", _cure(wrong)))
        else:
            rows.append(Row(number, cells))
    notes = (f"{plural(blank, 'blank line was', 'blank lines were')} skipped",) if blank else ()
    return _rows(opened, rows, problems, notes)


def _json_line(line: bytes) -> tuple[dict[str, Any], str]:
    """The object on one line, or what is wrong with the line."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return {}, _strictly(line) or f"not valid JSON: {error.msg} at column {error.colno}"
    if not isinstance(value, dict):
        return {}, f"a row is an object, this is {type_name(value)}"
    # orjson keeps the last of duplicate keys without a word. Duplicates take colons away, and only an escaped
    # colon adds one, so that all but suspicious lines are spared the slower second parse.
    if line.count(b":") != orjson.dumps(value).count(b":") or b"\\u003" in line:
        return value, _strictly(line)
    return value, ""


def _strictly(line: bytes) -> str:
    """What the standard library's parser with our checks complains about, or nothing."""
    try:
        _STRICT.decode(line.decode("utf-8"))
    except _ComplaintError as complaint:
        return str(complaint)
    except (ValueError, RecursionError):
        pass  # orjson's words and column are better
    return ""


def parse_json_array(opened: Opened) -> Rows:
    """One JSON array of objects; `line` is where each object begins. Reading ends where it is broken."""
    text = opened.text
    where = str(opened.path)
    start = _skip(text, 0)
    if text[start] != "[":
        what = "the file holds one JSON object, not an array of rows"
        cure = "write the rows as [{...}, {...}] or as JSON Lines, one object a line"
        return _rows(opened, [], [Problem(what, where, cure)])
    rows: list[Row] = []
    problems: list[Problem] = []
    try:
        for line, value, wrong in _elements(text, start):
            if not wrong and not isinstance(value, dict):
                wrong = f"a row is an object, this is {type_name(value)}"
            if wrong:
                problems.append(Problem(wrong, f"{where}:{line}", _cure(wrong)))
            else:
                rows.append(Row(line, value))
    except _BrokenError as broken:
        problems.append(Problem(str(broken), f"{where}:{broken.line}"))
    return _rows(opened, rows, problems)


class _BrokenError(Exception):
    """The array cannot be read on from this line."""

    def __init__(self, line: int, what: str) -> None:
        self.line = line
        super().__init__(what)


def _elements(text: str, start: int) -> Iterator[tuple[int, Any, str]]:
    """(line on which it begins, value, what is wrong with it) of each element of the array at `start`."""
    line, counted = 1, 0
    at = _skip(text, start + 1)
    mark = text[at : at + 1]
    while mark != "]":
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, at, wrong = _element(text, at)
        except json.JSONDecodeError as error:
            raise _BrokenError(error.lineno, f"not valid JSON: {error.msg} at column {error.colno}") from None
        except RecursionError:
            raise _BrokenError(line, "the row that begins here is nested too deeply") from None
        yield line, value, wrong
        at = _skip(text, at)
        mark = text[at : at + 1]
        if mark == ",":
            at = _skip(text, at + 1)
        elif mark != "]":
            end = text.count("\n", 0, at) + 1
            raise _BrokenError(end, "the array breaks off here: a comma or ']' is missing")
    rest = _skip(text, at + 1)
    if rest < len(text):
        raise _BrokenError(text.count("\n", 0, rest) + 1, "there is something after the end of the array")


def _element(text: str, at: int) -> tuple[Any, int, str]:
    try:
        value, end = _STRICT.raw_decode(text, at)
    except _ComplaintError as complaint:
        value, end = _LENIENT.raw_decode(text, at)
        return value, end, str(complaint)
    return value, end, ""


def _skip(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _rows(opened: Opened, rows: Sequence[Row], problems: Sequence[Problem], notes: Sequence[str] = ()) -> Rows:
    columns = dict.fromkeys(name for row in rows for name in row.cells)
    return Rows(opened.format, tuple(columns), tuple(rows), tuple(problems), (*opened.notes, *notes))


def _cure(wrong: str) -> str:
    if "NaN" in wrong or "Infinity" in wrong:
        return "write null for a missing value"
    if "surrogate" in wrong:
        return "half of a character is missing; write the text again from its source"
    return "remove one of the two" if "twice" in wrong else ""
