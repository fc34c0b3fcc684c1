"""A run folder becomes report.html; nothing is computed here."""

from __future__ import annotations

from typing import Any

from tuneworth.report import ReportData, render_report
from tuneworth.store.atomic import read_json, read_jsonl, write_text
from tuneworth.store.run import RunFolder, read_arm
from tuneworth.task import load_task

_SHOWN = ("raw", "parsed", "score", "finish_reason", "error")
"""What the report tells of an answer."""


def write_report(folder: RunFolder) -> None:
    """Write report.html from what the stages wrote."""
    arms: list[dict[str, Any]] = []
    answers: dict[str, dict[str, Any]] = {}
    for name in folder.arm_names():
        record = read_arm(folder, name)
        metrics = folder.arm(name) / "training" / "metrics.jsonl"
        rows = read_jsonl(metrics) if metrics.is_file() else []
        record["training"] = {
            "metrics": [row for row in rows if "loss" in row],
            "evaluations": [row for row in rows if "validation_score" in row],
        } if rows else None  # fmt: skip
        arms.append(record)
        if record["status"] == "done":
            for row in read_jsonl(folder.arm(name) / "answers.jsonl"):
                answers.setdefault(row["id"], {})[name] = {key: row.get(key) for key in _SHOWN}
    task = load_task(folder.task).model_dump(mode="json", by_alias=True)
    data = ReportData(
        task=task, audit=read_json(folder.audit), plan=read_json(folder.plan),
        verdict=read_json(folder.verdict), arms=arms, answers=answers,
        race=read_json(folder.race) if folder.race.is_file() else None,
        search=read_json(folder.search) if folder.search.is_file() else None,
    )  # fmt: skip
    write_text(folder.report, render_report(data))
