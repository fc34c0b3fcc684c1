"""Replies that were paid for, kept by the content of the request, so that a continued run pays nothing twice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from tuneworth.store.atomic import disk_errors, write_bytes


class Replies:
    """A file of JSON lines `{"request": hash, ...}`; each reply is on disk before it is used.

    What a killed process left half-written, and any damaged line, is dropped when the file is opened and asked again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, Any]] = {}
        lines = path.read_bytes().split(b"\n") if path.is_file() else []
        whole = [line for line in lines if self._read(line)]
        if path.is_file() and (len(whole) != len(lines) - 1 or lines[-1]):
            write_bytes(path, b"".join(line + b"\n" for line in whole))

    @staticmethod
    def key(request: Mapping[str, Any]) -> str:
        """SHA-256 over everything that decides the reply."""
        return hashlib.sha256(orjson.dumps(dict(request), option=orjson.OPT_SORT_KEYS)).hexdigest()

    def get(self, key: str) -> dict[str, Any] | None:
        """The reply to that request, if it is known."""
        return self._known.get(key)

    def put(self, key: str, reply: Mapping[str, Any]) -> None:
        """Keep a reply."""
        line = orjson.dumps({"request": key, **reply}, option=orjson.OPT_APPEND_NEWLINE)
        with disk_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(line)
        self._known[key] = dict(reply)

    def _read(self, line: bytes) -> bool:
        try:
            row = orjson.loads(line)
            self._known[row.pop("request")] = row
        except (orjson.JSONDecodeError, KeyError, AttributeError, TypeError):
            return False
        return True
