"""Costs by hand: a request, a thousand right answers, a total, and where two totals cross."""

from __future__ import annotations

import numpy as np
import pytest
from deciding import PRICE, arm, right

from tuneworth.decision import machine_hour_price
from tuneworth.decision.costs import break_even, cost_curve, total_usd, usd_per_1k_correct, usd_per_request
from tuneworth.decision.wording import about, percent, points, usd

FEW = arm("few", "prompt", right(50, 100), machine_seconds_per_request=0.36)
LORA = arm("lora", "fine-tune", right(80, 100), machine_seconds_per_request=0.18, usd_to_build=0.5)


def test_the_default_price_is_dated_and_says_that_it_is_assumed() -> None:
    price = machine_hour_price(None, cores=2)
    assert (price.usd_per_machine_hour, price.source) == (0.1, "default")
    assert price.as_of and "assumption" in price.statement
    assert machine_hour_price(3.0, cores=2).source == "task"


def test_costs_by_hand() -> None:
    assert usd_per_request(FEW, PRICE) == pytest.approx(1e-5)
    assert usd_per_1k_correct(FEW, PRICE, True) == pytest.approx(0.02)
    assert usd_per_1k_correct(FEW, PRICE, False) is None
    assert usd_per_1k_correct(arm("zero", "prompt", [0, 0]), PRICE, True) is None
    assert total_usd(LORA, PRICE, 1_000_000) == pytest.approx(0.5 + 5.0)
    assert total_usd(arm("x", "prompt", [1], machine_seconds_per_request=None), PRICE, 1) is None


def test_the_break_even_is_where_the_totals_cross() -> None:
    crossing = break_even(LORA, FEW, PRICE, 0.95)
    assert crossing is not None and crossing.requests == pytest.approx(100_000)
    assert total_usd(LORA, PRICE, 100_000) == pytest.approx(total_usd(FEW, PRICE, 100_000))
    assert crossing.interval is None  # no seconds row by row
    dearer = arm("slow", "fine-tune", [1], machine_seconds_per_request=0.5, usd_to_build=1)
    never = break_even(dearer, FEW, PRICE, 0.95)
    assert never is not None and never.status == "never" and never.requests is None
    cheaper = arm("tfidf", "classical", [1], machine_seconds_per_request=0.001)
    already = break_even(cheaper, FEW, PRICE, 0.95)
    assert already is not None and already.status == "already-cheaper"
    assert break_even(arm("x", "fine-tune", [1], usd_to_build=None), FEW, PRICE, 0.95) is None


def test_the_break_even_interval_covers_the_true_crossing() -> None:
    rng, covered, draws = np.random.default_rng(9), 0, 60
    for _ in range(draws):
        slow, fast = rng.gamma(4, 0.09, 100), rng.gamma(4, 0.045, 100)
        one = arm("lora", "fine-tune", right(9, 100), row_seconds=tuple(fast), usd_to_build=0.5,
                  machine_seconds_per_request=float(fast.mean()))  # fmt: skip
        other = arm("few", "prompt", right(9, 100), row_seconds=tuple(slow),
                    machine_seconds_per_request=float(slow.mean()))  # fmt: skip
        crossing = break_even(one, other, PRICE, 0.95)
        assert crossing is not None and crossing.interval is not None
        covered += crossing.interval[0] <= 100_000 <= crossing.interval[1]
    assert covered >= 0.88 * draws


def test_an_unsteady_saving_has_no_interval() -> None:
    seconds = np.random.default_rng(10).gamma(1, 0.1, 50)
    one = arm("lora", "fine-tune", right(9, 50), row_seconds=tuple(seconds), usd_to_build=1,
              machine_seconds_per_request=0.1)  # fmt: skip
    other = arm("few", "prompt", right(9, 50), row_seconds=tuple(seconds[::-1]), machine_seconds_per_request=0.101)
    crossing = break_even(one, other, PRICE, 0.95)
    assert crossing is not None and crossing.status == "pays-back" and crossing.interval is None


def test_the_cost_curve_spans_a_thousand_to_ten_million_requests() -> None:
    curve = cost_curve([FEW, LORA, arm("x", "prompt", [1], usd_to_build=None)], PRICE, 36_000)
    assert 36_000 in [point["requests"] for point in curve]
    assert (curve[0]["requests"], curve[-1]["requests"]) == (1_000, 10_000_000)
    assert set(curve[0]["usd"]) == {"few", "lora"}
    assert curve[-1]["usd"]["lora"] == pytest.approx(0.5 + 50)


def test_numbers_in_words() -> None:
    assert (percent(0.831), percent(0.0004), percent(0.0)) == ("83.1 %", "0.04 %", "0.0 %")
    assert (points(-0.121), points(0.0)) == ("-12.1", "0.0")
    assert (usd(0), usd(12.3), usd(0.0012345), usd(15000)) == (
        "0 USD",
        "12.30 USD",
        "0.00123 USD",
        "15,000 USD",
    )
    assert (about(18_234), about(7.4), about(0.2), about(999_999)) == ("18,200", "7", "1", "1,000,000")
