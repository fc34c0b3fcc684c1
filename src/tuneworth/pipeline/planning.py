"""The plan: measured rates, settings with reasons, the budget allotted."""

from __future__ import annotations

import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from tuneworth.decision import Price, machine_hour_price
from tuneworth.decision.power import power_in_words
from tuneworth.errors import MachineError
from tuneworth.evaluation.arms import Bench
from tuneworth.evaluation.forecast import training_disk_bytes, training_fit
from tuneworth.evaluation.prompts import FULL
from tuneworth.models.recompute import MemoryPlan
from tuneworth.models.tuning import Recipe
from tuneworth.pipeline.ladder import DISTILLED, arms_of, misfit
from tuneworth.pipeline.measuring import measure, recipe_of
from tuneworth.pipeline.probe_planning import add_probes
from tuneworth.pipeline.settling import settings_of
from tuneworth.pipeline.workshop import Workshop
from tuneworth.plan import (
    TEACHING,
    Allotment,
    Course,
    Prompts,
    Rates,
    Rows,
    Setting,
    Teachers,
    TrainingPlan,
    allot,
    with_teaching,
)
from tuneworth.plan.judging import JudgePlan
from tuneworth.plan.probing import set_aside
from tuneworth.store.atomic import read_json, write_json
from tuneworth.store.run import RunFolder

_MICRO_BATCH_TOKENS = 4096


def make_plan(work: Workshop, clock: float, plan_judging: Callable[[Workshop, Bench], JudgePlan] | None = None) -> None:
    """Measure this machine on these rows, choose the settings, allot the budget; write plan.json. What a judge takes
    is set aside before the arms get theirs."""
    bench = work.bench(len(work.splits.test))
    settings = settings_of(work, bench)
    disk_bytes = _disk_bytes(work, settings)
    memory = memory_of(work, bench, settings)
    rates = measure(work, bench, settings, memory.micro_batch_tokens)
    epochs, batch_size = float(settings.epochs.value), int(settings.batch_size.value)
    wanted = {arm: (epochs, batch_size) for arm in rates.train if arm != DISTILLED}
    rows = Rows(len(bench.train), len(bench.validation), len(bench.test))
    prompts = _prompts(work, bench)
    judging = plan_judging(work, bench) if plan_judging is not None else None
    aside = set_aside(rates.classical, work.task.budget)
    spent = time.monotonic() - clock + aside + (judging.seconds if judging else 0.0)
    allotment = allot(work.task.budget, spent, rows, rates, wanted, prompts, work.task.training.seeds)
    if DISTILLED in rates.train:
        course = Course(epochs, batch_size, work.task.training.seeds, rates.answer[DISTILLED], rates.train[DISTILLED])
        teachers = _teachers(work, rates, allotment)
        allotment = with_teaching(allotment, DISTILLED, rows, len(work.splits.unlabelled), teachers, course)
    seconds = {**allotment.seconds, "before": allotment.seconds["before"] - aside}
    seconds["reserve"] += aside  # of which the probes take it
    plan = _plan_json(work, settings, memory, rates, replace(allotment, seconds=seconds))
    plan["predicted"]["disk_bytes"] = disk_bytes
    if judging is not None:
        plan = _with_judge(plan, judging)
    plan = _with_choices(work.folder, plan)
    plan = add_probes(plan, bench, work.local, rates, len(work.splits.validation))
    write_json(work.folder.plan, plan)
    work.watcher.note(f"plan: {allotment.test_rows:,} of {rows.test:,} test rows; " + "; ".join(
        f"{arm} {trained.epochs:.1f} epochs in {trained.seconds:.0f} s" for arm, trained in allotment.trainings.items()
    ))  # fmt: skip
    decision, arms = work.task.decision, len(arms_of(work.task))
    binary = bench.scoring.metric.name in ("accuracy", "exact-match")
    work.watcher.note(power_in_words(allotment.test_rows, arms, binary, decision.confidence, decision.minimum_effect))


def _with_judge(plan: dict[str, Any], judging: JudgePlan) -> dict[str, Any]:
    """The judge's seconds come after those of the arms; until then they count as spent."""
    budget = dict(plan["budget"])
    reserve = budget.pop("reserve")
    budget["before"] -= judging.seconds
    return plan | {"judge": asdict(judging), "budget": {**budget, "judge": judging.seconds, "reserve": reserve}}


def _prompts(work: Workshop, bench: Bench) -> dict[str, Prompts]:
    """The prompting arms for the plan. No arm chooses among more forms than it has; what a task names, it needs."""
    found = {}
    for arm in arms_of(work.task).values():
        if arm.asked and not misfit(arm, bench.kind):
            available, wanted = len(arm.asked.forms(work, bench)), arm.asked.prompts
            forms = tuple(sorted({min(count, available) for count in wanted.forms}, reverse=True))
            found[arm.name] = Prompts(forms, wanted.optional and work.task.arms == "auto")
        elif arm.taught_there and not misfit(arm, bench.kind):
            found[arm.name] = Prompts()  # it answers test; how long its endpoint trains beside us nobody knows
    return found


def _teachers(work: Workshop, rates: Rates, allotment: Allotment) -> Teachers:
    """The prompting arms that are planned, of which the best will teach."""
    asked = {arm.name: rates.answer[arm.name] for arm in arms_of(work.task).values() if arm.asked}
    planned = {arm: rate for arm, rate in asked.items() if arm in allotment.forms}
    return Teachers(planned, tuple(arm for arm in planned if allotment.forms[arm] == 1))


def memory_of(work: Workshop, bench: Bench, settings: TrainingPlan) -> MemoryPlan:
    """Micro-batches that fit this machine with the largest training that is wanted, behind the full prompt."""
    largest = _largest(work, settings)
    return training_fit(work.local, bench.form(FULL), bench.train, bench.kind, largest, _MICRO_BATCH_TOKENS)


def _largest(work: Workshop, settings: TrainingPlan) -> Recipe:
    """The recipe of the arm that trains most parameters."""
    all_weights = any(arm.taught.all_weights for arm in arms_of(work.task).values() if arm.taught)
    return recipe_of(settings.to_json(), all_weights, work.task.seed)


def _with_choices(folder: RunFolder, plan: dict[str, Any]) -> dict[str, Any]:
    """`plan` with the model that a race found, and what race and search took of the time before the plan."""
    settings, budget = plan["settings"], dict(plan["budget"])
    took = {}
    for stage, path in (("race", folder.race), ("search", folder.search)):
        if path.is_file():
            took[stage] = min(budget["before"], read_json(path)["seconds"])
            budget["before"] -= took[stage]
    if folder.race.is_file():
        race = read_json(folder.race)
        model = Setting(race["winner"], f"{race['why']} (override: models)", "race").to_json()
        settings = {"model": model, **settings}
    return plan | {"settings": settings, "budget": {"before": budget.pop("before"), **took, **budget}}


def _disk_bytes(work: Workshop, settings: TrainingPlan) -> int:
    """What trainings will write at most at one time. Raises MachineError when the disk has less."""
    needed = training_disk_bytes(work.local, _largest(work, settings), work.task.training.seeds)
    free = shutil.disk_usage(work.folder.path).free
    if needed > free:
        raise MachineError(
            f"the trainings need {needed / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free",
            where=str(work.folder.path),
            cure="free some space, choose another place with --out, or train adapters (training.method: lora)",
        )
    return needed


def _memory_settings(memory: MemoryPlan) -> dict[str, Any]:
    return {
        "micro_batch_tokens": Setting(memory.micro_batch_tokens, memory.why, "measured").to_json(),
        "recompute": Setting("on" if memory.recompute else "off", memory.why, "measured").to_json(),
    }


def _plan_json(
    work: Workshop, settings: TrainingPlan, memory: MemoryPlan, rates: Rates, allotment: Allotment
) -> dict[str, Any]:
    price = machine_price(work)
    planned = sum(seconds for stage, seconds in allotment.seconds.items() if stage != "reserve")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    measured = {"reason": "measured on a few of your rows before anything started", "source": "measured"}
    rate_settings = {
        f"{arm}.answer_seconds_per_row": {"value": round(rate.a_row, 5), **measured}
        for arm, rate in rates.answer.items()
    } | {f"{arm}.train_seconds_per_row": {"value": round(rate, 5), **measured} for arm, rate in rates.train.items()}
    return {
        "schema": "tuneworth.plan/1",
        "settings": settings.to_json()
        | {
            "decoding": work.decoding.to_json(),
            "precision": work.precision.to_json(),
            "compiled_kernels": work.compiled.to_json(),
            **_memory_settings(memory),
        }
        | rate_settings,
        "predicted": {
            "seconds": planned,
            "peak_bytes": max(used, memory.peak_bytes),  # what was used while measuring is needed in any case
            "usd": planned / 3600 * price.usd_per_machine_hour,
        },
        "budget": _in_order(allotment.seconds, list(arms_of(work.task))),
        "test_rows": allotment.test_rows,
        "forms": dict(allotment.forms),
        "trainings": {arm: asdict(trained) for arm, trained in allotment.trainings.items()},
        "skipped": dict(allotment.skipped),
        "taught": allotment.taught,
        "machine": work.machine.to_json(),
    }


def _in_order(seconds: Mapping[str, float], arms: Sequence[str]) -> dict[str, float]:
    """Seconds by stage, the stages in the order in which they run."""
    stages = [stage for arm in arms for stage in ((TEACHING, arm) if arm == DISTILLED else (arm,))]
    return {stage: seconds[stage] for stage in ("before", *stages, "reserve") if stage in seconds}


def machine_price(work: Workshop) -> Price:
    """The price of an hour of this machine: the user's, or the dated default."""
    return machine_hour_price(work.task.decision.usd_per_machine_hour, work.machine.cores, len(work.machine.gpus))
