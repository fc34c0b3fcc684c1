"""Costs by hand: a request, a thousand right answers, a total, and where two totals cross."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from deciding import PRICE, arm, right

from tuneworth.decision import TokenPrice, machine_hour_price
from tuneworth.decision.costs import break_even, cost_curve, total_usd, usd_per_1k_correct, usd_per_request
from tuneworth.decision.records import Terms
from tuneworth.decision.wording import about, percent, points, usd
from tuneworth.task import Decision

TERMS = Terms(PRICE)

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
    assert total_usd(LORA, TERMS, 1_000_000) == pytest.approx(0.5 + 5.0)
    assert total_usd(arm("x", "prompt", [1], machine_seconds_per_request=None), TERMS, 1) is None


def test_the_break_even_is_where_the_totals_cross() -> None:
    crossing = break_even(LORA, FEW, TERMS, 0.95)
    assert crossing is not None and crossing.requests is not None
    assert crossing.requests.estimate == pytest.approx(100_000)
    assert total_usd(LORA, TERMS, 100_000) == pytest.approx(total_usd(FEW, TERMS, 100_000))
    assert crossing.requests.interval is None  # no seconds row by row
    dearer = arm("slow", "fine-tune", [1], machine_seconds_per_request=0.5, usd_to_build=1)
    never = break_even(dearer, FEW, TERMS, 0.95)
    assert never is not None and never.status == "never" and never.requests is None
    cheaper = arm("tfidf", "classical", [1], machine_seconds_per_request=0.001)
    already = break_even(cheaper, FEW, TERMS, 0.95)
    assert already is not None and already.status == "already-cheaper"
    assert break_even(arm("x", "fine-tune", [1], usd_to_build=None), FEW, TERMS, 0.95) is None


def test_the_break_even_interval_covers_the_true_crossing() -> None:
    rng, covered, draws = np.random.default_rng(9), 0, 60
    for _ in range(draws):
        slow, fast = rng.gamma(4, 0.09, 100), rng.gamma(4, 0.045, 100)
        one = arm("lora", "fine-tune", right(9, 100), row_seconds=tuple(fast), usd_to_build=0.5,
                  machine_seconds_per_request=float(fast.mean()))  # fmt: skip
        other = arm("few", "prompt", right(9, 100), row_seconds=tuple(slow),
                    machine_seconds_per_request=float(slow.mean()))  # fmt: skip
        crossing = break_even(one, other, TERMS, 0.95)
        assert crossing is not None and crossing.requests is not None and crossing.requests.interval is not None
        covered += crossing.requests.interval[0] <= 100_000 <= crossing.requests.interval[1]
    assert covered >= 0.88 * draws


def test_an_unsteady_saving_may_never_pay_back() -> None:
    seconds = np.random.default_rng(10).gamma(1, 0.1, 50)
    one = arm("lora", "fine-tune", right(9, 50), row_seconds=tuple(seconds), usd_to_build=1,
              machine_seconds_per_request=0.1)  # fmt: skip
    other = arm("few", "prompt", right(9, 50), row_seconds=tuple(seconds[::-1]), machine_seconds_per_request=0.101)
    crossing = break_even(one, other, TERMS, 0.95)
    assert crossing is not None and crossing.status == "pays-back"
    assert crossing.requests is not None and crossing.requests.interval is not None
    assert 0 < crossing.requests.interval[0] < crossing.requests.estimate and crossing.requests.interval[1] == math.inf
    assert crossing.requests.to_json()["interval"][1] is None


def test_right_answers_instead_of_requests_let_quality_enter() -> None:
    # FEW is right half the time and takes 2e-5 USD to be right once; LORA 6.25e-6: 0.5 USD are won back after 36,364.
    crossing = break_even(LORA, FEW, TERMS, 0.95)
    assert crossing is not None and crossing.correct is not None
    assert crossing.correct.estimate == pytest.approx(0.5 / (2e-5 - 6.25e-6))
    graded = break_even(replace(LORA, scores=(0.5,) * 100), FEW, TERMS, 0.95)
    assert graded is not None and graded.correct is None


def test_an_assumed_price_widens_a_break_even_that_hangs_on_it() -> None:
    seconds = tuple(np.random.default_rng(11).gamma(9, 0.02, 100))
    tokens = {"input_tokens": 100.0, "output_tokens": 0.0, "token_price": TokenPrice(0.2, 0.8)}
    hosted = arm("hosted", "prompt", right(50, 100), row_tokens=((100.0, 0.0),) * 100,
                 machine_seconds_per_request=None, **tokens)  # fmt: skip
    own = replace(LORA, row_seconds=seconds)
    sure = break_even(own, hosted, TERMS, 0.95)
    assumed = break_even(own, hosted, replace(TERMS, price=replace(PRICE, uncertainty_factor=1.5)), 0.95)
    assert sure is not None and sure.requests is not None and sure.requests.interval is not None
    assert assumed is not None and assumed.requests is not None and assumed.requests.interval is not None
    assert assumed.requests.interval[0] < 0.9 * sure.requests.interval[0]
    assert assumed.requests.interval[1] > 1.1 * sure.requests.interval[1]
    # The price of the one machine that did it all cancels.
    few = replace(FEW, row_seconds=seconds[::-1])
    once = break_even(own, few, TERMS, 0.95)
    both_own = break_even(own, few, replace(TERMS, price=replace(PRICE, uncertainty_factor=1.5)), 0.95)
    assert once is not None and once.requests is not None and both_own is not None and both_own.requests is not None
    assert both_own.requests.interval == pytest.approx(once.requests.interval)


def test_tokens_cost_what_the_host_asks() -> None:
    hosted = arm("hosted", "prompt", right(50, 100), machine_seconds_per_request=None, input_tokens=600.0,
                 output_tokens=20.0, token_price=TokenPrice(0.15, 0.60))  # fmt: skip
    assert usd_per_request(hosted, PRICE) == pytest.approx((600 * 0.15 + 20 * 0.60) / 1e6)
    assert usd_per_request(replace(hosted, output_tokens=None), PRICE) is None


def test_what_costs_beside_requests_by_hand() -> None:
    terms = Terms(PRICE, months=12, usd_for_labels=40.0, retrain_months=5, idle_hours_per_month=100)
    assert terms.trainings == 3  # at the start, after 5 and after 10 months
    assert total_usd(LORA, terms, 0) == pytest.approx(3 * 0.5 + 40.0 + 100 * 12 * 0.1)
    assert total_usd(FEW, terms, 0) == pytest.approx(100 * 12 * 0.1)  # learns nothing, needs a machine
    hosted = replace(FEW, token_price=TokenPrice(1.0, 1.0), input_tokens=1.0, output_tokens=1.0)
    assert total_usd(hosted, terms, 0) == 0.0
    stated = Decision(usd_for_labels=80, labels_shared_by=2, retrain_months=5, idle_hours_per_month=100)
    assert Terms.of(stated, PRICE) == terms


def test_the_cost_curve_spans_a_thousand_to_ten_million_requests() -> None:
    curve = cost_curve([FEW, LORA, arm("x", "prompt", [1], usd_to_build=None)], TERMS, 36_000)
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
