"""The check of the verdict can fail: too narrow intervals do not cover, and samples that contradict are counted."""

from __future__ import annotations

import numpy as np
import pytest
from verdict_checks import samples, simulation
from verdict_checks.answers import Stored

from tuneworth.decision import statistics


def test_intervals_that_are_too_narrow_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)

    def covered() -> float:
        draw = simulation.GRADED["beta(2,5)"]
        intervals = lambda values: simulation.mean_intervals(values, False, 0.95)  # noqa: E731
        return simulation._many(rng, 2_000, 50, draw, intervals)[0]

    assert 0.935 <= covered() <= 0.97
    narrow = statistics.skewed_interval
    monkeypatch.setattr(statistics, "skewed_interval", lambda mean, found, _: narrow(mean, found, 0.8))
    assert covered() < 0.85


def test_uneven_groups_hold_all_rows_and_begin_large() -> None:
    codes = simulation.group_sizes(30, 600, True)
    sizes = np.bincount(codes)
    assert len(sizes) == 30 and sizes[0] > 3 * sizes[-1] and abs(len(codes) - 600) <= 15


def test_a_sample_that_says_otherwise_is_a_contradiction_and_none_is_an_abstention() -> None:
    rows = [
        {"set": "s", "size": 100, "kind": kind, "whole": whole, "clear": clear}
        for kind, whole, clear in (
            ("prompt", "fine-tune", True), ("fine-tune", "fine-tune", True), ("not-enough-evidence", "fine-tune", True),
            ("fine-tune", "fine-tune", False), ("prompt", "not-enough-evidence", False),
        )
    ]  # fmt: skip
    found = samples._summary(rows, lambda _: None)
    assert found["subsample_contradictions"] == 1 / 4 and found["subsample_contradictions_of_decided"] == 1 / 3
    assert found["abstentions"]["100"] == 1 / 3 and found["abstentions"]["400"] is None


def test_arms_far_apart_are_decided_from_every_sample() -> None:
    def arm(name: str, right: float) -> Stored:
        scores = (np.random.default_rng(len(name)).random(600) < right).astype(float)
        return Stored(name, "classical", scores, np.full(600, 0.01), 1.0, None)

    found = samples.check_samples({"s": [arm("a", 0.1), arm("bb", 0.5), arm("ccc", 0.95)]}, 2, lambda _: None)
    assert found["subsample_contradictions"] == 0 and found["abstentions"]["400"] == 0
    assert found["clear_verdicts"]["400"] > 0
