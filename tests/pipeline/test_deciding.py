"""What the decision is told of an arm, from its record."""

from __future__ import annotations

from typing import Any

import pytest

from tuneworth.pipeline.deciding import epochs_of


@pytest.mark.parametrize(
    ("family", "settings", "told"),
    [
        ("fine-tune", {"epochs": 0.234, "ended": "steps"}, (0.234, 3.0)),
        ("fine-tune", {"epochs": 0.9, "ended": "time"}, (0.9, 3.0)),
        ("fine-tune", {"epochs": 0.9, "ended": "patience"}, None),  # it had its time
        ("fine-tune", {}, None),  # at an endpoint of its own
        ("fine-tune", None, None),
        ("prompt", {"epochs": 0.1}, None),
    ],
)
def test_epochs_count_where_the_budget_had_a_say_in_them(
    family: str, settings: dict[str, Any] | None, told: tuple[float, float] | None
) -> None:
    assert epochs_of({"family": family, "settings": settings}, 3.0) == told
