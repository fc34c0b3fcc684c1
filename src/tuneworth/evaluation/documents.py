"""Retrieved documents: the passages of the user's own texts that are likest to the request stand before it.

Many who ask for fine-tuning need this instead: what changes weekly belongs in the prompt, not in the weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from tuneworth.data.example import Example
from tuneworth.errors import InputError, Problem
from tuneworth.evaluation.prompts import PromptForm

COUNTS = (2, 4)
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


@dataclass(frozen=True, slots=True)
class Passages:
    """Passages, and how like a text is to each (float32 [passages])."""

    texts: tuple[str, ...]
    likeness: Callable[[str], NDArray[np.float32]] = field(repr=False)

    @classmethod
    def of(cls, texts: Sequence[str]) -> Passages:
        """Likeness by TF-IDF of words and word pairs, as search engines do."""
        words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), dtype=np.float32, token_pattern=r"(?u)\b\w+\b")
        table = words.fit_transform(texts)
        return cls(
            tuple(texts), lambda text: np.asarray((table @ words.transform([text]).T).toarray(), np.float32).ravel()
        )

    def nearest(self, text: str, count: int) -> tuple[str, ...]:
        """The `count` likest passages, the likest first; among equals the earlier one. None that shares no word."""
        likeness = self.likeness(text)
        order = np.argsort(-likeness, kind="stable")[:count]
        return tuple(self.texts[int(index)] for index in order if likeness[index] > 0)


@dataclass(frozen=True, slots=True)
class DocumentsForm:
    """`base` with the `count` likest passages before the last message of the user."""

    name: str
    base: PromptForm
    passages: Passages
    count: int
    shots: tuple[Example, ...] = ()

    def messages(self, example: Example) -> list[dict[str, Any]]:
        """The conversation that asks for `example`'s answer."""
        found = self.passages.nearest(example.text, self.count)
        if not found:
            return self.base.messages(example)
        listed = "\n\n".join(f"[{number}] {passage}" for number, passage in enumerate(found, 1))
        last = max(n for n, message in enumerate(example.messages) if message.role == "user")
        asked = example.messages[last]
        told = replace(asked, content=f"Passages that may help:\n\n{listed}\n\nThe message:\n\n{asked.content}")
        shown = replace(example, messages=(*example.messages[:last], told, *example.messages[last + 1 :]))
        return self.base.messages(shown)

    def opening(self) -> list[dict[str, Any]]:
        """What all conversations begin with."""
        return self.base.opening()

    @property
    def keeps_own_system(self) -> bool:
        """Whether a system message that stands before the row's others is kept."""
        return self.base.keeps_own_system


def documents_forms(base: PromptForm, passages: Passages) -> list[DocumentsForm]:
    """`base` with 2 or 4 passages."""
    return [DocumentsForm(f"{base.name}, {count} passages", base, passages, count) for count in COUNTS]


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
