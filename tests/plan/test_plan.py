"""Settings carry reasons; the budget is allotted whole, in the stated order, and nothing else shrinks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tuneworth.errors import InputError
from tuneworth.plan import Prompts, Rate, Rates, Rows, Trained, allot, from_openai, training_plan
from tuneworth.task import Training

ROWS = Rows(train=1000, validation=100, test=400)
PROMPTS = {"zero-shot": Prompts(), "few-shot": Prompts((2,))}
WANTED = {"lora-short": (4.0, 16), "lora-full": (4.0, 16)}


def rates(scale: float = 1.0) -> Rates:
    answer = {
        "zero-shot": Rate(1.0 * scale, 0.02 * scale),
        "few-shot": Rate(2.0 * scale, 0.03 * scale),
        "lora-short": Rate(0.5 * scale, 0.02 * scale),
        "lora-full": Rate(1.0 * scale, 0.03 * scale),
    }
    return Rates(answer, {"lora-short": 0.05 * scale, "lora-full": 0.08 * scale}, classical=2.0)


def test_every_setting_has_a_reason_and_what_the_user_fixed_stays() -> None:
    plan = training_plan(Training(epochs=2, rank=8), train_rows=10_000, width=576)
    assert plan.epochs.value == 2
    assert plan.epochs.reason == "fixed by you"
    assert (plan.rank.value, plan.alpha.value) == (8, 16)
    assert plan.learning_rate.value == pytest.approx(1e-3, rel=0.05)
    assert plan.lora_b_ratio.value == 8
    assert all(setting["reason"] and setting["source"] for setting in plan.to_json().values())


def test_wider_models_and_fewer_rows_change_the_settings_the_stated_way() -> None:
    narrow, wide = (training_plan(Training(), train_rows=1000, width=width) for width in (576, 2048))
    assert wide.learning_rate.value < narrow.learning_rate.value
    epochs = [training_plan(Training(), train_rows=rows, width=576).epochs.value for rows in (100, 1000, 3000, 10**5)]
    assert epochs == sorted(epochs, reverse=True)


def test_pairs_have_a_tenth_of_the_rate_and_one_for_both_factors_of_an_adapter() -> None:
    rows, pairs = (training_plan(Training(), train_rows=1000, width=576, preference=p) for p in (False, True))
    assert pairs.lora_b_ratio.value == 1
    assert pairs.learning_rate.value == pytest.approx(0.1 * 2 * rows.learning_rate.value, rel=0.05)


def test_the_rank_grows_with_what_is_to_be_held_and_stays_when_fixed() -> None:
    def rank(tokens: int, **fixed: int) -> float:
        chosen = Training.model_validate(fixed)
        plan = training_plan(
            chosen, train_rows=9000, width=576, trained_tokens=tokens, adapter_parameters_a_rank=300_000
        )
        return float(plan.rank.value)

    assert [rank(tokens) for tokens in (10**5, 9 * 10**6, 10**7, 3 * 10**7, 10**10)] == [16, 16, 32, 64, 256]
    assert rank(10**10, rank=8) == 8


def test_openais_hyperparameters_become_settings_and_auto_is_what_would_be_chosen() -> None:
    plain = training_plan(Training(), train_rows=1000, width=576)
    found = from_openai(
        {"n_epochs": 3, "batch_size": "auto", "learning_rate_multiplier": 0.5}, train_rows=1000, width=576
    )
    assert (found.epochs, found.batch_size) == (3, None)
    assert found.learning_rate == pytest.approx(0.5 * plain.learning_rate.value)
    auto = {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}
    assert from_openai(auto, train_rows=1000, width=576) == from_openai({}, train_rows=1000, width=576) == Training()


def test_every_wrong_hyperparameter_is_named_at_once() -> None:
    wrong = {"n_epochs": 0, "batch_size": True, "learning_rate_multiplier": "fast", "n_epoch": 3}
    with pytest.raises(InputError) as caught:
        from_openai(wrong, train_rows=10, width=64)
    told = [problem.where for problem in caught.value.problems]
    assert sorted(told) == sorted(f"hyperparameters.{name}" for name in wrong)
    assert "did you mean 'n_epochs'" in str(caught.value)


def test_with_plenty_of_time_everything_runs_in_full() -> None:
    plan = allot(3600, 10, ROWS, rates(), WANTED, PROMPTS)
    assert plan.test_rows == ROWS.test
    assert not plan.skipped
    assert {arm: trained.epochs for arm, trained in plan.trainings.items()} == pytest.approx(
        {"lora-short": 4, "lora-full": 4}, rel=0.01
    )


def test_when_time_is_short_the_short_form_is_trained_first_and_the_full_one_skipped_with_a_reason() -> None:
    plan = allot(200, 10, ROWS, rates(), WANTED, PROMPTS)
    assert list(plan.trainings) == ["lora-short"]
    assert "budget leaves" in plan.skipped["lora-full"]


def test_of_a_second_training_half_of_its_epochs_are_the_least() -> None:
    """Of the first one half an epoch is; what the second one does not get is left to what comes after."""
    plans = {budget: allot(budget, 10, ROWS, rates(), WANTED, PROMPTS) for budget in range(100, 900, 5)}
    epochs = [{arm: trained.epochs for arm, trained in plan.trainings.items()} for plan in plans.values()]
    assert min(found["lora-short"] for found in epochs if found) < 1
    second = [found for found in epochs if "lora-full" in found]
    assert min(found["lora-full"] for found in second) == pytest.approx(2, abs=0.1)
    assert all(found["lora-short"] == pytest.approx(4, abs=0.1) for found in second)


@pytest.mark.parametrize("arm", WANTED)
def test_the_budget_that_is_said_to_do_for_a_training_does(arm: str) -> None:
    budgets = [budget for budget in range(20, 400, 10) if arm in _skipped(budget)]
    assert budgets
    for budget in budgets:
        found = re.search(r"a budget of about (?:(\d+)m)?(?:(\d+)s)? would do$", _skipped(budget)[arm])
        assert found is not None, _skipped(budget)[arm]
        enough = 60 * int(found[1] or 0) + int(found[2] or 0)
        assert budget < enough < 40 * budget
        assert arm in allot(enough, 10, ROWS, rates(), WANTED, PROMPTS).trainings


def _skipped(budget: float) -> Mapping[str, str]:
    """Why arms are left out; of a budget that is too short for any prompt nothing is said."""
    try:
        return allot(budget, 10, ROWS, rates(), WANTED, PROMPTS).skipped
    except InputError:
        return {}


def test_a_set_so_small_that_an_epoch_is_few_steps_is_trained_as_asked() -> None:
    few = Rows(train=110, validation=30, test=100)
    plan = allot(600, 10, few, rates(), {"lora-short": (1.0, 16)}, PROMPTS)
    assert plan.trainings["lora-short"].steps == 7
    assert not plan.skipped


def test_when_time_is_very_short_one_test_subset_serves_all_arms() -> None:
    plan = allot(70, 10, ROWS, rates(), WANTED, PROMPTS)
    assert 100 <= plan.test_rows < ROWS.test


def test_test_rows_make_room_for_a_first_training_that_just_misses_its_least() -> None:
    slow = replace(rates(), train={"lora-short": 0.3, "lora-full": 0.5})
    full = {budget: allot(budget, 10, ROWS, slow, WANTED, PROMPTS) for budget in range(150, 330)}
    trained = [budget for budget, plan in full.items() if plan.trainings]
    # From the first budget with a training on every longer one has it, and what it cost are test rows, half at most.
    assert trained == list(range(trained[0], 330))
    first, before = full[trained[0]], full[trained[0] - 1]
    assert before.test_rows / 2 <= first.test_rows < before.test_rows
    assert "lora-short" in before.skipped and first.trainings["lora-short"].epochs >= 0.5
    assert full[329].test_rows > first.test_rows


@pytest.mark.parametrize("seeds", [1, 2])
def test_what_pairs_are_held_to_is_read_before_the_first_step_and_takes_its_part_of_the_budget(seeds: int) -> None:
    def first(budget: float, plan: Rates) -> Trained:
        return allot(budget, 10, ROWS, plan, {"lora-short": (4.0, 16)}, PROMPTS, seeds).trainings["lora-short"]

    pairs = replace(rates(), read_first=True)
    reading = 0.45 * (1000 + 100) * 0.05 * 1.12
    # Where all epochs fit, the pass comes on top of them; where not, it is steps that are given up for it.
    whole, more = first(3000, rates()), first(3000, pairs)
    assert (whole.steps, whole.reading_seconds) == (more.steps, 0.0)
    assert more.reading_seconds == pytest.approx(reading)
    assert more.seconds - whole.seconds == pytest.approx(seeds * reading)
    part, fewer = first(170 * seeds, rates()), first(170 * seeds, pairs)
    assert (part.steps - fewer.steps) * 16 * 0.05 * 1.12 == pytest.approx(reading, abs=16 * 0.05 * 1.12)
    assert fewer.steps_in(fewer.seconds, seeds) == fewer.steps
    assert fewer.steps_in(fewer.seconds + seeds * 10 * 16 * 0.05 * 1.12, seeds) == fewer.steps + 10


def test_a_budget_that_cannot_ask_every_prompt_leaves_out_the_dearest_and_says_what_would_do() -> None:
    dear = Rates({**rates().answer, "few-shot": Rate(once=1.0, a_row=5.0)}, rates().train, rates().classical)
    plan = allot(200, 10, ROWS, dear, WANTED, PROMPTS)
    assert "few-shot" in plan.skipped
    assert "few-shot" not in plan.seconds
    assert "zero-shot" in plan.seconds
    assert "lora-short" in plan.trainings
    assert sum(plan.seconds.values()) == pytest.approx(200)


def test_a_budget_that_cannot_ask_the_model_is_refused_with_one_that_can() -> None:
    with pytest.raises(InputError, match="too short") as caught:
        allot(12, 10, ROWS, rates(), WANTED, PROMPTS)
    cure = caught.value.problems[0].cure
    least = float(cure.removeprefix("give it at least ").removesuffix("s"))
    assert allot(least, 10, ROWS, rates(), WANTED, PROMPTS).test_rows >= 100


@given(st.floats(30, 5000), st.floats(0, 20), st.floats(0.2, 5))
def test_the_parts_add_up_to_the_budget_and_the_reserve_is_kept(budget: float, spent: float, scale: float) -> None:
    try:
        plan = allot(budget, spent, ROWS, rates(scale), WANTED, PROMPTS)
    except InputError:
        assume(False)
    assert sum(plan.seconds.values()) == pytest.approx(budget)
    assert plan.seconds["reserve"] >= 0.03 * budget - 1e-6
    assert all(seconds >= 0 for seconds in plan.seconds.values())
    assert (set(plan.trainings) | set(plan.skipped)) - set(PROMPTS) == set(WANTED)
    assert set(PROMPTS) - set(plan.skipped) <= set(plan.seconds)
    for arm, trained in plan.trainings.items():
        assert trained.steps * 16 * rates(scale).train[arm] < trained.seconds


def test_a_large_set_is_trained_on_for_fifty_steps_rather_than_not_at_all() -> None:
    def planned(train: int, budget: float, answer: float = 0.02) -> Trained | None:
        given = replace(rates(), answer={**rates().answer, "lora-short": Rate(0.5, answer)})
        asked = {"lora-short": (3.0, 16)}
        try:
            return allot(budget, 30.0, Rows(train, 100, 100), given, asked, {"zero-shot": Prompts()}).trainings.get(
                "lora-short"
            )
        except InputError:
            return None

    def least(train: int, answer: float = 0.02) -> Trained:
        return next(found for budget in range(50, 900) if (found := planned(train, budget, answer)) is not None)

    assert planned(100_000, 240.0) is not None  # half of the rows would take hours
    steps = {found.steps for rows in (50_000, 100_000) if (found := planned(rows, 240.0)) is not None}
    assert len(steps) == 1
    assert least(100_000).steps == pytest.approx(50, abs=2)
    assert least(1_000).steps == pytest.approx(32, abs=2)  # half an epoch of a small set
    # Looks that are dear are fewer rather than that nothing is trained.
    assert least(100_000).evaluations == least(100_000, answer=0.5).evaluations == 1
    dear = planned(100_000, 900.0, answer=0.5)
    assert dear is not None
    assert dear.evaluations == 4
