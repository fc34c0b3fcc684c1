"""The probes in the plan: what each will take on this machine, and which of them the budget affords."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tuneworth.evaluation.arms import Bench
from tuneworth.evaluation.curve import JUDGING_ROWS, curve_sizes
from tuneworth.evaluation.forgetting import tokens_of_knowledge
from tuneworth.evaluation.general import general_requests
from tuneworth.evaluation.load import MOMENTS
from tuneworth.evaluation.local import LocalModel
from tuneworth.evaluation.perturbing import PERTURBATIONS, reformed
from tuneworth.evaluation.prompts import SHORT
from tuneworth.evaluation.robustness import ROWS
from tuneworth.plan import EVALUATIONS, Rates, training_plan
from tuneworth.plan.budget import reserve_seconds
from tuneworth.plan.probing import FORGETTING, Point, Speeds, Work, afford_probes, probe_seconds

_SAMPLE = 64  # rows whose tokens are counted


def add_probes(
    plan: dict[str, Any], bench: Bench, local: LocalModel, rates: Rates, validation_rows: int
) -> dict[str, Any]:
    """`plan` (the content of plan.json) with the probes that its reserve affords; `validation_rows` are all there are.

    Each probe is named with its predicted seconds; those that are planned have an entry in the budget too.
    """
    budget = dict(plan["budget"])
    width = local.model.config.hidden_size
    points = [curve_point(bench, size, width) for size in curve_sizes(len(bench.train))[:-1]]
    short = bench.form(SHORT)
    passes = {
        arm: 1 + (sum(_applies(p, bench, short) for p in PERTURBATIONS) if arm.endswith(SHORT) else len(PERTURBATIONS))
        for arm in rates.answer
    }
    work = Work(
        strangers=len(general_requests()),
        general_tokens=tokens_of_knowledge(lambda text: len(local.renderer.encode_text(text))),
        robustness_rows=min(ROWS, plan["test_rows"]),
        passes=passes,
        moments=MOMENTS,
        points=points,
        validation_rows=len(bench.validation),
        judging_rows=min(JUDGING_ROWS, validation_rows),
    )
    trained = {arm: rate for arm, rate in rates.train.items() if arm in plan["trainings"]}
    asked = {arm: rate for arm, rate in rates.answer.items() if arm in trained or arm not in rates.train}
    speeds = Speeds(asked, trained, _a_token(bench, local, rates), rates.classical)
    seconds = probe_seconds(work, speeds)
    left = budget["reserve"] - reserve_seconds(sum(budget.values()))
    # A limit on forgetting can only be kept where forgetting is measured.
    needed = FORGETTING if bench.task.decision.largest_forgetting is not None else None
    planned, skipped = afford_probes(left, seconds, needed)
    budget["reserve"] -= sum(planned.values())
    reserve = budget.pop("reserve")
    probes = {name: {"seconds": seconds[name], "why": skipped.get(name)} for name in seconds}
    before = plan["predicted"]["seconds"]
    whole = before + sum(planned.values())
    expected = plan["predicted"] | {"seconds": whole, "usd": plan["predicted"]["usd"] * whole / before}
    return plan | {"budget": {**budget, **planned, "reserve": reserve}, "predicted": expected, "probes": probes}


def curve_point(bench: Bench, size: int, width: int) -> Point:
    """How a training on `size` rows is done: by the same rule as a run that had no more of them."""
    preference = bench.kind == "preference"
    settings = training_plan(bench.task.training, train_rows=size, width=width, preference=preference)
    batch_size = int(settings.batch_size.value)
    return Point(math.ceil(float(settings.epochs.value) * size / batch_size), batch_size, EVALUATIONS)


def predicted(plan: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of each probe that has something to probe; none in the plan of a run made before there were probes."""
    return {name: float(entry["seconds"]) for name, entry in plan.get("probes", {}).items()}


def _applies(perturbation: Any, bench: Bench, form: Any) -> bool:
    return reformed(form, perturbation, bench.scoring.labels, 0) is not None


def _a_token(bench: Bench, local: LocalModel, rates: Rates) -> float:
    """Training seconds a token: of the quickest arm, whose prompt is the shortest."""
    rows, _ = local.learnable(bench.form(SHORT), bench.train[:_SAMPLE], bench.kind)
    tokens = sum(len(row.ids) for row in rows) / max(1, len(rows))
    return min(rates.train.values(), default=0.0) / max(1.0, tokens)
