"""A training that the plan left out is looked at again when its turn comes: stages before it may have been quicker.

A plan is made of rates measured in a few seconds, and a machine that was busy just then is later as fast as ever. The
probes take what is left of a budget; a training comes before them, since without one there is no question to answer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tuneworth.evaluation.arms import Bench
from tuneworth.pipeline.ladder import Arm, arms_of
from tuneworth.pipeline.workshop import Workshop
from tuneworth.plan import TEACHING, Course, Rate, Rows, Trained
from tuneworth.plan.budget import reserve_seconds
from tuneworth.plan.probing import FORGETTING
from tuneworth.store.atomic import write_json


def second_look(work: Workshop, bench: Bench, plan: Mapping[str, Any], arm: Arm) -> Mapping[str, Any]:
    """`plan`, or what becomes of it (plan.json is written anew) when there is time now for a training that it skips."""
    settings = plan["settings"]
    rates = [settings.get(f"{arm.name}.{part}_seconds_per_row") for part in ("answer", "train")]
    if work.started is None or arm.name not in plan["skipped"] or not arm.taught or arm.taught.distils or None in rates:
        return plan
    answer, train = (float(rate["value"]) for rate in rates if rate is not None)
    epochs, batch_size = float(settings["epochs"]["value"]), int(settings["batch_size"]["value"])
    course = Course(epochs, batch_size, work.task.training.seeds, Rate(0.0, answer), train, bench.read_first)
    rows = Rows(len(bench.train), len(bench.validation), plan["test_rows"])
    budget, total, spent = plan["budget"], work.task.budget, time.monotonic() - work.started
    names = list(arms_of(work.task))
    later = {*names[names.index(arm.name) + 1 :], TEACHING, "judge"}
    if work.task.decision.largest_forgetting is not None:
        later.add(FORGETTING)
    probes = plan.get("probes", {})
    kept = {stage: seconds for stage, seconds in budget.items() if stage in later}
    left = total - spent - sum(kept.values()) - reserve_seconds(total)
    found = course.fit(left, rows, further=bool(plan["trainings"]))
    if not isinstance(found, Trained):
        return plan
    before = {stage: v for stage, v in budget.items() if stage not in {*later, *probes, "reserve"}}
    took = {stage: seconds * spent / sum(before.values()) for stage, seconds in before.items()}
    now = {**took, arm.name: found.seconds + course.answer.seconds(rows.test), **kept}
    gone = f"its time went to {arm.name}, which the plan had left out; run `tuneworth probe RUN`"
    changed = {
        **plan,
        "budget": {**now, "reserve": total - sum(now.values())},
        "trainings": {**plan["trainings"], arm.name: asdict(found)},
        "skipped": {name: why for name, why in plan["skipped"].items() if name != arm.name},
        "probes": {
            name: probe if name in kept else {**probe, "why": probe["why"] or gone} for name, probe in probes.items()
        },
    }
    write_json(work.folder.plan, changed)
    work.watcher.note(f"{arm.name}: left out by the plan, but there is time now: {found.epochs:.1f} epochs")
    return changed
