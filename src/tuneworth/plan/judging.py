"""How much a judge may be asked: as much as its share of the budget affords, or nothing."""

from __future__ import annotations

from dataclasses import dataclass

from tuneworth.task import format_seconds

_MOST_ROWS, _LEAST_ROWS, _MOST_PAIRS = 200, 30, 100
_MOST_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class JudgePlan:
    """How many test rows of each arm are judged, and how many human preferences; 0 and `why` when it is too dear."""

    rows: int
    pairs: int
    seconds: float
    why: str | None = None


def afford_judge(
    seconds_a_pair: float, arms: int, human_pairs: int, test_rows: int, budget_seconds: float
) -> JudgePlan:
    """At most 200 rows of each arm and 100 human preferences, in at most 30 % of the budget."""
    pairs, least = min(_MOST_PAIRS, human_pairs), min(_LEAST_ROWS, test_rows)
    affordable = int((_MOST_SHARE * budget_seconds / max(seconds_a_pair, 1e-6) - pairs) / max(1, arms))
    rows = min(_MOST_ROWS, test_rows, affordable)
    if rows < least:
        needed = (pairs + arms * least) * seconds_a_pair / _MOST_SHARE
        why = f"a pair of answers takes {seconds_a_pair:.1f} s; a budget of about {format_seconds(needed)} would do"
        return JudgePlan(0, 0, 0.0, why)
    return JudgePlan(rows, pairs, (pairs + arms * rows) * seconds_a_pair)
