"""What the training loop is told is what the plan says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tuneworth.pipeline.settling import loop_settings
from tuneworth.plan import training_plan
from tuneworth.task import Training

WORK: Any = SimpleNamespace(task=SimpleNamespace(seed=3, training=Training()), machine=SimpleNamespace(device="cpu"))


@pytest.mark.parametrize("preference", [False, True])
def test_an_adapters_factors_learn_at_the_rates_of_the_plan(preference: bool) -> None:
    plan = training_plan(Training(), train_rows=500, width=576, preference=preference).to_json()
    told = loop_settings(WORK, plan, 40, all_weights=False)
    assert told.learning_rate == plan["learning_rate"]["value"]
    assert told.rate_shares == {"lora_B": 1.0 if preference else 8.0}


def test_all_weights_learn_at_one_rate() -> None:
    plan = training_plan(Training(method="full"), train_rows=500, width=576).to_json()
    told = loop_settings(WORK, plan, 40, all_weights=True)
    assert told.learning_rate == plan["full_learning_rate"]["value"]
    assert told.rate_shares == {}


def test_law_48_a_plan_of_before_goes_on_at_one_rate() -> None:
    plan = training_plan(Training(), train_rows=500, width=576).to_json()
    del plan["lora_b_ratio"]
    assert loop_settings(WORK, plan, 40, all_weights=False).rate_shares == {"lora_B": 1.0}
