"""JSON Lines and JSON arrays become rows, strictly: what another reader would take differently is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import orjson

from tuneworth.data.characters import HALF, bad_byte, check_characters, check_surrogates, decoded
from tuneworth.data.problems import Tally
from tuneworth.data.rows import Row, Rows

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

    def __init__(self, code: str, what: str) -> None:
        self.code = code
        super().__init__(what)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise _ComplaintError("duplicate-key", f"the key '{_short(twice)}' stands twice in one object")
    return found


def _constant(name: str) -> NoReturn:
    raise _ComplaintError("not-a-number", f"{name} is no JSON value")


def _integer(digits: str) -> int:
    if len(digits) > 300:
        raise _ComplaintError("number-too-large", f"a number of {len(digits)} digits is too large")
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise _ComplaintError("number-too-large", f"the number {digits[:40]} is too large")
    return value


_STRICT = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_real)
# Finds the end of a value that was complained about, whatever its numbers are.
_LENIENT = json.JSONDecoder(parse_int=str, parse_float=str)


def parse_json_lines(data: bytes, line: int, offset: int, tally: Tally) -> Rows:
    """One JSON object a line; lines end at line feeds only. `line` and `offset` (bytes) say where `data` begins.

    Mistakes go to `tally`.
    """
    rows: list[Row] = []
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    blank = 0
    at = offset
    for number, raw in enumerate(lines, line):
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            if raw.strip():
                _broken_line(raw, number, at, error, tally)
            else:
                blank += 1
            at += len(raw) + 1
            continue
        at += len(raw) + 1
        # orjson keeps the last of duplicate keys without a word. Duplicates take colons away, and only an escaped
        # colon adds one, so that all but suspicious lines are spared the slower second parse.
        if raw.count(b":") != orjson.dumps(value).count(b":") or b"\\u003" in raw:
            complaint = _complaint(raw)
            if complaint:
                tally.add(number, complaint.code, str(complaint), cure=_CURES.get(complaint.code, ""))
                continue
        if type(value) is not dict:
            _not_an_object(value, number, tally)
        elif not _is_suspect(raw) or check_characters(value, number, tally):
            rows.append(Row(number, value))
    return Rows(tuple(rows), tally, blank)


def _is_suspect(raw: bytes) -> bool:
    """Whether a line may hold an escaped control character, so that a closer look is due."""
    return b"\\" in raw and (b"\\u000" in raw or b"\\u001" in raw or b"\\b" in raw or b"\\f" in raw)


_CURES = {
    "not-a-number": "write null for a missing value",
    "lone-surrogate": HALF,
    "duplicate-key": "remove one of the two",
}


def _broken_line(raw: bytes, number: int, offset: int, error: orjson.JSONDecodeError, tally: Tally) -> None:
    bad = bad_byte(raw)
    if bad is not None:
        at, code, what, cure = bad
        byte = offset + at
        what = f"byte {raw[at]:#04x} at offset {byte} of the file {what}"
        tally.add(number, code, what, column=at + 1, byte=byte, cure=cure)
        return
    complaint = _complaint(raw)
    if complaint:
        tally.add(number, complaint.code, str(complaint), cure=_CURES.get(complaint.code, ""))
        return
    code, cure = "invalid-json", ""
    if "surrogate" in error.msg:
        code = "lone-surrogate"
    elif "depth" in error.msg or "recursion" in error.msg.lower():
        code = "too-deep"
    elif raw.lstrip()[:1] not in b'{["':
        cure = 'each line is one JSON object, as in {"text": "...", "label": "..."}'
    elif "control character" in error.msg:
        cure = "write line breaks in texts as \\n and tabs as \\t"
    elif "content after" in error.msg:
        cure = "one object a line"
    what = f"not valid JSON: {error.msg.partition(': line ')[0]} at column {error.colno}"
    tally.add(number, code, what, column=error.colno, cure=_CURES.get(code, cure))


def _complaint(raw: bytes) -> _ComplaintError | None:
    """What the standard library's parser with our checks complains about, or nothing."""
    try:
        _STRICT.decode(raw.decode("utf-8"))
    except _ComplaintError as complaint:
        return complaint
    except (ValueError, RecursionError):
        pass  # orjson's words and column are better
    return None


def _not_an_object(value: object, line: int, tally: Tally) -> None:
    cure = 'write each row as an object, as in {"text": "...", "label": "..."}'
    tally.add(line, "row-not-object", f"a row is an object, this is {type_name(value)}", cure=cure)


def parse_json_array(data: bytes, offset: int, tally: Tally) -> Rows:
    """One JSON array of objects; `line` is where each object begins. Reading ends where it is broken.

    `offset` is how many bytes of the file come before `data`.

    An object of one key that holds a list of {"data": [chunks]} is read as the chunks of that key (an intent).
    """
    text = decoded(data, 1, offset, tally)
    rows: list[Row] = []
    start = _skip(text, 0)
    try:
        if text[start : start + 1] == "{":
            rows = list(_intents(text, start, tally))
            return Rows(tuple(rows), tally)
        for line, value in _elements(text, start, tally):
            if isinstance(value, dict):
                if check_surrogates(value, line, tally) and check_characters(value, line, tally):
                    rows.append(Row(line, value))
            else:
                _not_an_object(value, line, tally)
    except _BrokenError as broken:
        tally.add(broken.line, broken.code, str(broken), column=broken.column)
    return Rows(tuple(rows), tally)


def _intents(text: str, start: int, tally: Tally) -> Iterator[Row]:
    """The rows of {"intent": [{"data": [{"text": ..., "entity": ...}, ...]}, ...]}."""
    opening = re.compile(r'\{\s*("(?:[^"\\]|\\.)*")\s*:\s*(?=\[)').match(text, start)
    if opening is None:
        what = "the file holds one JSON object, not an array of rows"
        tally.add(1, "invalid-json", what, cure="write the rows as [{...}, {...}] or as JSON Lines, one object a line")
        return
    intent = json.loads(opening.group(1))
    end = opening.end()
    if text[_skip(text, end + 1)] == "]":
        tally.add(1, "chunks", f"the file holds one JSON object, not an array of rows, and '{_short(intent)}' is empty")
    for line, value in _elements(text, end, tally, closed_by="}"):
        if isinstance(value, dict) and isinstance(value.get("data"), list):
            if check_surrogates(value, line, tally) and check_characters(value, line, tally):
                yield Row(line, {**value, "intent": intent})
        else:
            what = f"the file holds one JSON object, not an array of rows, and '{_short(intent)}' holds no chunks"
            cure = 'write the rows as [{...}, {...}], or chunks as {"intent": [{"data": [{"text": "..."}]}]}'
            tally.add(line, "chunks", what, cure=cure)


class _BrokenError(Exception):
    """The array cannot be read on from this line."""

    def __init__(self, line: int, what: str, code: str = "invalid-json", column: int | None = None) -> None:
        self.line = line
        self.code = code
        self.column = column
        super().__init__(what)


def _elements(text: str, start: int, tally: Tally, closed_by: str = "") -> Iterator[tuple[int, Any]]:
    """(line on which it begins, value) of each element of the array at `start`; what is wrong goes to `tally`.

    `closed_by` is what closes around the array.
    """
    line, counted = 1, 0
    at = _skip(text, start + 1)
    mark = text[at : at + 1]
    while mark != "]":
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, at, complaint = _element(text, at)
        except json.JSONDecodeError as error:
            what = f"not valid JSON: {error.msg} at column {error.colno}"
            raise _BrokenError(error.lineno, what, column=error.colno) from None
        except RecursionError:
            raise _BrokenError(line, "the row that begins here is nested too deeply", "too-deep") from None
        if complaint is None:
            yield line, value
        else:
            tally.add(line, complaint.code, str(complaint), cure=_CURES.get(complaint.code, ""))
        at = _skip(text, at)
        mark = text[at : at + 1]
        if mark == ",":
            at = _skip(text, at + 1)
        elif mark != "]":
            end = text.count("\n", 0, at) + 1
            raise _BrokenError(end, "the array breaks off here: a comma or ']' is missing")
    rest = _skip(text, at + 1)
    if closed_by:
        if text[rest : rest + 1] != closed_by:
            end = text.count("\n", 0, rest) + 1
            raise _BrokenError(end, "one object of one list is read, this one holds more", "chunks")
        rest = _skip(text, rest + 1)
    if rest < len(text):
        raise _BrokenError(text.count("\n", 0, rest) + 1, "there is something after the end of the array")


def _element(text: str, at: int) -> tuple[Any, int, _ComplaintError | None]:
    try:
        value, end = _STRICT.raw_decode(text, at)
    except _ComplaintError as complaint:
        value, end = _LENIENT.raw_decode(text, at)
        return value, end, complaint
    return value, end, None


def _skip(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "..."
