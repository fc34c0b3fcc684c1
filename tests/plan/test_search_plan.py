"""A search divides its time among many short trainings and few longer ones, or says why there is none."""

from __future__ import annotations

import pytest

from tuneworth.plan import FACTOR, Pace, SearchPlan, plan_search

PACE = Pace(load=2.0, train_a_row=0.01, answer_a_row=0.005, training=300.0)


@pytest.mark.parametrize("allowance", [60.0, 120.0, 400.0, 4000.0])
def test_what_is_planned_fits_the_allowance_and_no_training_is_longer_than_the_whole(allowance: float) -> None:
    found = plan_search(PACE, allowance, 20_000, 500, 16)
    assert isinstance(found, SearchPlan)
    assert all(
        longer == pytest.approx(FACTOR * shorter, abs=48)
        for shorter, longer in zip(found.rows, found.rows[1:], strict=False)
    )
    assert found.rows[0] >= 8 * 16
    assert found.rows[-1] <= 20_000
    counts = [found.trials, -(-found.trials // FACTOR) + 1]
    counts = [*counts, -(-counts[-1] // FACTOR) + 1][: len(found.rows)]
    learning = sum(count * rows for count, rows in zip(counts, found.rows, strict=True)) * PACE.train_a_row
    answering = (sum(counts) + counts[-1]) * found.judged * PACE.answer_a_row
    assert PACE.load + learning + answering <= found.seconds == allowance
    assert 30 <= found.judged <= 200


def test_more_time_makes_trials_longer_until_they_are_the_whole_training() -> None:
    found = [plan_search(PACE, allowance, 3000, 500, 16) for allowance in (60, 200, 400, 4000)]
    lengths = [one.rows[-1] for one in found if isinstance(one, SearchPlan)]
    assert lengths == sorted(lengths)
    assert len(lengths) == 4
    assert 3000 - 16 < lengths[-1] <= 3000


def test_with_less_time_fewer_settings_are_tried_and_with_none_the_reason_is_told() -> None:
    trials = []
    for allowance in (1000, 60, 40):
        found = plan_search(PACE, allowance, 20_000, 500, 16)
        assert isinstance(found, SearchPlan), allowance
        trials.append(found.trials)
    assert trials == [12, 8, 5]
    assert "too few for it; give a longer budget" in str(plan_search(PACE, 5, 20_000, 500, 16))
    assert "59 validation rows are too few" in str(plan_search(PACE, 1000, 20_000, 59, 16))
    assert "300 rows is too short" in str(plan_search(PACE, 1000, 300, 500, 16))
