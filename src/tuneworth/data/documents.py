"""A folder of the user's own texts, cut into passages that a prompt can show."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tuneworth.errors import InputError, Problem

_ENDINGS = (".txt", ".md")
_PASSAGE = 800
"""Characters of a passage, at most, unless one paragraph alone is longer; then it is cut at this length."""
_LARGEST = 64 << 20
_WHERE = "data.documents"


def text_files(folder: Path) -> list[Path]:
    """The texts (.txt, .md) under `folder`, in the order of their names; links are left out.

    Raises InputError when there is no such folder, no text in it, or more than 64 MiB of text.
    """
    if not folder.is_dir():
        raise InputError("there is no such folder", where=f"{_WHERE}: {folder}", cure="check the path")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS and _is_plain(path))
    if not found:
        raise InputError("the folder holds no text", where=f"{_WHERE}: {folder}", cure="put .txt or .md files into it")
    size = sum(path.stat().st_size for path in found)
    if size > _LARGEST:
        what = f"{size / 2**20:,.0f} MiB of text; at most {_LARGEST >> 20} MiB are read"
        raise InputError(what, where=f"{_WHERE}: {folder}", cure="leave out what no request is about")
    return found


def documents_sha256(folder: Path) -> str:
    """One hash over the names and contents of the texts."""
    digest = hashlib.sha256()
    for path in text_files(folder):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def read_passages(folder: Path) -> tuple[str, ...]:
    """The passages of all texts, in order: whole paragraphs together. Raises InputError that lists every bad file."""
    passages: list[str] = []
    problems = []
    for path in text_files(folder):
        try:
            passages += split_passages(path.read_bytes().decode("utf-8"))
        except UnicodeDecodeError as error:
            problems.append(Problem(f"byte {error.start} is not UTF-8", str(path), "save the file as UTF-8"))
    if problems:
        raise InputError.of(problems)
    if not passages:
        raise InputError("the texts are empty", where=f"{_WHERE}: {folder}")
    return tuple(passages)


def split_passages(text: str) -> list[str]:
    """Paragraphs (between blank lines) joined up to 800 characters; a longer paragraph is cut."""
    found: list[str] = []
    for paragraph in (part.strip() for part in text.replace("\r\n", "\n").split("\n\n")):
        for start in range(0, len(paragraph), _PASSAGE):
            piece = paragraph[start : start + _PASSAGE]
            if found and len(found[-1]) + len(piece) + 2 <= _PASSAGE:
                found[-1] += f"\n\n{piece}"
            else:
                found.append(piece)
    return found


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
