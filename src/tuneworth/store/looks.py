"""Looks at test rows: which verdicts were made from the same rows before, on this machine.

Whoever looks again after changing something chooses with the help of the test rows, so a later verdict must be stated
with more care (`decision.looks`). One file of the cache for each set of test rows holds a line for each look, with what
was looked at: the same answers decided again are the same look.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterable

from tuneworth.store.atomic import disk_errors
from tuneworth.store.cache import cache_folder

_LENGTH = 64  # characters of a digest in hex


def digest(parts: Iterable[str]) -> str:
    """SHA-256 of texts in order, in hex; no two lists of texts share one."""
    found = hashlib.sha256()
    for part in parts:
        coded = part.encode("utf-8", "surrogatepass")
        found.update(len(coded).to_bytes(8, "big") + coded)
    return found.hexdigest()


def look(test_rows: str, answers: str) -> int:
    """The number of this look at the rows `test_rows` (a digest), counted from 1; `answers` digests what was seen.

    Written down at once, so that a verdict that is thrown away counts too. Raises MachineError when it cannot be
    written.
    """
    path = cache_folder() / "looks" / test_rows
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            seen = [line for line in file.read().split() if len(line) == _LENGTH]
            if answers not in seen:
                # A line that a crash cut short is no look; a new one begins on its own line.
                file.write(f"\n{answers}\n")
                seen.append(answers)
    return seen.index(answers) + 1
