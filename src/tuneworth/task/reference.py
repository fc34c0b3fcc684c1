"""How a task names a registered data set: `NAME`, `NAME@VERSION`, `NAME@VERSION:PART`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
NAME_RULE = "a name is 1 to 64 lower-case letters, digits, '-' or '_', and begins with a letter or digit"
PARTS = ("train", "validation", "test", "unlabelled")
"""The parts that a registered data set can have, in the order in which they are stored and shown."""

_REFERENCE = re.compile(
    rf"(?P<name>{NAME.pattern})(@(?P<version>latest|v[0-9]{{1,9}}|[0-9a-f]{{6,64}}))?(:(?P<part>{'|'.join(PARTS)}))?"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """A registered data set. `version` is `latest`, `v3`, or the first 6 to 64 hex digits of a version's hash;
    `part` is empty when the set's own parts play their own roles."""

    name: str
    version: str = "latest"
    part: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.version}" + (f":{self.part}" if self.part else "")


def parse_reference(text: str) -> Reference | None:
    """The reference that `text` has the form of, if it has. Names have no dots or slashes, so no file with an
    ending looks like one."""
    match = _REFERENCE.fullmatch(text)
    return Reference(match["name"], match["version"] or "latest", match["part"] or "") if match else None


def data_reference(text: str, folder: Path | None = None) -> Reference | None:
    """The reference that `text` stands for where data is named: a file (or folder) of that name goes first."""
    found = parse_reference(text)
    return None if found is None or ((folder or Path()) / text).exists() else found


_HUB = re.compile(
    r"hf://datasets/[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w.-]+)?|[A-Za-z0-9][\w-]*/[A-Za-z0-9][\w-]*(@\w+)?"
)


def is_hub_id(text: str, folder: Path | None = None) -> bool:
    """Whether `text` names a data set of the Hugging Face hub: hf://datasets/owner/name, or owner/name without dots
    where no such file or folder is; @revision may follow."""
    return _HUB.fullmatch(text) is not None and not ((folder or Path()) / text).exists()
