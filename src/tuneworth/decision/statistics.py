"""Intervals and tests for scores of test rows and for paired differences of two arms on the same rows.

Right/wrong scores: Wilson's interval for a mean, Tango's score interval and McNemar's exact test for a
difference. Graded scores: the BCa bootstrap (Efron 1987) for both. All is seeded: the same scores give the
same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest

from tuneworth.decision.probes import Interval
from tuneworth.decision.records import Floats

RESAMPLES = 9_999
_CELLS = 2_000_000  # resampled values held in memory at once
_HALVINGS = 50


def wilson_interval(right: float, rows: int, confidence: float) -> Interval:
    """Interval for a share, `right` of `rows` (Wilson 1927, without continuity correction)."""
    z2 = float(ndtri((1 + confidence) / 2)) ** 2
    share = right / rows
    centre = share + z2 / (2 * rows)
    half = (z2 * (share * (1 - share) / rows + z2 / (4 * rows**2))) ** 0.5
    # The bounds of 0 and of all rows are exact; rounding must not move them past the share.
    low = 0.0 if right == 0 else (centre - half) / (1 + z2 / rows)
    high = 1.0 if right == rows else (centre + half) / (1 + z2 / rows)
    return low, high


def mcnemar_exact(a_only: int, b_only: int) -> float:
    """Two-sided p of McNemar's exact test: rows that only one of two arms got right fall on either with
    1/2.
    """
    discordant = a_only + b_only
    return 1.0 if discordant == 0 else float(binomtest(a_only, discordant, 0.5).pvalue)


def tango_interval(a_only: Floats, b_only: Floats, rows: int, confidence: float) -> tuple[Floats, Floats]:
    """Score interval for the difference of two paired shares (Tango 1998, Statistics in Medicine 17:891-908).

    `a_only` and `b_only` count rows that only a, or only b, got right; arrays of any one shape, and so are
    the bounds. Chosen over Newcombe's method 10 and over Bonett and Price because it inverts the score test
    whose value at zero is McNemar's, so that interval and test agree, and it holds its level when few rows
    differ.
    """
    a_only, b_only = np.asarray(a_only, dtype=np.float64), np.asarray(b_only, dtype=np.float64)
    z = float(ndtri((1 + confidence) / 2))
    estimate = (a_only - b_only) / rows
    bounds = []
    for side in (-1.0, 1.0):
        # The score falls steadily with the supposed difference: halve between the estimate and the end.
        inner, outer = estimate, np.full_like(estimate, side)
        for _ in range(_HALVINGS):
            middle = (inner + outer) / 2
            inside = np.abs(_tango_score(middle, a_only, b_only, rows)) < z
            inner, outer = np.where(inside, middle, inner), np.where(inside, outer, middle)
        bounds.append(outer)
    return bounds[0], bounds[1]


def _tango_score(supposed: Floats, a_only: Floats, b_only: Floats, rows: int) -> Floats:
    """Standard-normal score of a supposed difference, with the restricted maximum-likelihood variance."""
    linear = -a_only - b_only + (2 * rows - a_only + b_only) * supposed
    constant = -b_only * supposed * (1 - supposed)
    b_share = (np.sqrt(np.maximum(linear**2 - 8 * rows * constant, 0)) - linear) / (4 * rows)
    variance = rows * (2 * b_share + supposed * (1 - supposed))
    return np.asarray((a_only - b_only - rows * supposed) / np.sqrt(np.maximum(variance, 1e-300)))


@dataclass(frozen=True, eq=False)
class BootstrapMean:
    """The bootstrap distribution of the mean of `values` [rows], read by the BCa method (Efron 1987).

    One seed serves all arms and pairs, so that equal scores give equal intervals.
    """

    values: Floats
    seed: int = 0

    @cached_property
    def constant(self) -> bool:
        """Whether all values are equal: resampling then shows nothing."""
        return bool(np.ptp(self.values) == 0)

    @cached_property
    def _means(self) -> Floats:
        rng, rows = np.random.default_rng(self.seed), len(self.values)
        chunk = max(1, _CELLS // rows)
        parts = [
            self.values[rng.integers(0, rows, (min(chunk, RESAMPLES - start), rows), dtype=np.int32)].mean(axis=1)
            for start in range(0, RESAMPLES, chunk)
        ]
        return np.sort(np.concatenate(parts))

    def _place(self, value: float) -> float:
        """Standard-normal place of `value` in the distribution, ties counted half, kept off the
        infinities.
        """
        # Sums in another order differ in their last bits; what is equal but for that counts as a tie.
        slack = 1e-12 * float(np.abs(self.values).max())
        below = np.searchsorted(self._means, value - slack, "left")
        up_to = np.searchsorted(self._means, value + slack, "right")
        share = float(below + up_to) / (2 * RESAMPLES)
        return float(ndtri(min(max(share, 0.5 / RESAMPLES), 1 - 0.5 / RESAMPLES)))

    @cached_property
    def _bias(self) -> float:
        return self._place(float(self.values.mean()))

    @cached_property
    def _acceleration(self) -> float:
        """The jackknife's skewness term, in closed form for a mean."""
        centred = self.values - self.values.mean()
        return float((centred**3).sum() / (6 * (centred**2).sum() ** 1.5))

    def interval(self, confidence: float, low: float, high: float) -> Interval:
        """Interval for the mean of values that lie in `low`..`high`.

        Equal values show only that others are rare: a share of at most z^2 / (rows + z^2), Wilson's bound for
        none of `rows`, and those as far away as the range allows.
        """
        if self.constant:
            value = float(self.values[0])
            unseen = wilson_interval(0, len(self.values), confidence)[1]
            return value - unseen * (value - low), value + unseen * (high - value)
        z = float(ndtri((1 + confidence) / 2))
        levels = []
        for tail in (-z, z):
            shifted = self._bias + tail
            levels.append(float(ndtr(self._bias + shifted / (1 - self._acceleration * shifted))))
        bounds = np.quantile(self._means, levels)
        return float(bounds[0]), float(bounds[1])

    def p_zero(self) -> float:
        """Two-sided p of a zero mean: the level at which the interval begins to hold zero. At least 1 /
        resamples.
        """
        if self.constant:
            return 1.0 if self.values[0] == 0 else 2.0 ** (1 - len(self.values))  # the sign test's p
        shifted = self._place(0.0) - self._bias
        tail = float(ndtr(shifted / (1 + self._acceleration * shifted) - self._bias))
        return min(1.0, 2 * min(tail, 1 - tail))


def mean_interval(scores: Floats, binary: bool, confidence: float, seed: int = 0) -> Interval:
    """Interval for the mean of scores in 0..1 [rows]: Wilson for right/wrong, BCa bootstrap for graded
    ones.
    """
    if binary:
        return wilson_interval(float(scores.sum()), len(scores), confidence)
    return BootstrapMean(scores, seed).interval(confidence, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Paired:
    """One paired comparison before correction of its p for others; see records.Comparison."""

    difference: float
    interval: Interval
    p: float
    test: str
    equivalent: bool
    variance: float


def compare(a: Floats, b: Floats, alpha: float, minimum_effect: float, seed: int = 0) -> Paired:
    """Compare two arms' scores [rows] on the same rows, each interval at the two-sided level 1 - `alpha`.

    `equivalent` is the result of two one-sided tests (Schuirmann 1987): the 1 - 2 alpha interval lies inside
    +-minimum_effect.
    """
    differences = a - b
    if np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all():
        a_only, b_only = int((differences > 0).sum()), int((differences < 0).sum())
        difference = (a_only - b_only) / len(a)
        p, test = mcnemar_exact(a_only, b_only), "mcnemar-exact"

        def interval(confidence: float) -> Interval:
            low, high = tango_interval(np.array(a_only), np.array(b_only), len(a), confidence)
            return float(low), float(high)
    else:
        bootstrap = BootstrapMean(differences, seed)
        difference = float(differences.mean())
        p, test = bootstrap.p_zero(), "paired-bootstrap-bca"

        def interval(confidence: float) -> Interval:
            return bootstrap.interval(confidence, -1.0, 1.0)

    low, high = interval(1 - 2 * alpha)
    equivalent = -minimum_effect < low and high < minimum_effect
    return Paired(difference, interval(1 - alpha), p, test, equivalent, float(differences.var()))


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for being several (Holm 1979), in the order given."""
    count = len(p_values)
    adjusted, largest = [0.0] * count, 0.0
    for rank, index in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
