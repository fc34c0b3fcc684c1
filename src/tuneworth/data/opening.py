"""A file becomes checked text, or one clear message that says why it cannot."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

from tuneworth.data.findings import LISTED
from tuneworth.errors import InputError, Problem

Format = Literal["csv", "tsv", "json-lines", "json", "parquet"]

FORMAT_NAMES: dict[Format, str] = {
    "csv": "CSV",
    "tsv": "TSV",
    "json-lines": "JSON Lines",
    "json": "JSON",
    "parquet": "Parquet",
}
_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "json-lines",
    ".ndjson": "json-lines",
    ".json": "json",
    ".parquet": "parquet",
}
_READABLE = "CSV, TSV, JSON Lines, JSON (an array of objects) and Parquet are read"
_UNPACK = "unpack it first and give the file inside"
# First bytes of files that people give by mistake: name and cure.
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "gzip-compressed", _UNPACK),
    (b"BZh", "bzip2-compressed", _UNPACK),
    (b"\xfd7zXZ", "xz-compressed", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed", _UNPACK),
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "unpack it, or export the sheet as CSV (UTF-8)"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Office file", "export the sheet as CSV (UTF-8)"),
    (b"%PDF", "a PDF", _READABLE),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV"),
    (b"ARROW1", "an Arrow file", "save it as Parquet"),
)
# The longer marks first: UTF-32's begins with UTF-16's.
_WIDE: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_BOM = b"\xef\xbb\xbf"
_JSON_START = re.compile(rb"""\s*(\{\s*["}]|\[\s*[\[{"\d\]])""")


@dataclass(frozen=True, slots=True)
class Opened:
    """A file's bytes, without a byte order mark, known to be `format`; text formats are valid UTF-8."""

    path: Path
    format: Format
    data: bytes
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The content as text. Line ends are as in the file."""
        return self.data.decode("utf-8")


def open_data(path: Path) -> Opened:
    """Read `path` and find out its format.

    Raises InputError when it is missing, empty, of another kind, or not strict UTF-8 (the bad lines are
    listed with their byte offsets, at most 100).
    """
    data = _read(path)
    if not data.removeprefix(_BOM).strip():
        empty = "the file is empty" if not data else "the file holds nothing but blank lines"
        raise InputError(empty, where=str(path), cure=f"{_READABLE}; check that it was saved")
    if data.startswith(b"PAR1"):
        return Opened(path, "parquet", data)
    _refuse_other_kinds(path, data)
    notes: tuple[str, ...] = ()
    start = 0
    if data.startswith(_BOM):
        start, data = len(_BOM), data[len(_BOM) :]
        notes = ("the byte order mark at the start was skipped",)
    _check_utf8(path, data, start)
    if b"\r" in data and b"\n" not in data:
        raise InputError(
            "lines end with carriage returns only (old Macintosh style)",
            where=str(path),
            cure="save it with line ends LF or CRLF (for example: tr '\\r' '\\n' < old > new)",
        )
    return Opened(path, _text_format(path, data), data, notes)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError("there is no such file", where=str(path), cure="check the path") from None
    except IsADirectoryError:
        raise InputError("this is a folder, not a data file", where=str(path), cure="give one of its files") from None
    except ValueError:
        raise InputError("not a possible file name", where=repr(str(path)), cure="check the path") from None
    except OSError as error:
        raise InputError(f"the file cannot be read: {error.strerror}", where=str(path)) from None


def _refuse_other_kinds(path: Path, data: bytes) -> None:
    for signature, kind, cure in _SIGNATURES:
        if data.startswith(signature):
            raise InputError(f"the file is {kind}", where=str(path), cure=cure)
    encoding = next((name for mark, name in _WIDE if data.startswith(mark)), None)
    sample = data[:1000]
    if encoding is None and sample.count(0) > len(sample) // 4:
        encoding = "UTF-16 or UTF-32"  # without a mark: every second byte of western text is zero
    if encoding:
        raise InputError(f"the file is encoded as {encoding}", where=str(path), cure="save it as UTF-8")
    start = data[:1000].lstrip(_BOM + b" \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise InputError(
            "the file is an HTML page, perhaps an error page or a download page",
            where=str(path),
            cure="download the raw data file",
        )
    if start.startswith(b"<?xml"):
        raise InputError("the file is XML", where=str(path), cure=_READABLE)


def _check_utf8(path: Path, data: bytes, start: int) -> None:
    """Raise InputError that lists lines which are not UTF-8 or hold NUL. `start` is what a mark took away."""
    try:
        data.decode("utf-8")
        if b"\0" not in data:
            return
    except UnicodeDecodeError:
        pass
    problems: list[Problem] = []
    offset = start
    for number, line in enumerate(data.split(b"\n"), 1):
        found = _bad_byte(line)
        if found is not None:
            at, what, cure = found
            shown = f"byte {line[at]:#04x} at offset {offset + at} of the file {what}"
            problems.append(Problem(shown, f"{path}:{number}", cure))
        offset += len(line) + 1
    raise InputError.of(listed(problems, str(path)))


def _bad_byte(line: bytes) -> tuple[int, str, str] | None:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        # Bytes that Windows programs write for accents, quotes and dashes are the usual cause.
        cure = "save the file as UTF-8 (for example: iconv -f WINDOWS-1252 -t UTF-8 old > new)"
        return error.start, "is not UTF-8", cure
    if b"\0" in line:
        return line.index(0), "is a NUL character", "remove it"
    return None


def _text_format(path: Path, data: bytes) -> Format:
    """The format that the name says, if the content does not contradict it."""
    named = _SUFFIXES.get(path.suffix.lower())
    content = _content_format(data)
    if named == "json" and content == "json-lines":
        # Objects line by line under the name .json are widespread; arrays line by line are a broken array.
        return "json-lines" if data.lstrip().startswith(b"{") else "json"
    if named is None:
        if content is None:
            raise InputError(
                "no format recognised: neither the name nor the content tells",
                where=str(path),
                cure=f"{_READABLE}; give the file the ending of its format",
            )
        return content
    table = ("csv", "tsv")
    if named in table and content not in table and not _JSON_START.match(data):
        content = None  # a header such as `[text],[label]`
    if named == "parquet" or (content not in (None, named) and not (named in table and content in table)):
        wanted = FORMAT_NAMES[named]
        found, cure = "is text", f"save it as {wanted}"
        if content:
            found, cure = (
                f"looks like {FORMAT_NAMES[content]}",
                f"rename it to *{_suffix(content)}, or {cure}",
            )
        raise InputError(f"the name says {wanted}, but the content {found}", where=str(path), cure=cure)
    return named


def _content_format(data: bytes) -> Format | None:
    """The format as far as the content shows it; None when it is text of no known shape."""
    start = data.lstrip()
    first, _, rest = start.partition(b"\n")
    if start[:1] == b"{":
        return "json-lines" if _is_json(first) or not first.rstrip().endswith((b"{", b",")) else "json"
    if start[:1] == b"[":
        # `[1]` and another row under it are JSON Lines with rows of the wrong type, not one array.
        return "json-lines" if rest.strip() and _is_json(first) else "json"
    if b"\t" in first:
        return "tsv"
    return "csv" if any(mark in first for mark in (b",", b";", b"|")) else None


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def _suffix(format_: Format) -> str:
    return next(suffix for suffix, known in _SUFFIXES.items() if known == format_)


def listed(problems: list[Problem], where: str) -> list[Problem]:
    """At most 100 problems, and when there are more a last one that states the total."""
    if len(problems) <= LISTED:
        return problems
    total = Problem(f"{len(problems):,} problems in all; the first {LISTED} are listed", where)
    return [*problems[:LISTED], total]
