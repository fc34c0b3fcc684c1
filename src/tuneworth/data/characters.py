"""Bytes that are no text, and characters that must not stand in one: found, named by place, never repaired."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tuneworth.data.problems import Tally

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_LATIN = "save the file as UTF-8 (for example: iconv -f WINDOWS-1252 -t UTF-8 old > new)"
_CESU = "half characters were written one by one (CESU-8); write the text again as UTF-8"
_CONTROLS = bytes([*range(1, 9), 11, 12, *range(14, 32)])
HALF = "half of a character is missing; write the text again from its source"


def bad_byte(raw: bytes) -> tuple[int, str, str, str] | None:
    """(where, code, what, cure) of the first byte of a line that is not UTF-8 or is NUL; None if there is none."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        # Bytes that Windows programs write for accents, quotes and dashes are the usual cause.
        half = raw[error.start] == 0xED and raw[error.start + 1 : error.start + 2] >= b"\xa0"
        return error.start, "invalid-utf8", "is not UTF-8", _CESU if half else _LATIN
    return (raw.index(0), "nul-character", "is a NUL character", "remove it") if b"\0" in raw else None


def decoded(data: bytes, line: int, offset: int, tally: Tally) -> str:
    """The text of a piece of a file that begins at `line` and at byte `offset`; its bad lines go to `tally`."""
    try:
        text = data.decode("utf-8")
        clean = b"\0" not in data and len(data.translate(None, _CONTROLS)) == len(data)
    except UnicodeDecodeError:
        text, clean = data.decode("utf-8", "replace"), False
    if clean:
        return text
    at = offset
    for number, raw in enumerate(data.split(b"\n"), line):
        bad = bad_byte(raw)
        if bad is not None:
            place, code, what, cure = bad
            what = f"byte {raw[place]:#04x} at offset {at + place} of the file {what}"
            tally.add(number, code, what, column=place + 1, byte=at + place, cure=cure)
        elif len(raw.translate(None, _CONTROLS)) < len(raw):
            place = next(index for index, byte in enumerate(raw) if byte in _CONTROLS)
            what = f"the row holds the control character U+{raw[place]:04X}"
            tally.add(number, "control-character", what, column=place + 1, byte=at + place)
        at += len(raw) + 1
    return text.replace("\0", "�")


def check_characters(cells: Mapping[str, Any], line: int, tally: Tally) -> bool:
    """Whether no text of a row holds NUL. That refuses the row; other control characters are noted."""
    before = tally.errors
    for name, text in _texts(cells, ""):
        found = _CONTROL.search(text)
        if found and "\0" in text:
            tally.add(line, "nul-character", f"'{name}' holds a NUL character", cure="remove it")
        elif found:
            shown = f"U+{ord(found.group()):04X} at position {found.start() + 1}"
            tally.add(line, "control-character", f"'{name}' holds the control character {shown}")
    return tally.errors == before


def _texts(value: object, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(str(key), f"key of {name}" if name else "key")
            yield from _texts(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value, 1):
            yield from _texts(inner, f"{name}[{place}]")


def check_surrogates(cells: Mapping[str, Any], line: int, tally: Tally) -> bool:
    """Whether every text of a row is whole characters."""
    before = tally.errors
    for name, text in _texts(cells, ""):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            what = f"'{name}' holds half a character (a lone surrogate) at position {error.start}"
            tally.add(line, "lone-surrogate", what, cure=HALF)
    return tally.errors == before
