"""The search of settings in the report: every trial with what was measured of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sample import sample

from tuneworth.report import render_report

LENGTHS = [{"rows": 96, "validation_rows": 30, "score": 0.5, "interval": [0.4, 0.6]},
           {"rows": 288, "validation_rows": 60, "score": 0.61, "interval": [0.54, 0.68]}]  # fmt: skip
DONE: dict[str, Any] = {"why": None, "lengths": LENGTHS}
SEARCH: dict[str, Any] = {
    "why": "3 tries took 2m; on 30 validation rows that chose nothing the best won +2.0 points", "rows": [96, 288],
    "whole_rows": 1000, "searched": {"learning_rate": [1e-3, 4e-3], "batch_size": [8, 16]},
    "trials": [
        {"settings": {"learning_rate": 0.002, "batch_size": 16}, "status": "rule", **DONE, "seconds": 75.0},
        {"settings": {"learning_rate": 0.0031, "batch_size": 8}, "status": "won", **DONE, "seconds": 21.0},
        {"settings": {"learning_rate": 0.004, "batch_size": 8}, "status": "failed",
         "why": "<script>no number", "lengths": [], "seconds": 0},
    ],
}  # fmt: skip


def test_the_table_of_the_search_tells_settings_rows_score_interval_and_time() -> None:
    page = render_report(replace(sample(), search=SEARCH))
    part = page.partition('id="search"')[2].partition("</section>")[0]
    for told in ("by rule", "try 1", "won", "0.0031", "61.0 %", "54.0", "288", "1,000", "21s", "1m15s", "no number",
                 "Learning rate", "Batch size", "won +2.0 points"):  # fmt: skip
        assert told in part, told
    assert "<script>" not in part
    assert 'id="search"' not in render_report(sample())
    nothing = {"why": "12 s are too few for it", "trials": []}
    assert "12 s are too few" in render_report(replace(sample(), search=nothing))
