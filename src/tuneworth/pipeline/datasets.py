"""Work on registered data sets: files come in, versions are compared and go out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tuneworth.data.canonical import canonical_row, columns_of
from tuneworth.data.streaming import read_rows
from tuneworth.errors import InputError, Problem
from tuneworth.store.atomic import write_bytes
from tuneworth.store.cache import sha256_of
from tuneworth.store.registry import Registry, Version, check_name
from tuneworth.task import PARTS, Columns, Reference, parse_reference


def add_files(
    name: str, files: Mapping[str, Sequence[Path]], columns: Columns, note: str | None = None
) -> tuple[Version, bool]:
    """Register the rows of `files` (by part) as a version of `name`; returns it and whether it is new.

    `columns` by number ("1" is the first) tell that a table has no header, as everywhere. Raises InputError with
    every malformed row of every file, MachineError when the disk is full, RunBusyError.
    """
    check_name(name)
    problems: list[Problem] = []
    parts: dict[str, list[bytes]] = {}
    sources: list[dict[str, Any]] = []
    seen: dict[str, None] = {}
    for part in PARTS:
        for path in files.get(part, ()):
            try:
                rows = [row.cells for row in read_rows(path, columns)]
                parts.setdefault(part, []).extend(map(canonical_row, rows))
            except InputError as error:
                problems += error.problems
                continue
            seen |= dict.fromkeys(columns_of(rows))
            source = {"part": part, "file": str(path.absolute()), "rows": len(rows)}
            sources.append({**source, "bytes": path.stat().st_size, "sha256": sha256_of(path)})
    if problems:
        raise InputError.of(problems)
    lineage = {"how": "add", "parent": None, "sources": sources, "note": note}
    versions = Registry().versions(name) if name in Registry().names() else []
    if versions:
        lineage["parent"] = versions[-1].version
    return Registry().add(name, parts, list(seen), lineage)


def registered(text: str) -> tuple[Version, str]:
    """The version that `NAME[@VERSION][:PART]` names, and the part (empty for all). Raises InputError."""
    reference = parse_reference(text)
    if reference is None:
        what = f"{text[:80]!r} names no registered data set"
        raise InputError(what, cure="write NAME, NAME@v3 or NAME@ and the first digits of the version's hash")
    version = Registry().find(Reference(reference.name, reference.version))
    if reference.part and reference.part not in version.parts:
        known = ", ".join(version.parts)
        raise InputError(f"'{version}' has no part '{reference.part}'", where=text, cure=f"its parts are {known}")
    return version, reference.part


@dataclass(frozen=True, slots=True)
class PartDifference:
    """How one part of two versions differs: rows that only one of them has (as often as it has them more often),
    how many both have, and whether those stand in the same order."""

    only_in_first: tuple[bytes, ...]
    only_in_second: tuple[bytes, ...]
    in_both: int
    same_order: bool


def difference(first: Version, second: Version) -> dict[str, PartDifference]:
    """How two versions differ, part by part. Rows are compared whole."""
    registry = Registry()
    found = {}
    for part in PARTS:
        if part in first.parts or part in second.parts:
            one, other = (registry.rows(v, part) if part in v.parts else [] for v in (first, second))
            found[part] = _difference(one, other)
    return found


def _difference(one: Sequence[bytes], other: Sequence[bytes]) -> PartDifference:
    common = Counter(one) & Counter(other)
    shared, gone = _divided(one, common)
    still, new = _divided(other, common)
    return PartDifference(gone, new, len(shared), shared == still)


def _divided(rows: Sequence[bytes], common: Counter[bytes]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """(rows that are in `common`, as often as they are there; the others), in order."""
    left = common.copy()
    shared: list[bytes] = []
    others: list[bytes] = []
    for row in rows:
        (shared if left[row] > 0 else others).append(row)
        left[row] -= 1
    return tuple(shared), tuple(others)


def export(version: Version, part: str, out: Path) -> list[Path]:
    """Write one part to the file `out`, or all parts to files in the folder `out`; returns the files.

    Rows are written as JSON Lines, exactly as they are stored: `sha256sum` gives the hash that `data show` names.
    """
    parts = [part] if part else list(version.parts)
    is_file = out.suffix.lower() in (".jsonl", ".ndjson")
    if not is_file and out.suffix and not out.is_dir():
        raise InputError("JSON Lines is what is written", where=str(out), cure=f"name it {out.stem}.jsonl, or a folder")
    if is_file and len(parts) > 1:
        cure = f"name one, as {version}:train, or give a folder"
        raise InputError(
            f"{version} has the parts {', '.join(parts)}, and {out} is one file", where=str(out), cure=cure
        )
    if is_file and out.is_dir():
        raise InputError("this is a folder", where=str(out), cure="give a file, or a folder of another name")
    written = []
    for name in parts:
        path = out if is_file else out / f"{name}.jsonl"
        write_bytes(path, b"".join(row + b"\n" for row in Registry().rows(version, name)))
        written.append(path)
    return written


def first_rows(version: Version, count: int) -> list[dict[str, Any]]:
    """The first rows of a version's first part."""
    part = next(iter(version.parts))
    return [orjson.loads(row) for row in Registry().rows(version, part)[:count]]
