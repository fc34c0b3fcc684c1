"""What a long step tells about itself; the command line shows it, a library call may ignore it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Watcher(Protocol):
    """Told what is going on."""

    def begin(self, what: str, total: int) -> None:
        """A step of `total` units starts."""

    def advance(self, units: int) -> None:
        """So many more units are done."""

    def record(self, record: Mapping[str, Any]) -> None:
        """A training step or evaluation, as in metrics.jsonl."""

    def note(self, text: str) -> None:
        """Something a person wants to know."""


class Silent:
    """A watcher that says nothing."""

    def begin(self, what: str, total: int) -> None:
        """Nothing."""

    def advance(self, units: int) -> None:
        """Nothing."""

    def record(self, record: Mapping[str, Any]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""
