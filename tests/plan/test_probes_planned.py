"""Probes in the budget: only what the arms leave, the cheaper ones first, each whole or not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tuneworth.plan import Rate
from tuneworth.plan.probing import (
    AT_ONCE,
    CLASSICAL_CURVE,
    CURVE,
    FORGETTING,
    OUT_OF_SCOPE,
    PROBES,
    ROBUSTNESS,
    Point,
    Speeds,
    Work,
    afford_probes,
    probe_seconds,
    set_aside,
)

WORK = Work(60, 20_000, 100, {"zero-shot": 8, "lora-short": 6}, {1: 12, 4: 6}, (Point(80, 16, 4),), 200, 400)
SPEEDS = Speeds({"zero-shot": Rate(0.5, 0.05), "lora-short": Rate(0.1, 0.04)}, {"lora-short": 0.08}, 0.002, 10.0)


def test_every_probe_is_predicted_from_what_it_does() -> None:
    seconds = probe_seconds(WORK, SPEEDS)
    assert set(seconds) == set(PROBES)
    assert seconds[CLASSICAL_CURVE] == pytest.approx(19)
    assert seconds[AT_ONCE] == pytest.approx(19 * 0.6 + 1.12 * (0.6 + 36 * 0.09))
    assert seconds[ROBUSTNESS] == pytest.approx(1.12 * (8 * 5.5 + 6 * 4.1))
    # 80 steps of 16 rows, four looks at 200 rows for score and loss, and the 400 rows that score two points.
    a_look = 8.1 + 200 * 0.45 * 0.08
    assert seconds[CURVE] == pytest.approx(1.12 * (80 * 16 * 0.08 + 4 * a_look + 2 * 16.1))
    twice = probe_seconds(replace(WORK, general_tokens=40_000, strangers=120), SPEEDS)
    assert twice[FORGETTING] == pytest.approx(2 * seconds[FORGETTING])
    assert twice[OUT_OF_SCOPE] > 1.8 * seconds[OUT_OF_SCOPE]


def test_what_does_not_exist_is_not_probed() -> None:
    assert set(probe_seconds(WORK, Speeds({}, {}, 0.0, 10.0))) == {CLASSICAL_CURVE}
    only_prompts = Speeds({"zero-shot": Rate(0.5, 0.05)}, {}, 0.0, 0.0)
    assert set(probe_seconds(WORK, only_prompts)) == {AT_ONCE, OUT_OF_SCOPE, ROBUSTNESS}


def test_probes_are_afforded_in_order_and_what_is_left_out_says_why() -> None:
    seconds = {CLASSICAL_CURVE: 10.0, AT_ONCE: 20.0, OUT_OF_SCOPE: 30.0, FORGETTING: 200.0, ROBUSTNESS: 40.0}
    planned, skipped = afford_probes(110.0, seconds)
    assert list(planned) == [CLASSICAL_CURVE, AT_ONCE, OUT_OF_SCOPE, ROBUSTNESS]
    assert sum(planned.values()) <= 110
    assert "needs 200 s" in skipped[FORGETTING]
    assert "leave 50 s" in skipped[FORGETTING]
    assert "tuneworth probe" in skipped[FORGETTING]


def test_the_classical_curve_is_set_aside_where_it_takes_next_to_nothing() -> None:
    assert set_aside(2.0, 360.0) == pytest.approx(3.8)
    assert set_aside(20.0, 1200.0) == 0.0  # 38 s are more than a fiftieth
    assert set_aside(0.0, 360.0) == 0.0


def test_what_the_verdict_needs_comes_first() -> None:
    seconds = {CLASSICAL_CURVE: 10.0, AT_ONCE: 20.0, FORGETTING: 200.0}
    planned, skipped = afford_probes(215.0, seconds, FORGETTING)
    assert list(planned) == [FORGETTING, CLASSICAL_CURVE]
    assert list(skipped) == [AT_ONCE]


def test_a_budget_that_the_arms_use_up_affords_no_probe() -> None:
    planned, skipped = afford_probes(-3.0, probe_seconds(WORK, SPEEDS))
    assert planned == {}
    assert set(skipped) == set(PROBES)
    assert all("leave 0 s" in why for why in skipped.values())
