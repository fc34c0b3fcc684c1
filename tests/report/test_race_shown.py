"""The race among models in the report: every candidate with what was measured of it, hostile names harmless."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sample import sample

from tuneworth.report import render_report

EVIL = "<script>alert(1)</script>"
MEASURED = {"round": 2, "rows": 512, "validation_rows": 200, "score": 0.61, "interval": [0.54, 0.68], "seconds": 21.0,
            "usd_per_1k_requests": 0.0123}  # fmt: skip
RACE: dict[str, Any] = {
    "winner": "model-a", "why": "the best score on validation rows", "seconds": 75.0,
    "candidates": [
        {"model": "model-a", "licence": "apache-2.0", "status": "won", "why": None, "behind": None, **MEASURED},
        {"model": EVIL, "licence": None, "status": "dropped", "why": None,
         "behind": {"model": "model-a", "difference": 0.12, "interval": [0.05, 0.19]}, **MEASURED, "score": 0.49},
        {"model": "model-c", "licence": "mit", "status": "failed", "why": "it cannot be loaded", "behind": None,
         **dict.fromkeys(MEASURED)},
    ],
    "left_out": [{"model": "model-d", "why": "its licence forbids commercial use"}],
}  # fmt: skip


def test_the_table_of_the_race_tells_score_interval_cost_licence_and_time() -> None:
    page = render_report(replace(sample(), race=RACE))
    part = page.partition('id="race"')[2].partition("</section>")[0]
    for told in ("61.0 %", "49.0 %", "54.0", "12.0 points", "apache-2.0", "0.0123", "21s", "1m15s",
                 "it cannot be loaded", "model-d", "forbids commercial use"):  # fmt: skip
        assert told in part, told
    assert EVIL not in page
    assert 'id="race"' not in render_report(sample())
