"""The registry of data sets: named, versioned by content, each version whole or absent (LAW 9).

<home>/datasets/
  registry.json                 the format of this registry      .lock   held by whoever writes
  packs/<sha256>.jsonl          rows, shared by versions (store/packs.py)
  names/<name>/<version>.json   one version: its parts, where it came from, and a check sum over the record itself

A version's hash is the SHA-256 over the names and SHA-256 of its parts, and a part's that of its rows as one
canonical JSON object a line. A record is written last: before that, a version does not exist.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from platformdirs import user_data_path

from tuneworth.errors import InputError, MachineError, RunBusyError, nearest
from tuneworth.store.atomic import disk_errors, sync_folder, write_json
from tuneworth.store.packs import CURE, Packs, Part, checked_hash
from tuneworth.task import NAME, NAME_RULE, PARTS, Reference

REGISTRY_SCHEMA, DATASET_SCHEMA = "tuneworth.registry/1", "tuneworth.dataset/1"
WAIT_SECONDS = 60.0


def home_folder() -> Path:
    """`TUNEWORTH_HOME`, or the platform's data folder for tuneworth."""
    chosen = os.environ.get("TUNEWORTH_HOME")
    return Path(chosen).expanduser() if chosen else user_data_path("tuneworth")


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a data set.

    `number` counts the versions of a name from 1 and is never given twice. `lineage` is how the version came about:
    `how` (add or clean), `parent` (a version's hash or None), `sources` (files with their hashes), `repairs` (rows by
    reason code), `note`. `changes` is the pack that lists every row repaired. A version that was taken out of the
    registry keeps its record with the date in `removed`, so that what was made of it can still be explained.
    """

    name: str
    version: str
    number: int
    created: str
    parts: Mapping[str, Part]
    columns: tuple[str, ...]
    lineage: Mapping[str, Any] = field(default_factory=dict)
    changes: str | None = None
    removed: str | None = None

    def __str__(self) -> str:
        return f"{self.name}@{self.version[:12]}"

    @property
    def packs(self) -> set[str]:
        """Every pack that this version needs; none once it is removed."""
        if self.removed:
            return set()
        return {pack for part in self.parts.values() for pack, _, _ in part.runs} | {*filter(None, [self.changes])}

    def to_json(self) -> dict[str, Any]:
        """The record as it is stored, but for its check sum."""
        return {
            "schema": DATASET_SCHEMA,
            "name": self.name,
            "version": self.version,
            "number": self.number,
            "created": self.created,
            "columns": list(self.columns),
            "lineage": dict(self.lineage),
            "changes": self.changes,
            "removed": self.removed,
            "parts": {name: part.to_json() for name, part in self.parts.items()},
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Version:
        """The inverse of `to_json`. Raises KeyError, TypeError, ValueError or IndexError when it is none."""
        return cls(
            name=content["name"],
            version=checked_hash(content["version"]),
            number=int(content["number"]),
            created=str(content["created"]),
            parts={name: Part.from_json(content["parts"][name]) for name in PARTS if name in content["parts"]},
            columns=tuple(content["columns"]),
            lineage=dict(content["lineage"]),
            changes=checked_hash(content["changes"]) if content["changes"] else None,
            removed=content["removed"],
        )


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with one file of the registry, and the versions (`name@version`) that it harms."""

    file: str
    what: str
    versions: tuple[str, ...]


def version_hash(parts: Mapping[str, Part]) -> str:
    """The hash of a version: it depends on the rows of each part and their order, on nothing else."""
    content = {name: parts[name].sha256 for name in sorted(parts)}
    return hashlib.sha256(orjson.dumps(content)).hexdigest()


class Registry:
    """The data sets under one home folder. Reading creates nothing; writers exclude each other by a file lock."""

    def __init__(self, home: Path | None = None) -> None:
        self.folder = (home or home_folder()) / "datasets"
        self.packs = Packs(self.folder / "packs")

    def names(self) -> list[str]:
        """The names under which versions are, or were, registered."""
        self._check_format()
        return list(dict.fromkeys(path.parent.name for path in self._records()))

    def versions(self, name: str, *, removed: bool = False) -> list[Version]:
        """The versions of a name, oldest first; those that were removed only on request.

        Raises InputError that names a damaged record, MachineError when the registry's format is newer than this code.
        """
        self._check_format()
        found = [self._load(path) for path in self._records(name)]
        return sorted((v for v in found if removed or not v.removed), key=lambda version: version.number)

    def find(self, reference: Reference) -> Version:
        """The version that is meant. Raises InputError when there is none, or several begin with the same digits."""
        everything = self.versions(reference.name, removed=True)
        live = [version for version in everything if not version.removed]
        where = str(reference)
        if not live:
            names = [name for name in self.names() if name != reference.name]
            cure = nearest(reference.name, names) if names else "none is registered yet: tuneworth data add NAME FILE"
            what = f"there is no data file and no registered data set '{reference.name}'"
            raise InputError(what, where=where, cure=cure)
        if reference.version == "latest":
            return live[-1]
        wanted = reference.version
        matching = [v for v in everything if v.version.startswith(wanted) or f"v{v.number}" == wanted]
        known = ", ".join(f"v{version.number} ({version.version[:12]})" for version in live)
        if len(matching) != 1:
            what = "several versions begin so" if matching else "there is no such version"
            raise InputError(what, where=where, cure=f"the versions are {known}")
        if matching[0].removed:
            raise InputError(
                f"this version was removed on {matching[0].removed}", where=where, cure=f"there are {known}"
            )
        return matching[0]

    def rows(self, version: Version, part: str) -> list[bytes]:
        """The rows of one part, each canonical JSON, checked against the version's hashes.

        Raises InputError that names the damaged file and the version.
        """
        with self._reading():
            try:
                return self.packs.rows(version.parts[part])
            except InputError as error:
                (problem,) = error.problems
                what = f"{problem.what} (needed by {version}, part {part})"
                raise InputError(what, where=problem.where, cure=problem.cure) from None

    def changes(self, version: Version) -> list[dict[str, Any]]:
        """Every row that the repairs of this version changed or removed; empty when it was not cleaned."""
        with self._reading():
            return [orjson.loads(row) for row in self.packs.load(version.changes)] if version.changes else []

    def add(
        self,
        name: str,
        parts: Mapping[str, Sequence[bytes]],
        columns: Sequence[str],
        lineage: Mapping[str, Any],
        changes: Sequence[Mapping[str, Any]] = (),
    ) -> tuple[Version, bool]:
        """Store a version of `name` (rows by part, each row canonical JSON); empty parts are left out.

        Returns the version and whether it is new: the same content under the same name is the version there is.
        Adding the content of a damaged version again mends it.
        Raises InputError for a name that cannot be one, MachineError when the disk is full (then the registry is as
        before), RunBusyError when another process writes for more than a minute.
        """
        check_name(name)
        with self._writing():
            before = self._readable(name)
            shared = {pack for version in before for pack in version.packs}
            stored = self.packs.store({key: rows for key, rows in parts.items() if rows}, sorted(shared))
            version = version_hash(stored)
            for old in before:
                if old.version == version and not old.removed:
                    if self._is_whole(old):
                        return old, False
                    self._write(replace(old, parts=stored))  # what was damaged is whole again
                    return replace(old, parts=stored), True
            made = Version(
                name=name,
                version=version,
                number=1 + max((len(self._records(name)), *(old.number for old in before))),
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                parts=stored,
                columns=tuple(columns),
                lineage=lineage,
                changes=self.packs.write([orjson.dumps(change) for change in changes]) if changes else None,
            )
            self._write(made)
            return made, True

    def _readable(self, name: str) -> list[Version]:
        """All versions of a name whose records are sound."""
        found = []
        for path in self._records(name):
            with contextlib.suppress(InputError):
                found.append(self._load(path))
        return found

    def _is_whole(self, version: Version) -> bool:
        try:
            return all(self.packs.rows(part) for part in version.parts.values())
        except InputError:
            return False

    def remove(self, version: Version) -> None:
        """Take a version out: its record stays and says so, rows that no other version needs are deleted."""
        with self._writing():
            date = datetime.now(UTC).isoformat(timespec="seconds")
            self._write(replace(version, removed=date))
            self._sweep()

    def verify(self, progress: Callable[[int, int], None] = lambda done, total: None) -> list[Damage]:
        """Read everything and compare it with its hashes; every damaged file is named, with the versions it harms.

        `progress` is told how many packs of how many have been read.
        """
        self._check_format()
        with self._reading():
            damaged, users = [], dict[str, list[Version]]()
            for path in self._records():
                try:
                    version = self._load(path)
                except InputError as error:
                    known = f"{path.parent.name}@{path.stem[:12]}"
                    damaged.append(Damage(str(path), error.problems[0].what, (known,)))
                    continue
                for pack in version.packs:
                    users.setdefault(pack, []).append(version)
            for done, (pack, versions) in enumerate(sorted(users.items()), 1):
                try:
                    self.packs.load(pack)
                except InputError as error:
                    harmed = tuple(sorted(map(str, versions)))
                    damaged.append(Damage(error.problems[0].where, error.problems[0].what, harmed))
                progress(done, len(users))
            if users and not (self.folder / "registry.json").is_file():
                damaged.append(Damage(str(self.folder / "registry.json"), "missing; the next `data add` writes it", ()))
        return damaged

    def stored_bytes(self) -> int:
        """Bytes of all packs and records on disk."""
        files = [*(self.folder / "packs").glob("*.jsonl"), *self._records()]
        return sum(path.stat().st_size for path in files)

    def _records(self, name: str = "") -> list[Path]:
        names = self.folder / "names"
        folders = [names / name] if name else sorted(names.iterdir()) if names.is_dir() else []
        for folder in folders:
            if folder.is_symlink():
                raise InputError("a symbolic link inside the registry is not followed", where=str(folder))
        return [path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.json"))]

    def _load(self, path: Path) -> Version:
        try:
            version = Version.from_json(_sealed(path, DATASET_SCHEMA))
            sound = version_hash(version.parts) == version.version
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            sound = False
        if not sound or (version.name, version.version) != (path.parent.name, path.stem):
            raise InputError("damaged: the record contradicts itself or its name", where=str(path), cure=CURE)
        return version

    def _write(self, version: Version) -> None:
        _write_sealed(self._made("names", version.name) / f"{version.version}.json", version.to_json())

    def _check_format(self) -> None:
        path = self.folder / "registry.json"
        if path.is_file():
            _sealed(path, REGISTRY_SCHEMA)

    def _made(self, *names: str) -> Path:
        """A folder of the registry, made durable when it is new. Symbolic links are not followed."""
        folder = self.folder
        with disk_errors(folder):
            if not folder.is_dir():
                folder.mkdir(parents=True)
                sync_folder(folder.parent)
            for name in names:
                folder = folder / name
                if folder.is_symlink():
                    raise InputError("a symbolic link inside the registry is not followed", where=str(folder))
                if not folder.is_dir():
                    folder.mkdir()
                    sync_folder(folder.parent)
        return folder

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Write alone; what a killed writer left behind is swept first. Raises RunBusyError after a minute."""
        self._check_format()
        folder = self._made()
        with disk_errors(folder):
            lock = (folder / ".lock").open("ab")
        with lock:
            deadline = time.monotonic() + WAIT_SECONDS
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        what, cure = "another process works on the registry", "try again when it is done"
                        raise RunBusyError(what, where=str(folder), cure=cure) from None
                    time.sleep(0.02)
            self._made("packs")
            self._made("names")
            if not (folder / "registry.json").is_file():
                _write_sealed(folder / "registry.json", {"schema": REGISTRY_SCHEMA})
            self._sweep()
            yield

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Read while nobody removes; works in a registry that one may not write to."""
        try:
            lock = (self.folder / ".lock").open("rb")
        except OSError:
            yield
            return
        with lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    def _sweep(self) -> None:
        """Delete temporary files and packs that no version needs; none while a record cannot be read."""
        for pattern in (".*.tmp", "packs/.*.tmp", "names/*/.*.tmp"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)
        try:
            needed = {pack for path in self._records() for pack in self._load(path).packs}
        except InputError:
            return
        for path in (self.folder / "packs").glob("*.jsonl"):
            if path.stem not in needed:
                path.unlink(missing_ok=True)


def check_name(name: str) -> None:
    """Raise InputError for a text that cannot name a data set."""
    if not NAME.fullmatch(name):
        shown = repr(name if len(name) <= 80 else name[:80] + "...")
        raise InputError(f"{shown} cannot name a data set", cure=NAME_RULE)


def _write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with a check sum over itself."""
    write_json(path, {**content, "sha256": _check_sum(content)})


def _sealed(path: Path, schema: str) -> dict[str, Any]:
    """A JSON object whose check sum holds. Raises InputError when it does not, MachineError when it is of a newer
    format than `schema`."""
    try:
        content = orjson.loads(path.read_bytes())
        sound = isinstance(content, dict) and content.pop("sha256", None) == _check_sum(content)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), cure=CURE) from None
    except orjson.JSONDecodeError:
        sound = False
    kind, _, number = schema.rpartition("/")
    found_kind, _, found = str(content.get("schema") if sound else "").rpartition("/")
    if not sound or found_kind != kind or not found.isdigit():
        raise InputError("damaged: the file does not have its check sum", where=str(path), cure=CURE)
    if int(found) > int(number):
        what = f"this registry was written by a newer tuneworth (format {found}; this one reads format {number})"
        raise MachineError(what, where=str(path), cure="update tuneworth, or set TUNEWORTH_HOME to another folder")
    return dict(content)


def _check_sum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
