"""Whether more rows would help: the curve, its forecast, and where nothing is said."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from topics import TOPICS, texts_on
from tuneworth.data.fitness import detectable
from tuneworth.data.plain import features_of
from tuneworth.data.size import Curve, _gain_at_double, learning_curve

TEXTS = [text for topic in TOPICS for text in texts_on(topic, 40)]
LABELS = [topic for topic in TOPICS for _ in range(40)]


def curve_of(texts: list[str], labels: list[str], rows: int) -> Curve | None:
    return learning_curve(features_of(texts), labels, rows)


def test_a_curve_has_four_sizes_and_an_interval_around_its_forecast():
    curve = curve_of(TEXTS, LABELS, len(TEXTS))
    assert curve is not None
    assert [point.rows for point in curve.points] == [16, 32, 64, 128]
    assert curve.points[-1].score > 0.9
    assert 0 <= curve.interval[0] <= curve.gain <= curve.interval[1]
    assert curve == curve_of(TEXTS, LABELS, len(TEXTS))
    assert curve.to_json()["at_double"]["rows"] == 320  # type: ignore[index]


@pytest.mark.parametrize(("ceiling", "level", "rate"), [(1.0, 0.0, 0.7), (0.95, 2.0, 1.0), (1.0, 3.0, 0.5)])
def test_the_forecast_holds_on_a_curve_that_follows_the_law(ceiling, level, rate):
    sizes = np.array([1_000, 2_000, 4_000, 8_000])
    scores = ceiling * expit(level + rate * np.log(sizes / 10_000))
    gain, (low, high) = _gain_at_double(sizes, scores, 8_000, 10_000)
    truth = ceiling * (expit(level + rate * np.log(2)) - expit(level))
    assert low <= truth <= high
    assert gain == pytest.approx(truth, abs=0.02)


def test_a_flat_curve_promises_nothing():
    gain, (low, high) = _gain_at_double(np.array([100, 200, 400, 800]), np.full(4, 0.9), 2_000, 1_000)
    assert low < 0.005
    assert gain < 0.02
    assert high < 0.05


def test_the_forecast_of_a_sample_starts_at_all_rows():
    near, far = (curve_of(TEXTS, LABELS, rows) for rows in (160, 16_000))
    assert near is not None
    assert far is not None
    assert far.gain < near.gain
    assert far.rows == 16_000


@pytest.mark.parametrize(("texts", "labels"), [(TEXTS[:79], LABELS[:79]), (TEXTS, ["a"] * 160)])
def test_where_nothing_can_be_told_there_is_no_curve(texts, labels):
    assert curve_of(texts, labels, len(texts)) is None


def test_fewer_test_rows_show_only_larger_differences():
    (small,), (large,) = detectable(300), detectable(3_000)
    assert "4.9 points" in small
    assert "1.6 points" in large
    assert detectable(3) == []
