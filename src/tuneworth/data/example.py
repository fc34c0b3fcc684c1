"""The typed records that the data stage hands on."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation. `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One row: the conversation up to the answer, the wanted answer, and where the row came from.

    `id` is unique in its data set and survives to the report; `line` counts from 1 as an editor shows it.
    """

    id: str
    messages: tuple[Message, ...]
    answer: str
    file: str
    line: int
    group: str | None = None

    @property
    def text(self) -> str:
        """The last user message: what a classifier reads."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `Example.from_json` is its inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Example:
        """The inverse of `to_json`."""
        return cls(**{**row, "messages": tuple(Message(**m) for m in row["messages"])})


def content_id(*parts: str) -> str:
    """A short stable id of some texts (first 12 hex digits of SHA-256)."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:12]
