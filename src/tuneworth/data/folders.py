"""A folder of data files: which of them are train, validation and test, as the datasets library would see it.

What the folder's README.md says about its files counts most (`configs: - data_files`, as on the Hugging Face hub),
then the names of files and folders: words such as train, dev or test between other signs. Files without such a word
are left alone when others have one, and are train when none has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml

from tuneworth.data.findings import Split, plural
from tuneworth.data.opening import PARALLEL, SUFFIXES
from tuneworth.data.unpacking import PACKED
from tuneworth.errors import InputError, nearest

SPLITS: tuple[Split, ...] = get_args(Split)
_WORDS: Mapping[Split, frozenset[str]] = {
    "train": frozenset(["train", "training"]),
    "validation": frozenset(["validation", "validate", "valid", "val", "dev"]),
    "test": frozenset(["test", "testing", "eval", "evaluation"]),
}
_ABOUT = re.compile(r"(readme|licen[cs]e|dataset_infos?|dataset_dict|state|croissant|package)\b.*", re.IGNORECASE)
_DEEPEST = 3
_MOST_FILES = 10_000


@dataclass(frozen=True, slots=True)
class DataFiles:
    """The files of a data set by split, in the order of their names; `notes` says which, and what was left alone."""

    parts: Mapping[Split, tuple[Path, ...]]
    notes: tuple[str, ...] = ()

    def of(self, role: Split) -> tuple[Path, ...]:
        """The files of a split, for a folder that was given as that split: if it holds one split only, then that."""
        given = [files for files in self.parts.values() if files]
        return self.parts[role] or (given[0] if len(given) == 1 else ())


def find_files(path: Path) -> DataFiles:
    """The files of a data set: `path` itself, or those of a folder.

    Raises InputError when the folder holds none that can be read, or a saved data set in Arrow files.
    """
    if not is_folder(path):
        return DataFiles({"train": (path,), "validation": (), "test": ()})
    if (path / "task.yaml").is_file() or any(path.glob("*/verdict.json")) or any(path.glob("*/splits/splits.json")):
        cure = "give a data file, or for a stage of a run its run folder"
        raise InputError("the folder holds runs, not data files", where=str(path), cure=cure, code="file-kind")
    stated = _stated(path)
    if stated is not None:
        return stated
    found = _candidates(path)
    if not found:
        raise _nothing(path)
    split_of = {file: _split(file.relative_to(path)) for file in found}
    if not any(split_of.values()):
        return DataFiles({"train": tuple(found), "validation": (), "test": ()})
    parts: dict[Split, tuple[Path, ...]] = {
        split: tuple(file for file in found if split_of[file] == split) for split in SPLITS
    }
    notes = [
        f"{split}: {files[0].relative_to(path) if len(files) == 1 else plural(len(files), 'file')}"
        for split, files in parts.items()
        if files
    ]
    others = [str(file.relative_to(path)) for file, split in split_of.items() if split is None]
    if others:
        notes.append(f"not read, since the name says no split: {', '.join(others[:5])}{', ...' * (len(others) > 5)}")
    return DataFiles(parts, tuple(notes))


def split_name(text: str, where: str) -> Split:
    """The split of that name. Raises InputError that names the known ones."""
    for split in SPLITS:
        if split == text:
            return split
    raise InputError(f"'{text}' is no part of a data set", where=where, cure=nearest(text, SPLITS))


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder; False for names that no file can have."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _candidates(path: Path) -> list[Path]:
    """Data files beside each other in `path`, else those in the folders below."""
    here = [file for file in sorted(path.iterdir()) if _is_data(file)]
    return here or list(_below(path, _DEEPEST))


def _below(path: Path, depth: int) -> Iterator[Path]:
    for folder in sorted(path.iterdir()):
        if folder.is_dir() and not folder.is_symlink() and not folder.name.startswith((".", "_")):
            yield from (file for file in sorted(folder.iterdir()) if _is_data(file))
            if depth > 1:
                yield from _below(folder, depth - 1)


def _is_data(file: Path) -> bool:
    if file.name.startswith(".") or _ABOUT.fullmatch(file.name) or not file.is_file():
        return False
    suffix = file.with_suffix("").suffix if file.suffix.lower() in PACKED else file.suffix
    return suffix.lower() in SUFFIXES or file.name == PARALLEL


def _split(relative: Path) -> Split | None:
    """The split that a name says: the file's own name first, then the folders, the nearest first."""
    for part in reversed(relative.parts):
        words = set(re.split(r"[^a-z]+", part.lower()))
        found = [split for split, known in _WORDS.items() if words & known]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _stated(path: Path) -> DataFiles | None:
    """What the YAML at the beginning of README.md says about the files."""
    readme = path / "README.md"
    if not readme.is_file():
        return None
    text = readme.read_bytes()[:1_000_000].decode("utf-8", "replace")
    front = re.match(r"---\r?\n(.*?)\n---\s", text, re.DOTALL)
    try:
        about = yaml.safe_load(front.group(1)) if front else None
    except (yaml.YAMLError, RecursionError):
        return None
    configs = about.get("configs") if isinstance(about, dict) else None
    if not isinstance(configs, list):
        return None
    usable = [config for config in configs if isinstance(config, dict) and config.get("data_files")]
    if not usable:
        return None
    chosen = next((config for config in usable if config.get("default")), None) or usable[0]
    others = [str(config.get("config_name")) for config in usable if config is not chosen]
    if others and chosen.get("config_name") != "default" and not chosen.get("default"):
        names = ", ".join([str(chosen.get("config_name")), *others])
        cure = "give the folder or the files of one of them"
        raise InputError(f"the folder holds several data sets: {names}", where=str(readme), cure=cure, code="columns")
    parts = _globbed(path, chosen["data_files"])
    if not any(parts.values()):
        return None
    told = [f"{split}: {plural(len(files), 'file')}, as README.md says" for split, files in parts.items() if files]
    return DataFiles(parts, tuple(told))


def _globbed(path: Path, stated: Any) -> dict[Split, tuple[Path, ...]]:
    parts: dict[Split, tuple[Path, ...]] = dict.fromkeys(SPLITS, ())
    entries = stated if isinstance(stated, list) else [{"split": "train", "path": stated}]
    for entry in entries:
        if not isinstance(entry, dict):
            entry = {"split": "train", "path": entry}
        split = _split(Path(str(entry.get("split"))))
        given = entry.get("path")
        for pattern in given if isinstance(given, list) else [given]:
            if split is None or not isinstance(pattern, str) or pattern.startswith("/") or ".." in pattern:
                continue  # no file outside the folder
            files = tuple(file for file in sorted(path.glob(pattern))[:_MOST_FILES] if file.is_file())
            parts[split] += files
    return parts


def _nothing(path: Path) -> InputError:
    if any(path.rglob("*.arrow")):
        cure = "save it as Parquet: datasets.load_from_disk(FOLDER) and then .to_parquet('train.parquet')"
        return InputError(
            "the folder holds a saved data set in Arrow files", where=str(path), cure=cure, code="file-kind"
        )
    endings = ", ".join(f"*{suffix}" for suffix in SUFFIXES)
    cure = f"data files end in {endings}, perhaps with .gz or .zst after it"
    return InputError("the folder holds no data files", where=str(path), cure=cure, code="file-missing")
