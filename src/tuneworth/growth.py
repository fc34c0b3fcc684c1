"""How a score grows with the rows learnt from: a family of curves, weighed by how well they fit what was measured.

score = ceiling * logistic(level + rate * log(rows)): slow at first, steepest in the middle, and close to the ceiling an
error that falls as a power of the rows. A power law of the error alone forecasts far too little where a score is still
speeding up (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.float64]

MISFIT = 0.01
"""How far (0..1) a true curve may lie from the law."""


@dataclass(frozen=True, eq=False)
class Growth:
    """Curves [curves] with their `weight`, which sums to one; `rows` is where `level` is taken."""

    rows: float
    ceiling: Floats
    level: Floats
    rate: Floats
    weight: Floats

    @classmethod
    def through(cls, rows: Sequence[float], scores: Sequence[float], variances: Sequence[float]) -> Growth:
        """Curves through `scores` (0..1) after `rows`, each with the variance of its chance error.

        Each of a grid of curves is weighed by how well it fits, and by how high its ceiling is: ceilings just above the
        last score would explain any slope away.
        """
        sizes, values = np.asarray(rows, dtype=np.float64), np.asarray(scores, dtype=np.float64)
        top = float(min(values.max(), 1.0))
        axes = np.meshgrid(
            np.linspace(top, 1, 25), np.linspace(-4, 7, 89), np.concatenate([[0.0], np.geomspace(0.02, 2.5, 40)]),
            indexing="ij",
        )  # fmt: skip
        ceiling, level, rate = (axis.ravel() for axis in axes)
        fitted = ceiling[:, None] * expit(level[:, None] + rate[:, None] * np.log(sizes / sizes.max()))
        noise = np.asarray(variances, dtype=np.float64) + MISFIT**2
        misfit = ((values - fitted) ** 2 / noise).sum(-1)
        room = (ceiling - top + 1e-3) / (1 - top + 1e-3)
        weight = np.exp(-0.5 * (misfit - misfit.min())) * room**2
        return cls(float(sizes.max()), ceiling, level, rate, weight / weight.sum())

    def scores(self, rows: float) -> Floats:
        """The score of each curve [curves] after `rows`."""
        return np.asarray(self.ceiling * expit(self.level + self.rate * np.log(rows / self.rows)))

    def quantiles(self, values: Floats, levels: Sequence[float]) -> list[float]:
        """Weighted quantiles of what each curve says [curves]."""
        order = np.argsort(values)
        below = np.cumsum(self.weight[order])
        last = len(order) - 1
        return [float(values[order][min(int(np.searchsorted(below, level)), last)]) for level in levels]

    def mean(self, values: Floats) -> float:
        """Weighted mean of what each curve says [curves]."""
        return float((self.weight * values).sum())
