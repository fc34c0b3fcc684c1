"""How many answers choosing among prompt forms takes, by successive halving: planned here, done in evaluation."""

from __future__ import annotations

import math


def rounds(forms: int, rows: int) -> list[tuple[int, int]]:
    """(forms that are left, rows that each has been asked by then) of each round: half the forms, twice the rows.

    The last round is two forms on all rows; one form needs no round.
    """
    found: list[tuple[int, int]] = []
    while forms > 1:
        to_come = math.ceil(math.log2(forms)) - 1
        found.append((forms, math.ceil(rows / 2**to_come)))
        forms = math.ceil(forms / 2) if forms > 2 else 1
    return found


def rows_asked(forms: int, rows: int) -> int:
    """Answers that choosing among `forms` takes: later rounds only ask the rows that are new to a form."""
    asked, before = 0, 0
    for left, so_far in rounds(forms, rows):
        asked += left * (so_far - before)
        before = so_far
    return asked
