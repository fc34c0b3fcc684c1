"""The learning curve: known curves are found again, and the advice follows from them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from tuneworth.decision import CurvePoint, LearningCurve
from tuneworth.decision.curve import fitted_curve, score_band
from tuneworth.decision.statistics import mean_interval


def _measured(scores: list[float], rows: tuple[int, ...] = (125, 250, 500, 1_000), judged: int = 400) -> LearningCurve:
    points = []
    for size, score in zip(rows, scores, strict=True):
        right = np.zeros(judged)
        right[: round(score * judged)] = 1
        points.append(CurvePoint(size, float(right.mean()), mean_interval(right, True, 0.95)))
    return LearningCurve(tuple(points), "lora-short")


def test_a_flat_curve_says_stop() -> None:
    curve = fitted_curve(_measured([0.90, 0.90, 0.90, 0.90], judged=20_000), 0.03)
    assert curve.gain == pytest.approx(0, abs=0.01)
    assert curve.advice is not None and curve.advice.startswith("Stop labelling")


def test_a_steep_curve_says_label_more_and_how_many() -> None:
    curve = fitted_curve(_measured([0.35, 0.48, 0.61, 0.72]), 0.01)
    assert curve.gain is not None and curve.interval is not None
    assert 0.04 < curve.gain < 0.14 and curve.interval[0] < curve.gain < curve.interval[1]
    assert curve.advice is not None and curve.advice.startswith("Label about ")
    assert [rows for rows, _, _ in curve.band][-1] == pytest.approx(2_000)
    assert all(0 <= low <= high <= 1 for _, low, high in curve.band)


def test_the_band_holds_the_next_score_as_often_as_it_says() -> None:
    rng, held, draws = np.random.default_rng(0), 0, 60
    rows = np.array([125, 250, 500, 1_000, 2_000])
    for _ in range(draws):
        ceiling, level, rate = rng.uniform(0.8, 1), rng.uniform(-1, 2), rng.uniform(0.2, 1.2)
        # One set of rows judges all points, so most of the chance is shared.
        scores = ceiling * expit(level + rate * np.log(rows / 1_000)) + rng.normal(0, 0.015) + rng.normal(0, 0.008, 5)
        scores = np.clip(scores, 0, 1).tolist()
        low, high = score_band(_measured(scores[:4]).points, 2_000)
        held += low <= scores[4] <= high
    assert held >= 0.85 * draws


def test_two_points_are_no_curve() -> None:
    curve = _measured([0.5, 0.6], (100, 200))
    assert fitted_curve(curve, 0.01) is curve and curve.to_json()["at_double"] is None


def test_what_was_written_is_read_again() -> None:
    curve = fitted_curve(_measured([0.35, 0.48, 0.61, 0.72]), 0.01)
    assert LearningCurve.from_json(curve.to_json()) == curve
