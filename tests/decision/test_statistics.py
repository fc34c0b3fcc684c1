"""Intervals and tests against numbers worked out by hand, and against their own promises by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import xlogy
from scipy.stats import binom, binomtest, bootstrap, ttest_1samp

from tuneworth.decision.power import rows_to_decide, smallest_detectable_difference
from tuneworth.decision.records import Comparison
from tuneworth.decision.statistics import (
    SeedSpread,
    compare,
    difference_intervals,
    exact_interval,
    holm,
    mcnemar_exact,
    mean_interval,
    mean_intervals,
    share_interval,
    spread,
    tango_interval,
    wilson_interval,
    with_seeds,
)


def test_wilson_equals_the_published_example() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857-872, table I: 81 of 263 and 0 of 20.
    assert tuple(map(float, wilson_interval(81, 263, 0.95))) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert tuple(map(float, wilson_interval(0, 20, 0.95))) == pytest.approx((0.0, 0.1611), abs=5e-5)
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


def test_the_exact_interval_equals_scipys() -> None:
    for right, rows in ((0, 20), (3, 57), (20, 20)):
        theirs = binomtest(right, rows).proportion_ci(0.95, "exact")
        assert tuple(map(float, exact_interval(right, rows, 0.95))) == pytest.approx((theirs.low, theirs.high))


@pytest.mark.parametrize("rows", [50, 200, 1000])
def test_the_interval_of_a_share_covers_at_every_accuracy(rows: int) -> None:
    # No simulation: the chance of each count is known. Wilson's alone falls to 84 % where few rows are right.
    counts = np.arange(rows + 1)
    low, high = share_interval(counts, rows, 0.95)
    for accuracy in np.arange(0.004, 0.5, 0.007):
        covered = float(binom.pmf(counts, rows, accuracy)[(low <= accuracy) & (accuracy <= high)].sum())
        assert covered >= 0.93
        assert covered <= 0.985 or rows * accuracy < 10


def test_without_skewness_halls_interval_is_students() -> None:
    values = np.concatenate([np.linspace(0.2, 0.8, 31), np.linspace(0.2, 0.8, 30)])
    theirs = ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values, False, 0.95) == pytest.approx((theirs.low, theirs.high), abs=2e-4)


def test_skewness_moves_the_interval_as_the_bca_bootstrap_does() -> None:
    values = np.random.default_rng(1).beta(2, 5, 200)
    theirs = bootstrap((values,), np.mean, n_resamples=9_999, method="BCa", rng=np.random.default_rng(2))
    ours = mean_interval(values, False, 0.95)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=2e-3)
    assert ours[1] - values.mean() > values.mean() - ours[0]


def test_groups_of_one_row_change_nothing() -> None:
    values = np.random.default_rng(2).beta(2, 5, 80)
    alone, grouped = spread(values), spread(values, np.arange(80))
    assert float(grouped.error) == pytest.approx(float(alone.error)) == pytest.approx(values.std(ddof=1) / 80**0.5)
    assert grouped.freedom == alone.freedom == 79


def test_rows_that_are_copies_of_each_other_count_once() -> None:
    # 40 rows five times over know what 40 rows know.
    scores = (np.random.default_rng(3).random(40) < 0.6).astype(float)
    low, high = mean_interval(np.repeat(scores, 5), True, 0.95, np.repeat(np.arange(40), 5))
    alone = wilson_interval(scores.sum(), 40, 0.95)
    assert low == pytest.approx(alone[0], abs=0.01) and high == pytest.approx(alone[1], abs=0.01)
    assert mean_interval(np.repeat(scores, 5), True, 0.95)[1] < high - 0.05


@pytest.mark.parametrize("binary", [True, False])
def test_intervals_of_grouped_rows_cover_what_they_promise(binary: bool) -> None:
    rng, draws, groups = np.random.default_rng(12), 3_000, np.repeat(np.arange(40), 5)
    level = rng.normal(0, 1, (draws, 40)).repeat(5, axis=1)
    hidden = 0.8 * level + 0.6 * rng.normal(0, 1, (draws, 200))
    scores, mean = ((hidden < 0.5).astype(float), 0.69146) if binary else (1 / (1 + np.exp(-hidden)), 0.5)
    low, high = mean_intervals(scores, binary, 0.95, groups)
    assert 0.93 <= float(((low <= mean) & (mean <= high)).mean()) <= 0.97
    low, high = mean_intervals(scores, binary, 0.95)
    assert float(((low <= mean) & (mean <= high)).mean()) < 0.85  # what taking rows for independent does


def test_a_comparison_of_grouped_rows_is_not_fooled_by_one_loud_group() -> None:
    groups = np.repeat(np.arange(10), 20)
    a = np.where(groups == 0, 1.0, 0.0)
    alone, grouped = compare(a, np.zeros(200), 0.05, 0.01), compare(a, np.zeros(200), 0.05, 0.01, groups)
    assert alone.p < 0.001 and alone.interval[0] > 0
    assert grouped.p > 0.2 and grouped.interval[0] < 0
    one = compare(a, np.zeros(200), 0.05, 0.01, np.zeros(200, dtype=np.int64))
    assert one.p == 1.0 and one.interval[1] - one.interval[0] > 0.9


def test_equal_scores_still_have_a_width() -> None:
    low, high = mean_interval(np.full(20, 0.5), False, 0.95)
    assert low < 0.4 and high > 0.6
    pair = compare(np.full(20, 0.5), np.full(20, 0.5), 0.05, 0.01)
    assert pair.p == 1.0 and pair.interval[0] < 0 < pair.interval[1] and not pair.equivalent


def test_differences_in_few_rows_have_an_interval_that_covers() -> None:
    rng, draws = np.random.default_rng(13), 4_000
    # One row in 25 differs, always to one side: Student's t covers 0.83 of these.
    differences = np.where(rng.random((draws, 50)) < 0.04, rng.beta(2, 2, (draws, 50)), 0.0)
    low, high = difference_intervals(differences, False, 0.95)
    assert float(((low <= 0.02) & (high >= 0.02)).mean()) >= 0.93


def test_the_spread_of_seeds_widens_as_variances_add() -> None:
    assert with_seeds(0.1, (0.0, 0.2), 0.95, None) == (0.0, 0.2)
    known = with_seeds(0.1, (0.1 - 1.96 * 0.03, 0.1 + 1.96 * 0.03), 0.95, SeedSpread(0.04, 10_000))
    assert known == pytest.approx((0.1 - 1.96 * 0.05, 0.1 + 1.96 * 0.05), abs=1e-4)
    few = with_seeds(0.1, (0.1 - 1.96 * 0.03, 0.1 + 1.96 * 0.03), 0.95, SeedSpread(0.04, 1))
    assert few[1] - few[0] > 1.2 * (known[1] - known[0])


def test_the_spread_of_seeds_covers_another_training() -> None:
    rng, draws = np.random.default_rng(14), 4_000
    covered = 0
    for _ in range(draws):
        seeds = rng.normal(0, 0.02, 3)
        estimate = seeds[0] + rng.normal(0, 0.02)
        interval = (estimate - 1.96 * 0.02, estimate + 1.96 * 0.02)
        low, high = with_seeds(estimate, interval, 0.95, SeedSpread(float(seeds.std(ddof=1)), 2))
        covered += low <= 0 <= high
    assert 0.935 <= covered / draws <= 0.985


def test_graded_p_agrees_with_its_interval() -> None:
    rng = np.random.default_rng(3)
    for shift in (0.0, 0.02, 0.05, 0.1):
        a, b = np.clip(rng.normal(0.5 + shift, 0.1, 80), 0, 1), np.clip(rng.normal(0.5, 0.1, 80), 0, 1)
        pair = compare(a, b, 0.05, 0.01)
        assert (pair.p < 0.05) == (pair.interval[0] > 0 or pair.interval[1] < 0)
        seeded = compare(a, b, 0.05, 0.01, seeds=SeedSpread(0.03, 2))
        assert seeded.p > pair.p and (seeded.p < 0.05) == (seeded.interval[0] > 0 or seeded.interval[1] < 0)


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


@pytest.mark.parametrize("rows", [50, 400])
def test_graded_intervals_cover_what_they_promise(rows: int) -> None:
    rng, draws = np.random.default_rng(5), 4_000
    for scores, mean in (
        (rng.beta(2, 5, (draws, rows)), 2 / 7),
        (np.where(rng.random((draws, rows)) < 0.3, rng.beta(2, 2, (draws, rows)), 0.0), 0.15),
        (np.where(rng.random((draws, rows)) < 0.9, 1.0, rng.beta(2, 2, (draws, rows))), 0.95),
    ):
        low, high = mean_intervals(scores, False, 0.95)
        covered = float(((low <= mean) & (mean <= high)).mean())
        assert covered >= 0.93 and (covered <= 0.98 or rows * min(mean, 1 - mean) < 10)


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
