"""What the verdict says beside the decision's own reasons."""

from __future__ import annotations

from typing import Any

from tuneworth.pipeline.deciding import cut_short


def record(name: str, epochs: float | None, family: str = "fine-tune", status: str = "done") -> dict[str, Any]:
    return {"name": name, "family": family, "status": status, "settings": {} if epochs is None else {"epochs": epochs}}


def test_a_training_that_the_budget_cut_short_is_named_with_what_it_wished_for() -> None:
    records = [
        record("lora-short", 0.234),
        record("lora-full", 2.8),
        record("distilled", 1.0, status="skipped"),
        record("few-shot", 0.1, family="prompt"),
        record("tuned@there", None),
    ]
    (sentence,) = cut_short(records, 3.0)
    assert sentence.startswith("lora-short went through its rows 0.23 times, where 3 times are wished for")
