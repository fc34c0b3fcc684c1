"""Intervals and tests for scores of test rows and for paired differences of two arms on the same rows.

Right/wrong scores: Wilson's interval for a mean, Tango's score interval and McNemar's exact test for a difference.
Graded scores: Hall's interval, a Student's t that allows for skewness. Where rows come in groups, groups and not rows
are what was drawn: the spread is that of the groups (jackknife), and counts shrink to what independent rows would
have shown. Where nearly all rows have one value, the spread says little, and each interval is widened to what is exact
for a share. All is in closed form and works on many samples at once: arrays [..., rows] give arrays [...].

How often these intervals cover, and what else was tried, is measured by `benchmarks/verdicts.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtr, ndtri, stdtr, stdtrit
from scipy.stats import binomtest, studentized_range

from tuneworth.decision.probes import Interval
from tuneworth.decision.records import Floats

Codes: TypeAlias = NDArray[np.int64]
Bounds: TypeAlias = tuple[Floats, Floats]

_HALVINGS = 42
_FEW = 10  # right or wrong rows below which Wilson's interval is widened to the exact one
_FEW_ODD = 20  # rows of another value than nearly all, below which a graded interval is widened


def wilson_interval(right: Any, rows: Any, confidence: float) -> Bounds:
    """Interval for a share, `right` of `rows` (Wilson 1927, not corrected for continuity); counts need not be whole."""
    right, rows = np.asarray(right, dtype=np.float64), np.asarray(rows, dtype=np.float64)
    z2 = float(ndtri((1 + confidence) / 2)) ** 2
    share = right / rows
    centre = share + z2 / (2 * rows)
    half = (z2 * (share * (1 - share) / rows + z2 / (4 * rows**2))) ** 0.5
    # The bounds of 0 and of all rows are exact; rounding must not move them past the share.
    low = np.where(right <= 0, 0.0, (centre - half) / (1 + z2 / rows))
    high = np.where(right >= rows, 1.0, (centre + half) / (1 + z2 / rows))
    return low, high


def exact_interval(right: Any, rows: Any, confidence: float) -> Bounds:
    """Interval for a share that covers at least as often as it says (Clopper and Pearson 1934).

    Counts need not be whole: a sum of scores in 0..1 spreads no more than right and wrong with the same mean.
    """
    right, rows = np.asarray(right, dtype=np.float64), np.asarray(rows, dtype=np.float64)
    tail = (1 - confidence) / 2
    none, all_ = right <= 0, right >= rows
    low = betaincinv(np.where(none, 1.0, right), np.maximum(rows - right, 0) + 1, tail)
    high = betaincinv(np.maximum(right, 0) + 1, np.where(all_, 1.0, rows - right), 1 - tail)
    return np.where(none, 0.0, low), np.where(all_, 1.0, high)


def share_interval(right: Any, rows: Any, confidence: float) -> Bounds:
    """Wilson's interval, widened to the exact one where fewer than ten rows are right, or wrong.

    There Wilson's covers as seldom as in 84 % of cases; elsewhere the exact one is wider than it need be.
    """
    low, high = wilson_interval(right, rows, confidence)
    few = np.minimum(right, np.asarray(rows) - right) < _FEW
    exact_low, exact_high = exact_interval(right, rows, confidence)
    return np.where(few, np.minimum(low, exact_low), low), np.where(few, np.maximum(high, exact_high), high)


def mcnemar_exact(a_only: int, b_only: int) -> float:
    """Two-sided p of McNemar's exact test: rows that only one of two arms got right fall on either with
    1/2.
    """
    discordant = a_only + b_only
    return 1.0 if discordant == 0 else float(binomtest(a_only, discordant, 0.5).pvalue)


def tango_interval(a_only: Any, b_only: Any, rows: Any, confidence: float) -> Bounds:
    """Score interval for the difference of two paired shares (Tango 1998, Statistics in Medicine 17:891-908).

    `a_only` and `b_only` count rows that only a, or only b, got right; arrays of any one shape, and so are
    the bounds. Chosen over Newcombe's method 10 and over Bonett and Price because it inverts the score test
    whose value at zero is McNemar's, so that interval and test agree, and it holds its level when few rows
    differ.
    """
    a_only, b_only = np.asarray(a_only, dtype=np.float64), np.asarray(b_only, dtype=np.float64)
    z = float(ndtri((1 + confidence) / 2))
    estimate = (a_only - b_only) / rows
    # The score falls steadily with the supposed difference: halve between the estimate and both ends at once.
    inner, outer = np.stack([estimate, estimate]), np.stack([np.full_like(estimate, -1.0), np.full_like(estimate, 1.0)])
    for _ in range(_HALVINGS):
        middle = (inner + outer) / 2
        inside = np.abs(_tango_score(middle, a_only, b_only, rows)) < z
        inner, outer = np.where(inside, middle, inner), np.where(inside, outer, middle)
    return outer[0], outer[1]


def _tango_score(supposed: Floats, a_only: Floats, b_only: Floats, rows: Any) -> Floats:
    """Standard-normal score of a supposed difference, with the restricted maximum-likelihood variance."""
    linear = -a_only - b_only + (2 * rows - a_only + b_only) * supposed
    constant = -b_only * supposed * (1 - supposed)
    b_share = (np.sqrt(np.maximum(linear**2 - 8 * rows * constant, 0)) - linear) / (4 * rows)
    variance = rows * (2 * b_share + supposed * (1 - supposed))
    return np.asarray((a_only - b_only - rows * supposed) / np.sqrt(np.maximum(variance, 1e-300)))


@dataclass(frozen=True, slots=True)
class Spread:
    """How far the mean of rows may be off, by the chance of which rows, or groups of rows, were drawn.

    `error` is the standard error of the mean, `skewness` that of its distribution, `freedom` the degrees of freedom,
    `independent_rows` how many independent rows would have shown as much, `groups` how many groups of one size there
    would be.
    """

    error: Floats
    skewness: Floats
    freedom: float
    independent_rows: Floats
    groups: float


def spread(values: Floats, groups: Codes | None = None) -> Spread:
    """The spread of the mean of `values` [..., rows], whose rows belong to `groups` [rows].

    The jackknife over groups (in linear models known as CR3), which with groups of one row is the ordinary standard
    error. Where sizes differ, degrees of freedom lie between those of rows that do not agree within their group (Kish
    1965, section 8.2) and of rows that all agree (Satterthwaite 1946), and skewness is that of the groups' sums, each
    over the root of its size, so that one large group is not taken for a long tail.
    """
    rows = values.shape[-1]
    centred = values - values.mean(axis=-1, keepdims=True)
    parts, sizes = centred, np.ones(rows)
    if groups is not None:
        order = np.argsort(groups, kind="stable")
        starts = np.flatnonzero(np.diff(groups[order], prepend=groups[order][0] - 1))
        parts = np.add.reduceat(centred[..., order], starts, axis=-1)
        sizes = np.diff(np.append(starts, rows)).astype(np.float64)
    count, even = len(sizes), float(rows**2 / (sizes**2).sum())
    if count < 2:  # nothing shows how groups differ
        shape = values.shape[:-1]
        return Spread(np.full(shape, np.inf), np.zeros(shape), 1.0, np.ones(shape), 1.0)
    parts = parts / (1 - sizes / rows)
    squares = (parts**2).sum(axis=-1)
    variance = squares * (count - 1) / count / rows**2
    alone = (centred**2).sum(axis=-1) / (rows * max(rows - 1, 1))
    known = squares > 0
    alike = parts / np.sqrt(sizes)
    second = (alike**2).mean(axis=-1)
    tail = (alike**3).mean(axis=-1) / np.where(known, second, 1) ** 1.5
    skewness = np.where(known, tail, 0.0) * (sizes**1.5).sum() / rows**1.5
    # Groups that seem to spread less than single rows do so by chance; where nothing spreads, each may be one row.
    independent = np.where(known, rows * np.minimum(1, alone / np.where(known, variance, 1)), even)
    agreeing = float((sizes**2).sum() ** 2 / (sizes**4).sum())
    freedom = max((even - 1) * (agreeing - 1), 1.0) ** 0.5
    return Spread(np.sqrt(variance), skewness, freedom, independent, even)


def shrunk_rows(found: Spread, rows: int, confidence: float, grouped: bool) -> Floats:
    """Independent rows that show as much, fewer still where few groups tell the spread (Korn and Graubard 1998)."""
    if not grouped:
        return np.full(np.shape(found.error), float(rows))
    level = (1 + confidence) / 2
    return np.asarray(found.independent_rows * (ndtri(level) / stdtrit(found.freedom, level)) ** 2)


def skewed_interval(mean: Floats, found: Spread, confidence: float) -> Bounds:
    """Interval for a mean: Student's t through Hall's cubic, which takes its skewness away (Hall 1992, JRSS B 54:221).

    Chosen over the BCa bootstrap, to which it is equal in the second order: it covers more often where few rows
    differ, needs no random numbers, and takes no time.
    """
    quantile = float(stdtrit(found.freedom, (1 + confidence) / 2))
    return mean - found.error * _unskewed(quantile, found.skewness), mean - found.error * _unskewed(
        -quantile, found.skewness
    )


def _unskewed(level: float, skewness: Floats) -> Floats:
    """The studentised mean at which Hall's cubic is `level`."""
    flat = np.abs(skewness) < 1e-9
    slope = np.where(flat, 1.0, skewness)
    return np.where(flat, level, 3 / slope * (np.cbrt(1 + slope * (level - slope / 6)) - 1))


def _skewed_p(mean: Floats, found: Spread) -> Floats:
    """Two-sided p of a zero mean: the level at which Hall's interval begins to hold zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(found.error > 0, mean / found.error, np.where(mean == 0, 0.0, np.inf))
    skewness = found.skewness
    cubic = t + skewness / 3 * t**2 + skewness**2 / 27 * t**3 + skewness / 6
    p = 2 * stdtr(found.freedom, -np.abs(cubic))
    return np.where(np.abs(t) == np.inf, 0.0, np.minimum(1.0, p))


def _odd_rows(values: Floats, usual: Sequence[float]) -> Floats:
    """How many rows have another value than nearly all, which is one of `usual` or the first row's."""
    same = [(values == value).sum(axis=-1) for value in usual]
    same.append((values == values[..., :1]).sum(axis=-1))
    return np.asarray(values.shape[-1] - np.max(same, axis=0), dtype=np.float64)


def mean_intervals(scores: Floats, binary: bool, confidence: float, groups: Codes | None = None) -> Bounds:
    """Intervals for the means of scores in 0..1 [..., rows], whose rows may belong to `groups` [rows]."""
    found, rows = spread(scores, groups), scores.shape[-1]
    total, mean = scores.sum(axis=-1), scores.mean(axis=-1)
    shrunk = shrunk_rows(found, rows, confidence, groups is not None)
    if binary:
        if groups is not None:
            # Few right or wrong rows do not show how they gather in groups: then each group counts as one row.
            few = np.minimum(mean, 1 - mean) * shrunk < _FEW
            shrunk = np.where(few, np.minimum(shrunk, found.groups * shrunk / found.independent_rows), shrunk)
        return share_interval(mean * shrunk, shrunk, confidence)
    low, high = skewed_interval(mean, found, confidence)
    few = _odd_rows(scores, (0.0, 1.0)) * shrunk / rows < _FEW_ODD
    exact_low, exact_high = exact_interval(total / rows * shrunk, shrunk, confidence)
    low, high = np.where(few, np.minimum(low, exact_low), low), np.where(few, np.maximum(high, exact_high), high)
    return np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)


def difference_intervals(
    differences: Floats, binary: bool, confidence: float, groups: Codes | None = None
) -> tuple[Floats, Floats]:
    """Intervals for the means of paired differences in -1..1 [..., rows]; `binary` when all are -1, 0 or 1."""
    found, rows = spread(differences, groups), differences.shape[-1]
    shrunk = shrunk_rows(found, rows, confidence, groups is not None)
    if binary:
        shares = ((differences > 0).mean(axis=-1), (differences < 0).mean(axis=-1))
        return tango_interval(shares[0] * shrunk, shares[1] * shrunk, shrunk, confidence)
    low, high = skewed_interval(differences.mean(axis=-1), found, confidence)
    few = _odd_rows(differences, (0.0,)) * shrunk / rows < _FEW_ODD
    wide_low, wide_high = _exact_difference(differences, shrunk, confidence)
    low, high = np.where(few, np.minimum(low, wide_low), low), np.where(few, np.maximum(high, wide_high), high)
    return np.clip(low, -1.0, 1.0), np.clip(high, -1.0, 1.0)


def _exact_difference(differences: Floats, rows: Floats, confidence: float) -> Bounds:
    """What is gained less what is lost, each with its exact interval, combined by their squares (Zou and Donner 2008,
    Statistics in Medicine 27:1693-1702)."""
    gained, lost = np.maximum(differences, 0).mean(axis=-1), np.maximum(-differences, 0).mean(axis=-1)
    gained_low, gained_high = exact_interval(gained * rows, rows, confidence)
    lost_low, lost_high = exact_interval(lost * rows, rows, confidence)
    estimate = gained - lost
    return (
        estimate - np.hypot(gained - gained_low, lost_high - lost),
        estimate + np.hypot(gained_high - gained, lost - lost_low),
    )


def mean_interval(scores: Floats, binary: bool, confidence: float, groups: Codes | None = None) -> Interval:
    """Interval for the mean of one arm's scores [rows]."""
    low, high = mean_intervals(scores, binary, confidence, groups)
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class SeedSpread:
    """Standard deviation of a score between trainings with other seeds, seen over `freedom` + 1 of them."""

    deviation: float
    freedom: int


def with_seeds(estimate: float, interval: Interval, confidence: float, seeds: SeedSpread | None) -> Interval:
    """`interval` widened by what training again with another seed would change.

    Variances add; the quantile is Student's with the degrees of freedom of their sum (Satterthwaite 1946).
    """
    if seeds is None or seeds.deviation == 0:
        return interval
    z = float(ndtri((1 + confidence) / 2))
    bounds = []
    for end in interval:
        rows = ((end - estimate) / z) ** 2
        variance = rows + seeds.deviation**2
        freedom = seeds.freedom * (variance / seeds.deviation**2) ** 2
        half = float(stdtrit(freedom, (1 + confidence) / 2)) * variance**0.5
        bounds.append(estimate + (half if end >= estimate else -half))
    return bounds[0], bounds[1]


@dataclass(frozen=True, slots=True)
class Paired:
    """One paired comparison before correction of its p for others; see records.Comparison."""

    difference: float
    interval: Interval
    p: float
    test: str
    equivalent: bool
    variance: float
    skewness: float


def compare(
    a: Floats,
    b: Floats,
    alpha: float,
    minimum_effect: float,
    groups: Codes | None = None,
    seeds: SeedSpread | None = None,
) -> Paired:
    """Compare two arms' scores [rows] on the same rows, each interval at the two-sided level 1 - `alpha`.

    `equivalent` is the result of two one-sided tests (Schuirmann 1987): the 1 - 2 alpha interval lies inside
    +-minimum_effect. `seeds` is the spread of the difference between trainings.
    """
    differences = a - b
    binary = bool(np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all())
    difference = float(np.rint(differences.sum()) / len(a)) if binary else float(differences.mean())
    found = spread(differences, groups)

    def interval(confidence: float) -> Interval:
        low, high = difference_intervals(differences, binary, confidence, groups)
        return with_seeds(difference, (float(low), float(high)), confidence, seeds)

    p, test = _test(differences, binary, found, groups is not None)
    if seeds is not None and seeds.deviation > 0:
        p = max(p, _level_of_zero(interval))
    low, high = interval(1 - 2 * alpha)
    equivalent = -minimum_effect < low and high < minimum_effect
    unknown = not np.isfinite(found.error)
    variance = 1.0 if unknown else float(found.error) ** 2 * len(a) * (len(a) - 1) / len(a)
    skewness = float(found.skewness) * len(a) ** 0.5
    return Paired(difference, interval(1 - alpha), p, test, equivalent, variance, skewness)


def _test(differences: Floats, binary: bool, found: Spread, grouped: bool) -> tuple[float, str]:
    if binary and not grouped:
        return mcnemar_exact(int((differences > 0).sum()), int((differences < 0).sum())), "mcnemar-exact"
    if not np.isfinite(found.error):
        return 1.0, "one-group"
    if binary:
        discordant = np.abs(differences).sum()
        shrunk = float(found.independent_rows) / len(differences)
        score = float(differences.sum() / np.sqrt(max(discordant, 1)) * shrunk**0.5)
        return float(2 * stdtr(found.freedom, -abs(score))), "mcnemar-grouped"
    if np.ptp(differences) == 0 and not grouped:
        # The sign test: rows that all differ in one direction.
        return (1.0 if differences[0] == 0 else 2.0 ** (1 - len(differences))), "sign-test"
    name = "paired-t-grouped" if grouped else "paired-t-skewed"
    return float(_skewed_p(differences.mean(), found)), name


def _level_of_zero(interval: Callable[[float], Interval]) -> float:
    """The p at which an interval begins to hold zero."""
    low, high = 1e-12, 1.0
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        ends = interval(1 - middle)
        low, high = (middle, high) if ends[0] <= 0 <= ends[1] else (low, middle)
    return high


@lru_cache(maxsize=256)
def pairwise_level(arms: int, alpha: float) -> float:
    """The level of each pair at which, among all pairs of `arms` alike arms, one errs in `alpha` of cases.

    Tukey's studentised range: it holds for the best arm with each other, although the best is chosen by its score, and
    errs less often than it says where some pairs are more alike than others (Hayter 1984, Annals of Statistics 12:61).
    """
    if arms <= 2:
        return alpha
    return float(2 * ndtr(-studentized_range.ppf(1 - alpha, arms, np.inf) / 2**0.5))


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for being several (Holm 1979), in the order given."""
    count = len(p_values)
    adjusted, largest = [0.0] * count, 0.0
    for rank, index in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
