"""Verdicts from samples of real answers, held against the verdict from all of them.

A case is a set of rows, and three of its arms that play a prompt, a fine-tuned and a classical arm at costs that make
one of them cheap; a finished run's own arms play themselves. The statistics do not know what an arm is, so every
assignment is a fair test of them. From each case samples of 100, 200 and 400 rows are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from verdict_checks.answers import Stored

from tuneworth.decision.power import smallest_detectable_difference
from tuneworth.decision.records import ArmResult, Family, Price, Terms
from tuneworth.decision.verdict import Judgement, judge
from tuneworth.task import Decision

SIZES = (100, 200, 400)
TERMS = Terms(Price(0.1, "task", None, ""))
_EFFECTS = (0.01, 0.03)
_COSTS: dict[Family, float] = {"classical": 0.001, "prompt": 0.05, "fine-tune": 0.02}
_ROLES: tuple[tuple[Family, ...], ...] = (
    ("prompt", "fine-tune", "classical"), ("fine-tune", "classical", "prompt"), ("classical", "prompt", "fine-tune"),
)  # fmt: skip


class Case(NamedTuple):
    """Arms on all rows, what matters, and where they come from."""

    name: str
    arms: tuple[ArmResult, ...]
    decision: Decision


def cases(stored: dict[str, list[Stored]], rng: np.random.Generator, most: int = 24) -> Iterator[Case]:
    """At most `most` triples of each set, in every role, and whole runs."""
    for name, arms in stored.items():
        known: Sequence[Sequence[tuple[Stored, Family]]]
        if name.endswith("-run"):
            known = [[(arm, arm.family) for arm in arms]]  # type: ignore[misc]
        else:
            triples = list(combinations(arms, 3))
            chosen = rng.permutation(len(triples))[:most]
            known = [
                list(zip(triples[place], _ROLES[turn % len(_ROLES)], strict=True)) for turn, place in enumerate(chosen)
            ]
        for one in known:
            for effect in _EFFECTS:
                yield Case(name, tuple(_arm(*pair) for pair in one), Decision(minimum_effect=effect))


def _arm(stored: Stored, family: Family) -> ArmResult:
    return ArmResult(
        f"{stored.name}", family, "m", "generate", scores=tuple(stored.scores.tolist()),
        machine_seconds_per_request=_COSTS[family], usd_to_build=5.0 if family == "fine-tune" else 0.0,
    )  # fmt: skip


def check_samples(stored: dict[str, list[Stored]], draws: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Contradictions and abstentions by sample size, over all cases and by set."""
    rng = np.random.default_rng(400)
    found: list[dict[str, Any]] = []
    for case in cases(stored, rng):
        whole = judge(case.arms, case.decision, TERMS)
        rows = len(case.arms[0].values)
        for size in SIZES:
            if size > 0.85 * rows:
                continue
            clear = _clear(whole, size, case.decision)
            for _ in range(draws):
                taken = rng.choice(rows, size, replace=False)
                arms = [replace(arm, scores=tuple(arm.values[taken].tolist())) for arm in case.arms]
                kind = judge(arms, case.decision, TERMS).ruling.kind
                found.append({"set": case.name, "size": size, "kind": kind, "whole": whole.ruling.kind, "clear": clear})
    return _summary(found, say)


def _clear(whole: Judgement, size: int, decision: Decision) -> bool:
    """Whether a sample should decide: the winner leads every arm of another family, and by 1.5 times what it shows."""
    best, winner = whole.evidence.best, whole.ruling.winner
    if winner is None or best is not winner:
        return False
    for arm in whole.evidence.arms:
        if arm.family == winner.family:
            continue
        pair = whole.evidence.pair(winner, arm)
        binary = winner.binary and arm.binary
        least = smallest_detectable_difference(pair.variance + pair.difference**2, size, whole.alpha, binary)
        if least is None or pair.difference < 1.5 * least:
            return False
    return True


def _summary(found: list[dict[str, Any]], say: Callable[[str], None]) -> dict[str, Any]:
    open_ = "not-enough-evidence"

    def contradicts(one: dict[str, Any]) -> bool:
        return one["kind"] != open_ and one["whole"] != open_ and one["kind"] != one["whole"]

    def share(rows: list[dict[str, Any]], of: Callable[[dict[str, Any]], bool]) -> float | None:
        return sum(map(of, rows)) / len(rows) if rows else None

    decided = [one for one in found if one["whole"] != open_]
    clear = [one for one in found if one["clear"]]
    answer: dict[str, Any] = {
        "verdicts": len(found),
        "subsample_contradictions": share(decided, contradicts),
        "subsample_contradictions_of_decided": share([o for o in decided if o["kind"] != open_], contradicts),
        "contradictions_by_set": {
            name: share([one for one in decided if one["set"] == name], contradicts)
            for name in dict.fromkeys(one["set"] for one in decided)
        },
        "abstentions": {
            str(size): share([one for one in clear if one["size"] == size], lambda one: one["kind"] == open_)
            for size in SIZES
        },
        "clear_verdicts": {str(size): sum(one["size"] == size for one in clear) for size in SIZES},
        "abstentions_in_all": {
            str(size): share([one for one in found if one["size"] == size], lambda one: one["kind"] == open_)
            for size in SIZES
        },
        "kinds_on_all_rows": {
            kind: sum(one["whole"] == kind for one in found) for kind in sorted({one["whole"] for one in found})
        },
    }
    say(f"samples: {answer}")
    return answer
