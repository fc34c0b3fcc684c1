"""The run, top to bottom: data, plan, arms, verdict, report.

Each stage writes its file whole and is skipped when the file is there, so the same command continues a run that
was stopped anywhere, and a finished one returns at once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuneworth.data.registered import pinned
from tuneworth.errors import InputError
from tuneworth.evaluation.arms import SHOT_COUNTS, classical_arm, prompt_arm, skip_arm, tuned_arm
from tuneworth.evaluation.prompts import FULL, SHORT
from tuneworth.evaluation.watching import Silent, Watcher
from tuneworth.pipeline.deciding import write_verdict
from tuneworth.pipeline.finished import Run
from tuneworth.pipeline.planning import ARMS, CLASSICAL, FEW_SHOT, LORA_FULL, ZERO_SHOT, Workshop, make_plan
from tuneworth.pipeline.preparing import locked, new_run, prepare, read_splits
from tuneworth.pipeline.reporting import write_report
from tuneworth.pipeline.trainable import trainable
from tuneworth.plan import EVALUATIONS
from tuneworth.store.atomic import read_json
from tuneworth.store.run import RunFolder
from tuneworth.task import Task, load_task
from tuneworth.training import Settings

STAGES = ("audit", "split", "plan", "baseline", "train", "evaluate", "decide", "report")


def run(task: Task, *, out: Path | None = None, until: str = "report", watcher: Watcher | None = None) -> Run:
    """Run (or continue) `task` through the stage `until` and return its folder.

    Raises InputError for mistakes in data or task, MachineError when this machine cannot do it, RunBusyError when
    another process works on the same folder.
    """
    clock = time.monotonic()
    _check_arms(task)
    task = pinned(task)
    with new_run(task, out) as folder:
        _run_stages(task, folder, until, watcher or Silent(), clock)
    return Run(folder.path)


def resume(path: Path, *, until: str = "report", watcher: Watcher | None = None) -> Run:
    """Continue the run in `path` through the stage `until`, with the task that it carries. Raises as `run` does."""
    clock = time.monotonic()
    with locked(RunFolder.existing(path)) as folder:
        _run_stages(load_task(folder.task), folder, until, watcher or Silent(), clock)
    return Run(path)


def _run_stages(task: Task, folder: RunFolder, until: str, watcher: Watcher, clock: float) -> None:
    last = STAGES.index(until)

    def wanted(stage: str, path: Path) -> bool:
        return STAGES.index(stage) <= last and not path.is_file()

    prepare(task, folder, watcher)
    if last < STAGES.index("plan"):
        return
    started = None if folder.plan.is_file() else clock
    work = Workshop(task, folder, trainable(read_splits(folder)), watcher, started)
    if wanted("plan", folder.plan):
        make_plan(work, clock)
    for name, family in ARMS.items():
        stage = "train" if family == "fine-tune" else "baseline"
        if wanted(stage, folder.arm_record(name)) and (task.arms == "auto" or name in task.arms):
            started = time.monotonic()
            run_arm(work, name)
            folder.log("arm", name=name, seconds=time.monotonic() - started)
    if wanted("decide", folder.verdict):
        write_verdict(work)
    if wanted("report", folder.report):
        write_report(folder)


def run_arm(work: Workshop, name: str) -> None:
    """Run one arm as planned, or write down why not."""
    plan = read_json(work.folder.plan)
    bench = work.bench(plan["test_rows"])
    if name in plan["skipped"]:
        skip_arm(bench, name, ARMS[name], plan["skipped"][name])
    elif name == CLASSICAL:
        classical_arm(bench, name)
    elif name in (ZERO_SHOT, FEW_SHOT):
        prompt_arm(bench, name, work.local, SHOT_COUNTS if name == FEW_SHOT else ())
    elif name not in plan["trainings"]:
        skip_arm(bench, name, ARMS[name], "the short and the full prompt are the same for this task")
    else:
        form = bench.form(FULL if name == LORA_FULL else SHORT)
        rank, alpha = (int(plan["settings"][key]["value"]) for key in ("rank", "alpha"))
        tuned_arm(bench, name, work.local, form, _settings(work, plan, name), rank, alpha)


def _settings(work: Workshop, plan: Mapping[str, Any], name: str) -> Settings:
    values = {key: setting["value"] for key, setting in plan["settings"].items()}
    training = plan["trainings"][name]
    return Settings(
        steps=training["steps"],
        batch_size=values["batch_size"],
        learning_rate=values["learning_rate"],
        warmup_steps=max(1, round(values["warmup_share"] * training["steps"])),
        evaluate_every=max(1, -(-training["steps"] // EVALUATIONS)),
        seed=work.task.seed,
        maximum_seconds=_maximum_seconds(work, plan, name),
        device=work.machine.device,
    )


def _maximum_seconds(work: Workshop, plan: Mapping[str, Any], name: str) -> float:
    """What a training may take at most: its share, or all that the run has left beside what is still to come.

    A learning rate that falls to zero at the last step makes the last steps worth most, so time that earlier stages
    did not need goes to finishing.
    """
    share: float = plan["trainings"][name]["seconds"] * 1.05
    if work.started is None:
        return share
    budget = plan["budget"]
    later = sum(budget.get(arm, 0.0) for arm in list(ARMS)[list(ARMS).index(name) + 1 :])
    judging = budget[name] - plan["trainings"][name]["seconds"]
    spent = time.monotonic() - work.started
    left: float = work.task.budget - spent - judging - later - 0.5 * budget["reserve"]
    return max(share, left)


def _check_arms(task: Task) -> None:
    if task.arms != "auto":
        unknown = [name for name in task.arms if name not in ARMS]
        if unknown:
            raise InputError(f"unknown arms {unknown}", where="arms", cure=f"known: {', '.join(ARMS)}")
