"""The cache folder: finished folders that any number of processes may ask for at once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path

from tuneworth.errors import MachineError
from tuneworth.store.atomic import disk_errors, read_json, sync_folder, write_json

MANIFEST = "manifest.json"
_CHUNK_BYTES = 1 << 22


def cache_folder() -> Path:
    """`TUNEWORTH_CACHE`, or the platform's cache folder for tuneworth."""
    chosen = os.environ.get("TUNEWORTH_CACHE")
    return Path(chosen).expanduser() if chosen else user_cache_path("tuneworth")


def cached_folder(name: str, build: Callable[[Path], None], *, needed_bytes: int) -> Path:
    """The folder `name` of the cache; `build` fills it once if it is not there.

    One process builds while others wait; the folder appears whole or not at all, and carries a manifest
    with the SHA-256 of each file. Raises MachineError when fewer than `needed_bytes` are free.
    """
    root = cache_folder()
    final = root / name
    if (final / MANIFEST).is_file():
        return final
    with disk_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(final.parent).free
        if free < needed_bytes:
            raise MachineError(
                f"{needed_bytes / 1e9:.1f} GB are needed here, {free / 1e9:.1f} GB are free",
                where=str(final.parent),
                cure="free some space, or set TUNEWORTH_CACHE to a folder on another disk",
            )
        with (final.parent / f".{final.name}.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (final / MANIFEST).is_file():
                return final
            for leftover in final.parent.glob(f".{final.name}.tmp-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            aside = final.parent / f".{final.name}.tmp-{uuid.uuid4().hex[:8]}"
            aside.mkdir()
            try:
                build(aside)
                write_manifest(aside)
                shutil.rmtree(final, ignore_errors=True)
                aside.rename(final)
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
            sync_folder(final.parent)
    return final


def write_manifest(folder: Path) -> None:
    """Sync every file of `folder` and write `manifest.json` with name, size and SHA-256 of each."""
    files = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name != MANIFEST:
            with path.open("rb") as file:
                os.fsync(file.fileno())
            files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    write_json(folder / MANIFEST, {"schema": "tuneworth.manifest/1", "files": files})


def manifest_problem(folder: Path) -> str:
    """What is wrong with a folder that carries a manifest; empty when every file is as written."""
    for name, wanted in read_json(folder / MANIFEST)["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != wanted["bytes"] or sha256_of(path) != wanted["sha256"]:
            return f"{name} is damaged"
    return ""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
