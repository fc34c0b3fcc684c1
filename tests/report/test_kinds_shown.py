"""What kinds measure beside the score: every arm a column, what is missing said, hostile names harmless."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sample import sample

from tuneworth.report import render_report
from tuneworth.report.kinds import calibration, fields, further_metrics, judged, not_allowed, turns

EVIL = "<script>alert(1)</script>"
METRICS = {
    "exact_object": 0.62,
    "schema_valid": None,
    "length_ratio": 1.25,
    "why_invalid": {EVIL: 7, "no JSON object": 9},
    "fields": [
        {"field": "intent", "values": 60, "precision": 0.98, "recall": 0.97, "f1": 0.975},
        {"field": EVIL, "values": 4, "precision": None, "recall": 0.0, "f1": 0.0},
    ],
    "none_of_these": {"label": "none", "rows": 12, "recall": 0.5, "precision": None},
}


def arm(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "metrics": METRICS, **more}


def test_every_number_is_shown_for_every_arm_and_a_missing_one_is_not_invented() -> None:
    table = further_metrics([arm("a"), {"name": "b", "metrics": {"exact_object": 1.0}}])
    assert table is not None
    cells = {row[0]: row[1:] for row in table.rows}
    assert cells["exact object"] == ["62.0 %", "100.0 %"]
    assert cells["answers that fit the schema"] == ["not measured", "not measured"]
    assert cells["words written over words wanted"] == ["1.25", "not measured"]
    assert cells["none of these: rows"] == ["12", "not measured"]
    assert further_metrics([{"name": "a"}]) is None


def test_the_worst_field_comes_first_and_one_never_answered_says_so() -> None:
    table = fields([arm("a")])
    assert table is not None
    assert [row[0] for row in table.rows] == [EVIL, "intent"]
    assert table.rows[0][2] == "never answered, 0.0 %"
    assert fields([{"name": "a"}]) is None


def test_turns_and_what_is_not_allowed_are_counted() -> None:
    table = turns([arm("a", turns=[{"turn": 1, "rows": 3, "nats_per_token": 1.5}]), arm("b")])
    assert table is not None
    assert table.rows == [["turn 1", "3", "1.500"]]
    refused = not_allowed([arm("a")])
    assert refused is not None
    assert [row[2] for row in refused.rows] == ["no JSON object", EVIL]


def test_a_judge_and_calibration_are_shown_and_what_was_not_measured_says_why() -> None:
    bins = [{"low": 0.9, "high": 1.0, "rows": 40, "confidence": 0.95, "right": 0.8}]
    sure = arm("a", tone="classical", calibration={"error": 0.15, "rows": 40, "bins": bins, "why": None})
    silent = arm("b", tone="prompt", calibration={"error": None, "rows": 0, "bins": [], "why": EVIL})
    table = calibration([sure, silent])
    assert table is not None
    assert table.rows == [
        ["a", "15.0 %", "40", "95.0 % sure, 80.0 % right (40 rows)"],
        ["b", f"not measured: {EVIL}", "-", "-"],
    ]
    said = {"model": EVIL, "rows": 30, "score": None, "no_verdict": 30, "why_no_verdict": {EVIL: 30}}
    heard = judged([arm("a", judge=said), arm("b")])
    assert heard is not None
    assert heard.rows == [["a", "not measured", "30", f"30 (30 times {EVIL})", "not measured"]]
    run = sample()
    arms = [{**one, "judge": said, "calibration": sure["calibration"]} for one in run.arms]
    page = render_report(replace(run, arms=arms))
    assert EVIL not in page
    assert page.count('id="reliability-lines-t"') == 1
    # Ten bins and the sentence about them are shown to their end.
    ten = [{"rows": 40 + n, "confidence": 0.1 * n + 0.05, "right": 0.5} for n in range(10)]
    many = [{**one, "calibration": {"error": 0.2, "rows": 445, "bins": ten}} for one in run.arms]
    page = render_report(replace(run, arms=many))
    assert "95.0 % sure, 50.0 % right (49 rows)" in page and "probability of its own answer count." in page
    assert 'id="reliability-lines-t"' not in render_report(run)


def test_names_from_the_data_stay_text_in_the_page() -> None:
    run = sample()
    page = render_report(replace(run, arms=[{**one, "metrics": METRICS} for one in run.arms]))
    assert EVIL not in page
    assert "&lt;script&gt;" in page
    assert page.count('id="measures"') == 1
