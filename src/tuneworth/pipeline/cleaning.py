"""Clean a data set as a whole: rows with all their columns, whatever task they are for."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tuneworth.data import Example, Reading, audit, clean, read_examples
from tuneworth.data.canonical import canonical_row
from tuneworth.data.changes import summary
from tuneworth.data.cleaning import Repairs, wanted
from tuneworth.data.clusters import near_twins
from tuneworth.data.findings import Split
from tuneworth.data.masking import check_masks, masked
from tuneworth.data.shape import is_id_name
from tuneworth.data.streaming import read_rows
from tuneworth.errors import InputError
from tuneworth.models.sources import find_model
from tuneworth.pipeline.datasets import registered
from tuneworth.pipeline.preparing import ruler_of
from tuneworth.rendering import Renderer
from tuneworth.store.atomic import write_bytes, write_jsonl, write_text
from tuneworth.store.registry import Registry, Version
from tuneworth.task import Columns, set_reference

Rows = Mapping[str, Sequence[bytes]]
"""Rows by part, each canonical JSON."""

_LEARNT = ("train", "validation")
_TEXTS = frozenset(["messages", "conversations", "prompt"])


@dataclass(frozen=True, slots=True)
class CleaningTask:
    """What to look at and what to repair. `masks` are codes of `data.masking.MASKS`; `model` measures lengths."""

    columns: Columns = field(default_factory=Columns)
    kind: str = "auto"
    repairs: Repairs = field(default_factory=Repairs)
    masks: tuple[str, ...] = ()
    model: str | None = None


@dataclass(frozen=True, slots=True)
class CleanRows:
    """Rows after cleaning, and the change list: one object a row that was changed or removed, in order, with
    `split`, `row` (from 1, in the part as it came in), `code`, `reason`, `before` and `after` (null when removed)."""

    parts: dict[str, list[bytes]]
    changes: list[dict[str, Any]]
    notes: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Rows changed or removed, by reason code."""
        return dict(Counter(change["code"] for change in self.changes))


def clean_rows(parts: Rows, task: CleaningTask) -> CleanRows:
    """Repair the rows of train and validation; all others stay byte for byte.

    A row repeats an earlier one when all its columns but ids and times agree (the input in normal form), so that no
    task for which the set may be used loses a row. Raises InputError as reading and cleaning do.
    """
    check_masks(task.masks)
    rows = {part: [orjson.loads(row) for row in lines] for part, lines in parts.items()}
    masks = _masked(rows, task.masks)
    current = {part: [masks.get((part, n), row) for n, row in enumerate(found)] for part, found in rows.items()}
    gone, notes = _all_removed(current, task)
    changes: list[dict[str, Any]] = []
    left: dict[str, list[bytes]] = {}
    for part, found in rows.items():
        left[part] = []
        for number, before in enumerate(found):
            place = {"split": part, "row": number + 1}
            mask = masks.get((part, number))
            if (part, number) in gone:
                code, reason = gone[part, number]
                changes.append({**place, "code": code, "reason": reason, "before": before, "after": None})
            elif mask is not None:
                changes += _masking(place, before, task.masks)
                left[part].append(canonical_row(mask))
            else:
                left[part].append(parts[part][number])
    return CleanRows(left, changes, notes)


def _masked(rows: Mapping[str, Sequence[Any]], codes: Sequence[str]) -> dict[tuple[str, int], Any]:
    """The rows of train and validation that masking changes, by part and place."""
    found = {}
    for part in _LEARNT:
        for number, row in enumerate(rows.get(part, ())):
            new = row
            for code in codes:
                new = masked(new, code)
            if new != row:
                found[part, number] = new
    return found


def _masking(place: Mapping[str, Any], row: Any, codes: Sequence[str]) -> list[dict[str, Any]]:
    entries = []
    for code in codes:
        new = masked(row, code)
        if new != row:
            entries.append({**place, "code": code, "reason": "", "before": row, "after": new})
        row = new
    return entries


def _all_removed(
    rows: Mapping[str, Sequence[Any]], task: CleaningTask
) -> tuple[dict[tuple[str, int], tuple[str, str]], tuple[str, ...]]:
    """((code, reason) of each row that leaves, by part and place; what was left alone).

    Which rows are compared for near duplicates depends on the rows there are, so that once some have left others may
    be found: it is done again until none is. All other repairs find everything at once.
    """
    gone: dict[tuple[str, int], tuple[str, str]] = {}
    while True:
        left = {part: [n for n in range(len(found)) if (part, n) not in gone] for part, found in rows.items()}
        with tempfile.TemporaryDirectory(prefix="tuneworth-") as folder:
            kept = {part: [rows[part][n] for n in numbers] for part, numbers in left.items()}
            found, notes = _removed(kept, _read(kept, task, Path(folder)), task)
        for (part, place), (code, reason) in found.items():
            gone[part, left[part][place]] = code, _in_first_numbers(reason, left)
        if "leak-near" not in {code for code, _ in found.values()}:
            return gone, notes


def _in_first_numbers(reason: str, left: Mapping[str, Sequence[int]]) -> str:
    """A reason that names a row as it is numbered in what came in: `line 7 of .../test.jsonl` is a row of test."""
    before, line, after = reason.rpartition("line ")
    number, of, file = after.partition(" of ")
    part = Path(file).stem
    return f"{before}row {left[part][int(number) - 1] + 1} of {part}" if line and of and part in left else reason


def _read(rows: Mapping[str, Sequence[Any]], task: CleaningTask, folder: Path) -> dict[str, Reading]:
    """The rows as Examples, whose lines are the numbers of the rows."""
    readings: dict[str, Reading] = {}
    columns, kind = task.columns, task.kind
    splits: tuple[Split, ...] = ("train", "validation", "test")
    for part in splits:
        if rows.get(part):
            path = folder / f"{part}.jsonl"
            path.write_bytes(b"".join(canonical_row(row) + b"\n" for row in rows[part]))
            readings[part] = read_examples(path, columns, kind, part, rows_needed=1)
            columns, kind = readings[part].shape.columns, readings[part].shape.kind
    if not readings:
        raise InputError("there are no rows of train, validation or test to clean")
    return readings


def _removed(
    rows: Mapping[str, Sequence[Any]], readings: Mapping[str, Reading], task: CleaningTask
) -> tuple[dict[tuple[str, int], tuple[str, str]], tuple[str, ...]]:
    """((code, reason) of each row that leaves, by part and place; what was left alone)."""
    train, validation, test = (
        readings[part].examples if part in readings else () for part in ("train", "validation", "test")
    )
    learnt = readings.get("train") or next(iter(readings.values()))
    ruler = None
    if task.model is not None:
        model = find_model(task.model)
        ruler = ruler_of(Renderer.load(model.path), model.context_tokens)
    found = audit(train, validation, test, kind=learnt.shape.kind, ruler=ruler)
    twins = near_twins(train, validation, test, found.near) if found.near is not None else {}
    files = {part[0].file: name for name, part in (("train", train), ("validation", validation)) if part}

    def rest(example: Example) -> Hashable:
        cells = rows[files[example.file]][example.line - 1]
        known = {learnt.shape.input, learnt.shape.id, learnt.shape.time} | _TEXTS
        others = {name: cell for name, cell in cells.items() if name not in known and not is_id_name(name)}
        return wanted(example), orjson.dumps(others)

    result = clean(train, validation, test, found, repairs=task.repairs, twins=twins, teaches=rest)
    gone: dict[tuple[str, int], tuple[str, str]]
    gone = {(removal.split, removal.line - 1): (removal.code, removal.reason) for removal in result.removed}
    for part in _LEARNT:
        for finding in readings[part].dropped if part in readings else ():
            if finding.code.startswith("empty-") and finding.code not in task.repairs.skip:
                gone.update(((part, row.line - 1), (finding.code, "")) for row in finding.rows)
    return gone, result.notes


def clean_registered(name: str, task: CleaningTask) -> tuple[Version, CleanRows, bool]:
    """Clean a registered set into a new version of it; returns the version, the changes, and whether it is new.

    Where there is nothing to repair the version stays what it is.
    """
    version, _ = registered(name)
    registry = Registry()
    result = clean_rows({part: registry.rows(version, part) for part in version.parts}, task)
    if not result.changes:
        return version, result, False
    skipped = sorted(task.repairs.skip)
    lineage: dict[str, Any] = {"how": "clean", "parent": version.version, "sources": [], "note": None}
    lineage |= {
        "repairs": result.counts,
        "skipped": skipped,
        "contradictions": task.repairs.contradictions,
        "masks": list(task.masks),
    }
    made, is_new = registry.add(version.name, result.parts, version.columns, lineage, result.changes)
    return made, result, is_new


def clean_file(data: str, test: Path | None, task: CleaningTask) -> CleanRows:
    """Clean a file (or the parts of a registered set) without registering anything. Rows that are also in the file
    `test` leave; `test` itself is no part of the result."""
    if set_reference(data) is not None:
        version, part = registered(data)
        parts = {name: Registry().rows(version, name) for name in ([part] if part else version.parts)}
    else:
        parts = {"train": _canonical(Path(data), task.columns)}
    result = clean_rows({**parts, "test": _canonical(test, task.columns)} if test else parts, task)
    if test is not None:
        result.parts.pop("test")
    return result


def _canonical(path: Path, columns: Columns) -> list[bytes]:
    return [canonical_row(row.cells) for row in read_rows(path, columns)]


def write_cleaned(result: CleanRows, out: Path) -> list[Path]:
    """Write the rows to `out` (JSON Lines; a folder of parts when there are several), the change list beside it as
    JSON Lines, and its summary as text; returns the files."""
    if out.suffix.lower() in (".jsonl", ".ndjson"):
        if len(result.parts) > 1:
            raise InputError(f"there are the parts {', '.join(result.parts)}", where=str(out), cure="give a folder")
        places = {next(iter(result.parts)): out}
        stem = out.with_suffix("")
    elif out.suffix and not out.is_dir():
        raise InputError("JSON Lines is what is written", where=str(out), cure=f"name it {out.stem}.jsonl, or a folder")
    else:
        places = {part: out / f"{part}.jsonl" for part in result.parts}
        stem = out / "all"
    for part, path in places.items():
        write_bytes(path, b"".join(row + b"\n" for row in result.parts[part]))
    listed, told = stem.with_name(f"{stem.name}.changes.jsonl"), stem.with_name(f"{stem.name}.changes.txt")
    write_jsonl(listed, result.changes)
    write_text(told, told_in_words(result) + "\n")
    return [*places.values(), listed, told]


def told_in_words(result: CleanRows) -> str:
    """What was done, for people."""
    left = ", ".join(f"{len(rows):,} {part}" for part, rows in result.parts.items())
    done = summary(result.changes) if result.changes else "nothing to repair"
    return "\n".join([done, f"left: {left} rows", *result.notes])
