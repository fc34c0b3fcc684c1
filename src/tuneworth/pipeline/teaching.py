"""The distilled arm's teacher: the prompting arm that is best on validation answers requests without labels.

What it answered is kept whole or not at all, so a run that was stopped does not ask, or pay, again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tuneworth.data.example import Example
from tuneworth.evaluation.arms import Bench, answered
from tuneworth.evaluation.choosing import raw_of
from tuneworth.evaluation.distilled import taught_rows
from tuneworth.evaluation.forms import Form
from tuneworth.evaluation.tuned import Before
from tuneworth.pipeline.ladder import Arm, arms_of
from tuneworth.pipeline.workshop import Workshop
from tuneworth.store.atomic import read_json, read_jsonl, write_json, write_jsonl
from tuneworth.store.run import read_arm

_ROWS, _RECORD = "taught.jsonl", "teaching.json"


class NothingTaughtError(Exception):
    """There is nothing to learn from a teacher, and why."""


def form_again(work: Workshop, bench: Bench, record: Mapping[str, Any]) -> Form | None:
    """The form that a finished arm was judged with, made again; None when it comes out as another."""
    arm = arms_of(work.task)[record["name"]]
    forms = [bench.form(arm.taught.form)] if arm.taught else []
    found = arm.asked.forms(work, bench) if arm.asked else forms
    form = next((form for form in found if form.name == record["form"]), None)
    return form if form is not None and form.messages(bench.test[0]) == record["prompt"] else None


def teach(work: Workshop, bench: Bench, name: str, requests: int) -> Before:
    """What the best prompting arm answers to the first `requests` requests of the run, and what that cost. Raises
    NothingTaughtError."""
    home = work.folder.arm(name)
    if not (home / _RECORD).is_file():
        rows, record = _taught(work, bench, name, work.splits.unlabelled[:requests])
        write_jsonl(home / _ROWS, (row.to_json() for row in rows))
        write_json(home / _RECORD, {"schema": "tuneworth.teaching/1", **record})
    record = read_json(home / _RECORD)
    rows = tuple(Example.from_json(row) for row in read_jsonl(home / _ROWS))
    told = {key: record[key] for key in ("teacher", "teachers", "asked", "taught", "dropped", "left_out")}
    if not rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in record["dropped"].items())
        raise NothingTaughtError(f"no answer of {record['teacher']} to {record['asked']} requests is usable: {reasons}")
    return Before(rows, record["seconds"], record["usd"], told)


def _taught(
    work: Workshop, bench: Bench, name: str, requests: tuple[Example, ...]
) -> tuple[tuple[Example, ...], dict[str, Any]]:
    """The rows that are learnt, and teaching.json."""
    start = time.perf_counter()
    records = [read_arm(work.folder, arm.name) for arm in arms_of(work.task).values() if _may_teach(work, arm)]
    paid: list[float | None] = []
    scores = {record["name"]: _validated(work, bench, name, record, paid) for record in records}
    known = {arm: score for arm, score in scores.items() if score is not None}
    if not known:
        raise NothingTaughtError("no prompting arm is done that could teach it")
    best = max(known, key=lambda arm: known[arm])  # among equals the one named first
    record = read_arm(work.folder, best)
    form, model = form_again(work, bench, record), work.model_of(arms_of(work.task)[best])
    assert form is not None
    bench.watcher.begin(f"{name}: {best} answers {len(requests):,} requests", len(requests))
    answers = model.answer(form, requests, model.suited(bench.scoring), bench.watcher.advance)
    rows, dropped = taught_rows(requests, answers, bench.scoring)
    paid += [model.usd(answers), record.get("build_usd", 0.0)]
    bench.watcher.note(
        f"{name}: {best} (validation {known[best]:.3f}) taught {len(rows):,} of {len(requests):,} requests"
    )
    return rows, {
        "teacher": best,
        "teachers": scores,
        "asked": len(requests),
        "taught": len(rows),
        "dropped": dict(dropped),
        "left_out": dict(work.splits.requests_left_out),
        "seconds": record["build_seconds"] + time.perf_counter() - start,
        "usd": None if None in paid else sum(usd for usd in paid if usd is not None),
    }


def _may_teach(work: Workshop, arm: Arm) -> bool:
    path = work.folder.arm_record(arm.name)
    return arm.asked is not None and path.is_file() and read_arm(work.folder, arm.name)["status"] == "done"


def _validated(
    work: Workshop, bench: Bench, name: str, record: Mapping[str, Any], paid: list[float | None]
) -> float | None:
    """An arm's score on all validation rows: that of its choice, or asked now, where it had no choice (then what that
    cost is added to `paid`). The test rows choose no teacher (LAW 7). None when it cannot be asked again."""
    form = form_again(work, bench, record)
    if form is None:
        return None
    known = record["settings"].get("validation_score")
    if known is not None:
        return float(known)
    model = work.model_of(arms_of(work.task)[record["name"]])
    bench.watcher.begin(f"{name}: {record['name']} answers validation", len(bench.validation))
    answers = answered(bench, model, form, bench.validation)
    paid.append(model.usd([raw_of(answer) for answer in answers]))
    return sum(answer.score for answer in answers) / len(answers)
