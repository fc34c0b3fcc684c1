"""A file's format is found out from its name and its first bytes, or one clear message says why it cannot."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

from tuneworth.data.unpacking import PACKED, unpack
from tuneworth.errors import InputError

Format = Literal["csv", "tsv", "json-lines", "json", "parquet", "tagged-lines", "parallel-lines"]

FORMAT_NAMES: dict[Format, str] = {
    "csv": "CSV",
    "tsv": "TSV",
    "json-lines": "JSON Lines",
    "json": "JSON",
    "parquet": "Parquet",
    "tagged-lines": "a token and its tag on each line (CoNLL)",
    "parallel-lines": "seq.in with seq.out or label beside it, line by line",
}
SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "json-lines",
    ".ndjson": "json-lines",
    ".json": "json",
    ".parquet": "parquet",
    ".conll": "tagged-lines",
    ".iob": "tagged-lines",
    ".bio": "tagged-lines",
}
PARALLEL = "seq.in"
"""The file whose neighbours seq.out (tags) and label belong to it line by line."""
READABLE = "CSV, TSV, JSON Lines, JSON (an array of objects) and Parquet are read"
_HEAD = 1 << 20
_UNPACK = "unpack it first and give the file inside"
_NAME_IT = "give its name the ending {}, as in rows.jsonl{}, or unpack it first"
# First bytes of files that people give by mistake: name and cure.
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "gzip-compressed", _NAME_IT.format(".gz", ".gz")),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed", _NAME_IT.format(".zst", ".zst")),
    (b"BZh", "bzip2-compressed", _UNPACK),
    (b"\xfd7zXZ", "xz-compressed", _UNPACK),
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "unpack it, or export the sheet as CSV (UTF-8)"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Office file", "export the sheet as CSV (UTF-8)"),
    (b"%PDF", "a PDF", READABLE),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV"),
    (b"ARROW1", "an Arrow file", "save it as Parquet"),
    (b"\xff\xff\xff\xff", "an Arrow stream (a saved data set)", "save it as Parquet: dataset.to_parquet(...)"),
)
# The longer marks first: UTF-32's begins with UTF-16's.
_WIDE: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
BOM = b"\xef\xbb\xbf"
_JSON_START = re.compile(rb"""\s*(\{\s*["}]|\[\s*[\[{"\d\]])""")
_TAGGED = re.compile(rb"\S+([ \t]\S+)*[ \t](O|[BIESLU]-\S+)[ \t]*\r?")


@dataclass(frozen=True, slots=True)
class Opened:
    """A file known to be of `format`: `shown` is what people call it, `path` where its bytes are.

    The two differ for a compressed file, which is unpacked first. `start` is where the content begins (after a byte
    order mark) and `size` where it ends, in bytes.
    """

    shown: str
    path: Path
    format: Format
    start: int
    size: int
    notes: tuple[str, ...] = ()


def open_data(path: Path, scratch: Callable[[], Path]) -> Opened:
    """Find out what `path` holds. A file named *.gz or *.zst is unpacked into the folder that `scratch` gives.

    Raises InputError when it is missing, empty, or of another kind.
    """
    shown = str(path)
    notes: tuple[str, ...] = ()
    named = path
    if path.suffix.lower() in PACKED and _is_file(path):
        path, named = unpack(path, scratch()), path.with_suffix("")
    head, size = _look(path, shown)
    if size <= len(head) and not head.removeprefix(BOM).strip():
        empty = "the file is empty" if not head else "the file holds nothing but blank lines"
        raise InputError(empty, where=shown, cure=f"{READABLE}; check that it was saved", code="file-empty")
    if head.startswith(b"PAR1"):
        return Opened(shown, path, "parquet", 0, size)
    _refuse_other_kinds(shown, head)
    start = 0
    if head.startswith(BOM):
        start, head = len(BOM), head[len(BOM) :]
        notes = ("the byte order mark at the start was skipped",)
    if b"\r" in head and b"\n" not in head:
        raise InputError(
            "lines end with carriage returns only (old Macintosh style)",
            where=shown,
            cure="save it with line ends LF or CRLF (for example: tr '\\r' '\\n' < old > new)",
            code="line-ends",
        )
    format_: Format = "parallel-lines" if named.name == PARALLEL else _text_format(shown, named, head)
    return Opened(shown, path, format_, start, size, notes)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def refuse_pipes(path: Path) -> None:
    """Raise InputError for a pipe, socket or device: it can be read once, or has no end, and files are read twice."""
    try:
        odd = path.exists() and not path.is_file() and not path.is_dir()
    except (OSError, ValueError):
        return  # whoever opens it says what is wrong
    if odd:
        cure = "write its content to a file and give that"
        raise InputError("this is a pipe or a device, not a file", where=str(path), cure=cure, code="file-kind")


def _look(path: Path, shown: str) -> tuple[bytes, int]:
    """(first megabyte, size in bytes)."""
    code = "file-missing"
    refuse_pipes(path)
    try:
        with path.open("rb") as file:
            return file.read(_HEAD), file.seek(0, 2)
    except FileNotFoundError:
        raise InputError("there is no such file", where=shown, cure="check the path", code=code) from None
    except IsADirectoryError:
        cure = "give one of its files"
        raise InputError("this is a folder, not a data file", where=shown, cure=cure, code=code) from None
    except ValueError:
        raise InputError("not a possible file name", where=repr(shown), cure="check the path", code=code) from None
    except OSError as error:
        raise InputError(f"the file cannot be read: {error.strerror}", where=shown, code=code) from None


def _refuse_other_kinds(shown: str, head: bytes) -> None:
    for signature, kind, cure in _SIGNATURES:
        if head.startswith(signature):
            raise InputError(f"the file is {kind}", where=shown, cure=cure, code="file-kind")
    encoding = next((name for mark, name in _WIDE if head.startswith(mark)), None)
    sample = head[:1000]
    if encoding is None and sample.count(0) > len(sample) // 4:
        encoding = "UTF-16 or UTF-32"  # without a mark: every second byte of western text is zero
    if encoding:
        what = f"the file is encoded as {encoding}"
        raise InputError(what, where=shown, cure="save it as UTF-8", code="file-encoding")
    start = sample.lstrip(BOM + b" \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise InputError(
            "the file is an HTML page, perhaps an error page or a download page",
            where=shown,
            cure="download the raw data file",
            code="file-kind",
        )
    if start.startswith(b"<?xml"):
        raise InputError("the file is XML", where=shown, cure=READABLE, code="file-kind")
    if start.startswith(b"version https://git-lfs"):
        raise InputError(
            "the file is a Git LFS pointer, not the data", where=shown, cure="run: git lfs pull", code="file-kind"
        )


def _text_format(shown: str, named_path: Path, head: bytes) -> Format:
    """The format that the name says, if the content does not contradict it."""
    named = SUFFIXES.get(named_path.suffix.lower())
    content = _content_format(head)
    if named == "json" and content == "json-lines":
        # Objects line by line under the name .json are widespread; arrays line by line are a broken array.
        return "json-lines" if head.lstrip().startswith(b"{") else "json"
    if named == "tagged-lines":
        return "tagged-lines"
    if named is None:
        if content is None:
            raise InputError(
                "no format recognised: neither the name nor the content tells",
                where=shown,
                cure=f"{READABLE}; give the file the ending of its format",
                code="format-unknown",
            )
        return content
    table = ("csv", "tsv")
    if named in table and (content == "tagged-lines" or (content not in table and not _JSON_START.match(head))):
        content = None  # a header such as `[text],[label]`
    if named == "parquet" or (content not in (None, named) and not (named in table and content in table)):
        wanted = FORMAT_NAMES[named]
        found, cure = "is text", f"save it as {wanted}"
        if content:
            found, cure = (
                f"looks like {FORMAT_NAMES[content]}",
                f"rename it to *{suffix_of(content)}, or {cure}",
            )
        what = f"the name says {wanted}, but the content {found}"
        raise InputError(what, where=shown, cure=cure, code="format-mismatch")
    return named


def _content_format(head: bytes) -> Format | None:
    """The format as far as the content shows it; None when it is text of no known shape."""
    start = head.lstrip()
    first, _, rest = start.partition(b"\n")
    if start[:1] == b"{":
        return "json-lines" if _is_json(first) or not first.rstrip().endswith((b"{", b",", b"[")) else "json"
    if start[:1] == b"[":
        # `[1]` and another row under it are JSON Lines with rows of the wrong type, not one array.
        return "json-lines" if rest.strip() and _is_json(first) else "json"
    lines = [line for line in start.split(b"\n")[:200] if line.strip()]
    if len(lines) > 2 and all(map(_TAGGED.fullmatch, lines[1:-1])):
        return "tagged-lines"
    if b"\t" in first:
        return "tsv"
    return "csv" if any(mark in first for mark in (b",", b";", b"|")) else None


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def suffix_of(format_: Format) -> str:
    """The usual ending of a file of this format."""
    return next((suffix for suffix, known in SUFFIXES.items() if known == format_), "")
