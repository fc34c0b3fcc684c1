"""Files that are whole or absent: written aside, synced, renamed, and the folder synced (LAW 9)."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from tuneworth.errors import InputError, MachineError

_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` with `content`, whole or not at all. Raises MachineError when the disk is full or read-only."""
    with disk_errors(path, len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o666 & ~_umask())  # mkstemp lets only its owner read
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write_text(path: Path, content: str) -> None:
    """Replace `path` with UTF-8 text."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace `path` with indented JSON."""
    write_bytes(path, orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS) + b"\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace `path` with one JSON object a line."""
    write_bytes(path, b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises InputError that names a damaged file."""
    try:
        content = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError("this file is missing", where=str(path), cure="run the stage again") from None
    except orjson.JSONDecodeError as error:
        raise InputError(f"damaged: {error}", where=str(path), cure="delete it and run again") from None
    if not isinstance(content, dict):
        raise InputError("damaged: no JSON object", where=str(path), cure="delete it and run again")
    return content


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The JSON objects in `path`, one a line. Raises InputError that names a damaged line."""
    rows = []
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise InputError("this file is missing", where=str(path), cure="run the stage again") from None
    for number, line in enumerate(lines, 1):
        if line:
            try:
                rows.append(orjson.loads(line))
            except orjson.JSONDecodeError as error:
                raise InputError(
                    f"damaged: {error}", where=f"{path}:{number}", cure="delete the file and run again"
                ) from None
    return rows


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def disk_errors(path: Path, size: int | None = None) -> Iterator[None]:
    """Turn a full, read-only or failing disk into a MachineError that names `path` (and the bytes wanted, `size`)."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise MachineError(
                "no space left on the disk" + ("" if size is None else f" for {size:,} bytes"),
                where=str(path),
                cure="free some space or choose another place",
            ) from error
        if error.errno in _DENIED:
            raise MachineError("no permission to write here", where=str(path), cure="choose another place") from error
        raise MachineError(f"cannot write: {error.strerror or error}", where=str(path)) from error
