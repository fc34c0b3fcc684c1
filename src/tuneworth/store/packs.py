"""Rows on disk: content-addressed files of one row a line. A row that is stored already is not stored again.

A part of a data set is a sequence of runs (pack, first row, rows), so that two versions which differ in ten rows share
all others. A pack's name is the SHA-256 of its content: damage shows, and the same rows always have the same name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneworth.errors import InputError
from tuneworth.store.atomic import write_bytes

_HASH = re.compile(r"[0-9a-f]{64}")
CURE = "restore the file from a backup, or add the data set's source files again"

Runs = tuple[tuple[str, int, int], ...]
"""Runs of rows: (pack, number of the first row in it from 0, number of rows)."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a version: how many rows, their size and SHA-256 as one row a line, and where they lie."""

    rows: int
    bytes: int
    sha256: str
    runs: Runs

    def to_json(self) -> dict[str, Any]:
        """A JSON object; packs stand in a list of their own, runs name them by place."""
        packs = list(dict.fromkeys(pack for pack, _, _ in self.runs))
        place = {pack: number for number, pack in enumerate(packs)}
        runs = [[place[pack], first, rows] for pack, first, rows in self.runs]
        return {"rows": self.rows, "bytes": self.bytes, "sha256": self.sha256, "packs": packs, "runs": runs}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Part:
        """The inverse of `to_json`. Raises KeyError, TypeError, ValueError or IndexError when it is none."""
        packs = [checked_hash(pack) for pack in content["packs"]]
        runs = []
        for pack, first, rows in content["runs"]:
            if pack < 0 or first < 0 or rows < 1:
                raise ValueError("a run of rows that cannot be")
            runs.append((packs[pack], int(first), int(rows)))
        return cls(int(content["rows"]), int(content["bytes"]), checked_hash(content["sha256"]), tuple(runs))


def checked_hash(text: Any) -> str:
    """A SHA-256 in hex. Raises ValueError for anything else, so that no file name is ever made of it."""
    if not isinstance(text, str) or not _HASH.fullmatch(text):
        raise ValueError("no SHA-256")
    return text


def digest_of(rows: Sequence[bytes]) -> tuple[int, str]:
    """(bytes, SHA-256 in hex) of rows as one row a line: what `sha256sum` says of their export."""
    digest, size = hashlib.sha256(), 0
    for start in range(0, len(rows), 4096):
        block = b"".join(row + b"\n" for row in rows[start : start + 4096])
        digest.update(block)
        size += len(block)
    return size, digest.hexdigest()


class Packs:
    """The folder of packs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, pack: str) -> Path:
        """Where a pack lies."""
        return self.folder / f"{checked_hash(pack)}.jsonl"

    def load(self, pack: str) -> list[bytes]:
        """The rows of a pack. Raises InputError that names a missing or damaged file."""
        path = self.path(pack)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise InputError("this part of the registry is missing", where=str(path), cure=CURE) from None
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", where=str(path), cure=CURE) from None
        if hashlib.sha256(content).hexdigest() != pack:
            raise InputError("damaged: the content does not have the hash it is named by", where=str(path), cure=CURE)
        return content.split(b"\n")[:-1]

    def write(self, rows: Sequence[bytes]) -> str:
        """Store rows as one pack, whole or not at all; returns its name. A damaged pack of that name is replaced."""
        content = b"".join(row + b"\n" for row in rows)
        pack = hashlib.sha256(content).hexdigest()
        path = self.path(pack)
        if not path.is_file() or path.read_bytes() != content:
            write_bytes(path, content)
        return pack

    def rows(self, part: Part) -> list[bytes]:
        """All rows of a part, in order. Raises InputError when one of its packs is damaged, or they do not add up."""
        loaded: dict[str, list[bytes]] = {}
        rows: list[bytes] = []
        for pack, first, count in part.runs:
            if pack not in loaded:
                loaded[pack] = self.load(pack)
            rows += loaded[pack][first : first + count]
        if (len(rows), *digest_of(rows)) != (part.rows, part.bytes, part.sha256):
            raise InputError("the stored rows are not those of the version", where=str(self.folder), cure=CURE)
        return rows

    def store(self, parts: Mapping[str, Sequence[bytes]], known: Iterable[str]) -> dict[str, Part]:
        """Store what is not in the `known` packs yet as one new pack; returns where each part's rows lie."""
        places: dict[bytes, tuple[str, int]] = {}
        for pack in known:
            try:
                content = self.load(pack)
            except InputError:
                continue  # damaged: `verify` tells; nothing new is built on it
            for number, row in enumerate(content):
                places.setdefault(row, (pack, number))
        fresh: dict[bytes, int] = {}
        for rows in parts.values():
            for row in rows:
                if row not in places:
                    fresh.setdefault(row, len(fresh))
        if fresh:
            pack = self.write(list(fresh))
            places.update((row, (pack, number)) for row, number in fresh.items())
        return {
            name: Part(len(rows), *digest_of(rows), _runs(places[row] for row in rows)) for name, rows in parts.items()
        }


def _runs(places: Iterable[tuple[str, int]]) -> Runs:
    """Neighbours in a pack as one run."""
    runs: list[list[Any]] = []
    for pack, number in places:
        if runs and runs[-1][0] == pack and runs[-1][1] + runs[-1][2] == number:
            runs[-1][2] += 1
        else:
            runs.append([pack, number, 1])
    return tuple((pack, first, rows) for pack, first, rows in runs)
