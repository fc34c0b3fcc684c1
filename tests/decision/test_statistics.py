"""Intervals and tests against numbers worked out by hand, and against their own promises by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import xlogy
from scipy.stats import bootstrap

from tuneworth.decision.power import rows_to_decide, smallest_detectable_difference
from tuneworth.decision.records import Comparison
from tuneworth.decision.statistics import (
    BootstrapMean,
    compare,
    holm,
    mcnemar_exact,
    mean_interval,
    tango_interval,
    wilson_interval,
)


def test_wilson_equals_the_published_example() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857-872, table I: 81 of 263 and 0 of 20.
    assert wilson_interval(81, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20, 0.95) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(20, 20, 0.95)[1] == 1.0


def test_mcnemar_is_the_binomial_test_of_the_rows_that_differ() -> None:
    assert mcnemar_exact(1, 5) == pytest.approx(2 * (1 + 6) / 2**6)
    assert mcnemar_exact(3, 3) == 1.0
    assert mcnemar_exact(0, 0) == 1.0


def test_holm_equals_the_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@pytest.mark.parametrize(("a_only", "b_only", "rows"), [(0, 3, 44), (12, 5, 60), (40, 40, 100), (1, 0, 10)])
def test_tango_bounds_are_where_the_score_test_begins_to_reject(a_only: int, b_only: int, rows: int) -> None:
    # Tango's score, with its restricted maximum likelihood found numerically and not by his formula.
    for bound in tango_interval(np.array(a_only), np.array(b_only), rows, 0.95):
        supposed = float(bound)

        def unlikelihood(b_share: float, supposed: float = supposed) -> float:
            shares = np.array([b_share + supposed, b_share, 1 - supposed - 2 * b_share])
            return -float(xlogy([a_only, b_only, rows - a_only - b_only], shares).sum())

        limits = max(0.0, -supposed), (1 - supposed) / 2
        b_share = minimize_scalar(unlikelihood, bounds=limits, method="bounded", options={"xatol": 1e-10}).x
        variance = rows * (2 * b_share + supposed - supposed**2)
        assert abs(a_only - b_only - rows * supposed) / variance**0.5 == pytest.approx(1.959964, abs=1e-4)


def test_tango_excludes_zero_where_mcnemars_score_test_rejects() -> None:
    a_only, b_only = (grid.ravel() for grid in np.meshgrid(np.arange(30), np.arange(30)))
    low, high = tango_interval(a_only, b_only, 60, 0.95)
    statistic = (a_only - b_only) ** 2 / np.maximum(a_only + b_only, 1)
    assert np.array_equal((low > 0) | (high < 0), statistic > 1.959964**2)


def test_bca_equals_scipy() -> None:
    values = np.random.default_rng(1).beta(2, 5, 60)
    theirs = bootstrap((values,), np.mean, n_resamples=9_999, method="BCa", rng=np.random.default_rng(2))
    ours = mean_interval(values, False, 0.95)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=2e-3)


def test_equal_scores_still_have_a_width() -> None:
    assert BootstrapMean(np.full(20, 0.5)).interval(0.95, 0, 1) == pytest.approx((0.4194, 0.5806), abs=1e-4)
    pair = compare(np.full(20, 0.5), np.full(20, 0.5), 0.05, 0.01)
    assert pair.p == 1.0 and pair.interval[0] < 0 < pair.interval[1] and not pair.equivalent


def test_graded_p_agrees_with_its_interval() -> None:
    rng = np.random.default_rng(3)
    for shift in (0.0, 0.02, 0.05, 0.1):
        a, b = np.clip(rng.normal(0.5 + shift, 0.1, 80), 0, 1), np.clip(rng.normal(0.5, 0.1, 80), 0, 1)
        pair = compare(a, b, 0.05, 0.01)
        assert (pair.p < 0.05) == (pair.interval[0] > 0 or pair.interval[1] < 0)


@pytest.mark.parametrize("rows", [50, 200, 1000])
@pytest.mark.parametrize(("accuracy", "gain", "agreement"), [(0.5, 0.0, 0.3), (0.8, 0.05, 0.5), (0.7, 0.1, 0.8)])
def test_the_paired_interval_covers_what_it_promises(rows: int, accuracy: float, gain: float, agreement: float) -> None:
    # `agreement` of the rows both arms get right or wrong together; on the rest each is on its own.
    rng, draws = np.random.default_rng(4), 20_000
    p_a, p_b = accuracy + gain, accuracy
    both = agreement * p_b + (1 - agreement) * p_a * p_b
    shares = [p_a - both, p_b - both, 1 - p_a - p_b + 2 * both]
    counts = rng.multinomial(rows, shares, draws)
    low, high = tango_interval(counts[:, 0], counts[:, 1], rows, 0.95)
    covered = float(((low <= gain) & (gain <= high)).mean())
    assert 0.93 <= covered <= 0.97


def test_graded_intervals_cover_what_they_promise() -> None:
    rng, draws = np.random.default_rng(5), 400
    covered = 0
    for _ in range(draws):
        low, high = mean_interval(rng.beta(2, 5, 100), False, 0.95)
        covered += low <= 2 / 7 <= high
    assert 0.92 <= covered / draws <= 0.98


def test_the_smallest_detectable_difference_is_detected_in_80_percent() -> None:
    rows, discordant = 500, 0.2
    difference = smallest_detectable_difference(discordant, rows, 0.05, True)
    assert difference is not None
    shares = [(discordant + difference) / 2, (discordant - difference) / 2, 1 - discordant]
    counts = np.random.default_rng(6).multinomial(rows, shares, 20_000)
    low, _ = tango_interval(counts[:, 0], counts[:, 1], rows, 0.95)
    assert abs(float((low > 0).mean()) - 0.8) < 0.03


def test_nothing_can_be_detected_with_two_rows() -> None:
    assert smallest_detectable_difference(0.5, 2, 0.05, True) is None
    graded = smallest_detectable_difference(0.0004, 100, 0.05, False)
    assert graded == pytest.approx(2.8016 * 0.02 / 10, rel=0.05)


def test_the_rows_that_decide_decide_in_80_percent() -> None:
    pair = Comparison("a", "b", 0.05, (-0.01, 0.11), 0.1, 0.1, "mcnemar-exact", False, 0.1975, 200)
    rows = rows_to_decide(pair, 0.05, 0.01)
    assert rows is not None and rows > 200
    counts = np.random.default_rng(7).multinomial(rows, [0.125, 0.075, 0.8], 20_000)
    low, _ = tango_interval(counts[:, 0], counts[:, 1], rows, 0.95)
    assert abs(float((low > 0).mean()) - 0.8) < 0.03


def test_equal_arms_need_a_minimum_effect_to_be_decided() -> None:
    pair = Comparison("a", "b", 0.0, (-0.1, 0.1), 1.0, 1.0, "mcnemar-exact", False, 0.2, 100)
    assert rows_to_decide(pair, 0.05, 0.0) is None
    needed = rows_to_decide(pair, 0.05, 0.02)
    assert needed is not None and needed > 3000
