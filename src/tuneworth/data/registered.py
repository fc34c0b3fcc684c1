"""A registered data set where a file is expected: the same rows, as a file whose place tells the version."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from tuneworth.data.folders import find_files, is_folder
from tuneworth.data.hub import fetch_data_set
from tuneworth.data.opening import refuse_pipes
from tuneworth.errors import InputError
from tuneworth.store.atomic import write_bytes
from tuneworth.store.cache import cached_folder, manifest_problem, sha256_of
from tuneworth.store.registry import Registry, Version
from tuneworth.task import Reference, Task, data_reference, is_hub_id

_ROLES = ("train", "validation", "test")


def pinned(task: Task) -> Task:
    """The task with every registered data set named by its whole hash and part, so that it means the same for ever,
    and every data set of the hub by the folder to which it was fetched.

    A set or folder named for train brings its own validation and test rows, unless the task names others.
    Raises InputError when a set, version or part does not exist.
    """
    named: dict[str, str | None] = {role: _local(getattr(task.data, role)) for role in _ROLES}
    train = named["train"]
    if train is not None and is_folder(Path(train)):
        parts = find_files(Path(train)).parts
        named |= {role: train for role in ("validation", "test") if named[role] is None and parts[role]}
    whole: Version | None = None
    for role, text in named.items():
        reference = data_reference(text) if text else None
        if reference is None:
            continue
        version = Registry().find(reference)
        part = reference.part or (role if role in version.parts else "train")
        if part not in version.parts:
            known = ", ".join(version.parts)
            raise InputError(f"'{version}' has no part '{part}'", where=f"data.{role}", cure=f"its parts are {known}")
        named[role] = str(Reference(version.name, version.version, part))
        if role == "train" and not reference.part:
            whole = version
    if whole is not None:
        for role in ("validation", "test"):
            if named[role] is None and role in whole.parts:
                named[role] = str(Reference(whole.name, whole.version, role))
    return task.model_copy(update={"data": task.data.model_copy(update=named)})


def data_file(name: str) -> Path:
    """The file that `data.train`, `data.validation` or `data.test` stands for: itself, or a registered part as JSON
    Lines under the cache folder (one row a line, so that line numbers are row numbers).

    Raises InputError when the set does not exist or is damaged.
    """
    version, part = _version(name)
    if version is None:
        return Path(name)
    path = _unfolded(version) / f"{part}.jsonl"
    if not path.is_file():
        raise InputError(
            f"'{version}' has no part '{part}'", where=name, cure=f"its parts are {', '.join(version.parts)}"
        )
    return path


def content_sha256(name: str) -> str:
    """The SHA-256 of a data file's bytes; of a folder those of its files; of a registered part its rows', without
    reading them."""
    version, part = _version(name)
    if version is not None:
        return version.parts[part].sha256
    refuse_pipes(Path(name))
    if not is_folder(Path(name)):
        return sha256_of(Path(name))
    files = [file for part in find_files(Path(name)).parts.values() for file in part]
    return hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()


def data_set_of(task: Task) -> dict[str, str | int] | None:
    """Name, version and number of the registered set that a task learns from; None when it is a file."""
    version, _ = _version(task.data.train or "")
    return None if version is None else {"name": version.name, "version": version.version, "number": version.number}


def _local(name: str | None) -> str | None:
    return str(fetch_data_set(name)) if name is not None and is_hub_id(name) else name


def _version(name: str) -> tuple[Version | None, str]:
    reference = data_reference(name)
    if reference is None:
        return None, ""
    version = Registry().find(reference)
    return version, reference.part or "train"


def _unfolded(version: Version) -> Path:
    """A version's parts as files in the cache; written again when one of them was damaged there."""
    registry = Registry()

    def build(folder: Path) -> None:
        for part in version.parts:
            write_bytes(folder / f"{part}.jsonl", b"".join(row + b"\n" for row in registry.rows(version, part)))

    name, needed = f"datasets/{version.name}@{version.version[:16]}", sum(p.bytes for p in version.parts.values())
    folder = cached_folder(name, build, needed_bytes=needed)
    if manifest_problem(folder):
        shutil.rmtree(folder)
        folder = cached_folder(name, build, needed_bytes=needed)
    return folder
