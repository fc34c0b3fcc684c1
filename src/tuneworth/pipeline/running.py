"""The run, top to bottom: data, plan, arms, probes, verdict, report.

Each stage writes its file whole and is skipped when the file is there, so the same command continues a run that
was stopped anywhere, and a finished one returns at once.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuneworth.data.registered import pinned
from tuneworth.errors import InputError
from tuneworth.evaluation.arms import Bench, classical_arm, leave_out
from tuneworth.evaluation.hosted import check_keys
from tuneworth.evaluation.hosted_tuned import TrainingFailed, begin_training, hosted_tuned_arm
from tuneworth.evaluation.prompted import prompt_arm
from tuneworth.evaluation.tracking import check_trackers
from tuneworth.evaluation.tuned import Before, Job, tuned_arm
from tuneworth.evaluation.watching import Silent, Watcher
from tuneworth.pipeline.advising import check_fits
from tuneworth.pipeline.candidates import check_race
from tuneworth.pipeline.deciding import write_verdict
from tuneworth.pipeline.finished import Run
from tuneworth.pipeline.judging import check_judge, judge_arms, plan_judging
from tuneworth.pipeline.ladder import ARMS, AT, DISTILLED, DOCUMENTS, Arm, Taught, arms_of, known_arms, misfit
from tuneworth.pipeline.measuring import recipe_of
from tuneworth.pipeline.planning import make_plan
from tuneworth.pipeline.preparing import locked, new_run, prepare, read_splits
from tuneworth.pipeline.probing import run_probes
from tuneworth.pipeline.racing import settled
from tuneworth.pipeline.reporting import write_report
from tuneworth.pipeline.searching import check_search, search
from tuneworth.pipeline.second_look import second_look
from tuneworth.pipeline.settling import loop_settings
from tuneworth.pipeline.teaching import NothingTaughtError, teach
from tuneworth.pipeline.trainable import trainable
from tuneworth.pipeline.workshop import Workshop
from tuneworth.plan import EVALUATIONS, TEACHING, Trained
from tuneworth.store.atomic import read_json, write_json
from tuneworth.store.run import RunFolder, read_arm
from tuneworth.task import Task, load_task
from tuneworth.training import Settings

STAGES = ("audit", "split", "plan", "baseline", "train", "evaluate", "probe", "decide", "report")
_LEAST_SHARE = 0.25  # of its planned time, with which a training is still begun
_LENT_SHARE = 0.1  # of the budget, which a prompt that is slower than planned may take from what comes after it


def run(
    task: Task,
    *,
    out: Path | None = None,
    until: str = "report",
    watcher: Watcher | None = None,
    allow_code: bool = False,
    clock: float | None = None,
) -> Run:
    """Run (or continue) `task` through the stage `until` and return its folder. `allow_code` lets the task's own metric
    run. The budget counts from `clock` (time.monotonic), since loading libraries takes seconds of it; from now if None.

    Raises InputError for mistakes in data or task, MachineError when this machine cannot do it, RunBusyError when
    another process works on the same folder.
    """
    clock = time.monotonic() if clock is None else clock
    _check_arms(task)
    check_fits(task)
    task = pinned(task)
    with new_run(task, out) as folder:
        _forget_failures(task, folder)
        _run_stages(task, folder, until, watcher or Silent(), clock, allow_code=allow_code)
    return Run(folder.path)


def resume(
    path: Path,
    *,
    until: str = "report",
    watcher: Watcher | None = None,
    allow_code: bool = False,
    clock: float | None = None,
) -> Run:
    """Continue the run in `path` through the stage `until`, with the task that it carries; else as `run`."""
    clock = time.monotonic() if clock is None else clock
    with locked(RunFolder.existing(path)) as folder:
        _run_stages(load_task(folder.task), folder, until, watcher or Silent(), clock, allow_code=allow_code)
    return Run(path)


def _run_stages(task: Task, folder: RunFolder, until: str, watcher: Watcher, clock: float, *, allow_code: bool) -> None:
    last = STAGES.index(until)

    def wanted(stage: str, path: Path) -> bool:
        return STAGES.index(stage) <= last and not path.is_file()

    prepare(task, folder, watcher)
    if last < STAGES.index("plan"):
        return
    started = None if folder.plan.is_file() else clock
    task = settled(task, folder, watcher, clock)
    search(task, folder, watcher, clock)
    work = Workshop(task, folder, trainable(read_splits(folder), task), watcher, started, allow_code=allow_code)
    check_judge(task, work.splits)
    if wanted("plan", folder.plan):
        make_plan(work, clock, plan_judging if task.judge is not None else None)

    def due(arm: Arm) -> bool:
        return wanted("train" if arm.taught or arm.taught_there else "baseline", folder.arm_record(arm.name))

    for arm in arms_of(task).values():
        if arm.taught_there and due(arm):
            _begin_there(work, arm)
    for arm in arms_of(task).values():
        if due(arm):
            started = time.monotonic()
            run_arm(work, arm)
            folder.log("arm", name=arm.name, seconds=time.monotonic() - started)
    if work.task.judge is not None and wanted("evaluate", folder.judge):
        plan = read_json(folder.plan)
        judge_arms(work, work.bench(plan["test_rows"]), plan, _seconds_left(work, plan, "judge"))
    asked = until == "probe"  # then every probe is made, at any price, and what was decided is decided again
    if asked or wanted("probe", folder.probes):
        plan = read_json(folder.plan)
        run_probes(work, lambda name: _job(work, work.bench(plan["test_rows"]), plan, name), forced=asked)
    if wanted("decide", folder.verdict) or (asked and folder.verdict.is_file()):
        write_verdict(work)
    if wanted("report", folder.report) or (asked and folder.report.is_file()):
        write_report(folder)


def _forget_failures(task: Task, folder: RunFolder) -> None:
    """An arm that failed is not finished: the same command tries it again, and then decides again."""
    for name in arms_of(task):
        if folder.arm_record(name).is_file() and read_arm(folder, name)["status"] == "failed":
            for path in (folder.report, folder.verdict, folder.judge, folder.arm_record(name)):
                path.unlink(missing_ok=True)


def run_arm(work: Workshop, arm: Arm) -> None:
    """Run one arm as planned, or write down why not."""
    planned = read_json(work.folder.plan)
    bench = work.bench(planned["test_rows"])
    plan = second_look(work, bench, planned, arm)
    why = _left_out(work, plan, arm)
    if why is not None:
        leave_out(bench, arm.name, arm.family, why, model=work.model_of(arm).name)
    elif arm.asked:
        forms = arm.asked.forms(work, bench)[: plan["forms"][arm.name]]
        most = _most_seconds(work, plan, arm.name)
        prompt_arm(bench, arm.name, work.model_of(arm), forms, _planned(plan, arm.name), most)
    elif arm.taught and arm.taught.distils:
        try:
            before = teach(work, bench, arm.name, plan["taught"])
        except NothingTaughtError as nothing:
            leave_out(bench, arm.name, arm.family, str(nothing))
        else:
            tuned_arm(bench, arm.name, work.local, _job(work, bench, plan, arm.name, before))
    elif arm.taught:
        tuned_arm(bench, arm.name, work.local, _job(work, bench, plan, arm.name))
    elif arm.taught_there:
        form, seconds = bench.form(arm.taught_there.form), _waiting_seconds(work, plan, arm.name)
        hosted_tuned_arm(bench, arm.name, work.trainer_of(arm), form, seconds)
    else:
        classical_arm(bench, arm.name)


def _begin_there(work: Workshop, arm: Arm) -> None:
    """Begin a hosted training before all other arms, so that it goes on while these take their time."""
    plan = read_json(work.folder.plan)
    bench = work.bench(plan["test_rows"])
    assert arm.taught_there is not None
    if _left_out(work, plan, arm) is None:
        with contextlib.suppress(TrainingFailed):  # the arm tries again in its turn, and then says why
            begin_training(bench, arm.name, work.trainer_of(arm), bench.form(arm.taught_there.form))


def _left_out(work: Workshop, plan: Mapping[str, Any], arm: Arm) -> str | None:
    """Why an arm is not run, if it is not."""
    if (why := misfit(arm, work.splits.kind)) is not None:
        return why
    if arm.name in plan["skipped"]:
        return str(plan["skipped"][arm.name])
    if arm.taught and arm.name not in plan["trainings"]:
        same = "the short and the full prompt are the same for this task"
        return "the plan of this run was made before there was such an arm" if arm.taught.distils else same
    dispensable = arm.taught or (arm.asked and arm.asked.prompts.optional and work.task.arms == "auto")
    return _too_late(work, plan, arm.name) if dispensable else None


def _job(work: Workshop, bench: Bench, plan: Mapping[str, Any], name: str, before: Before | None = None) -> Job:
    start, training, taught = work.start, work.task.training, ARMS[name].taught
    assert taught is not None
    return Job(
        form=taught.form_of(bench),
        settings=_settings(work, _learning(plan, name, len(bench.train), before), name, taught),
        recipe=recipe_of(plan["settings"], taught.all_weights, work.task.seed, start.folder if start else None),
        seeds=training.seeds,
        recompute=plan["settings"]["recompute"]["value"] == "on",
        trackers=training.trackers,
        provenance=start.provenance() if start else {},
        before=before or Before(),
    )


def _learning(plan: Mapping[str, Any], name: str, rows: int, before: Before | None) -> Mapping[str, Any]:
    """`plan` with the steps of a distilled arm's training for the answers that a teacher really gave."""
    if before is None:
        return plan
    planned = plan["trainings"][name]
    steps = max(1, round(planned["steps"] * (rows + len(before.rows)) / (rows + plan["taught"])))
    return {**plan, "trainings": {**plan["trainings"], name: {**planned, "steps": steps}}}


def _settings(work: Workshop, plan: Mapping[str, Any], name: str, taught: Taught) -> Settings:
    settings, looks = plan["settings"], plan["trainings"][name].get("evaluations", EVALUATIONS)
    return replace(
        loop_settings(work, settings, _steps(work, plan, name), all_weights=taught.all_weights, evaluations=looks),
        most_steps=_wished_steps(plan, name),
        maximum_tokens=settings["micro_batch_tokens"]["value"],
        evaluation_seconds=plan["trainings"][name]["evaluation_seconds"],
        maximum_seconds=_maximum_seconds(work, plan, name) / work.task.training.seeds,
        seconds_after=(plan["budget"][name] - _planned(plan, name)) / work.task.training.seeds,
    )


def _steps(work: Workshop, plan: Mapping[str, Any], name: str) -> int:
    """Steps of a training: as planned, or more where earlier stages left time, or fewer where they took it, since the
    learning rate has to reach zero at the last one. Settled when the training begins, and kept in steps.json; its looks
    at validation settle it anew from steps that were really taken, which its checkpoints keep."""
    path = work.folder.arm(name) / "training" / "steps.json"
    if path.is_file():
        return int(read_json(path)["steps"])
    planned = Trained(**plan["trainings"][name])
    steps = planned.steps
    if work.started is not None:
        fitting = planned.steps_in(_maximum_seconds(work, plan, name), work.task.training.seeds)
        steps = min(_wished_steps(plan, name), fitting)
    write_json(path, {"schema": "tuneworth.steps/1", "steps": steps, "planned": planned.steps})
    return steps


def _wished_steps(plan: Mapping[str, Any], name: str) -> int:
    """The steps of all epochs that were wished for."""
    planned, epochs = plan["trainings"][name], plan["settings"]["epochs"]["value"]
    wished = float(epochs * planned["steps"] / planned["epochs"])
    return max(int(planned["steps"]), math.ceil(round(wished, 6)))


def _maximum_seconds(work: Workshop, plan: Mapping[str, Any], name: str) -> float:
    """What a training may take with all its seeds: all that the run has left beside what is still to come.

    That is more than its share when earlier stages were quick (a learning rate that falls to zero at the last step
    makes the last steps worth most) and less when they were slow, since the budget is kept. Its share when a run is
    continued and the time it took is not known.
    """
    planned = _planned(plan, name)
    if work.started is None:
        return float(planned * 1.05)
    return _seconds_left(work, plan, name) - float(plan["budget"][name] - planned)


def _seconds_left(work: Workshop, plan: Mapping[str, Any], name: str) -> float:
    """What the run has left for a stage beside those that come after it; no bound when a run is continued.

    Further trainings give way to the first one: a training that was cut short is a poor answer, a second one no remedy.
    """
    if work.started is None:
        return math.inf
    budget = plan["budget"]
    stages = [stage for stage in budget if stage != "reserve"]
    first, *further = plan.get("trainings") or [None]
    after = stages[stages.index(name) + 1 :] if name in stages else []
    later = sum(budget[stage] for stage in after if name != first or stage not in further)
    spent = time.monotonic() - work.started
    return float(work.task.budget - spent - later - 0.5 * budget["reserve"])


def _most_seconds(work: Workshop, plan: Mapping[str, Any], name: str) -> float:
    """What a prompting arm may take at most; one that the user named is asked however long it takes."""
    if work.task.arms != "auto":
        return math.inf
    return max(_planned(plan, name), _seconds_left(work, plan, name)) + _LENT_SHARE * work.task.budget


def _waiting_seconds(work: Workshop, plan: Mapping[str, Any], name: str) -> float:
    """How long a hosted training is waited for: as long as the budget lasts beside what is still to come. A continued
    run, whose time is not known, waits as long as a whole budget."""
    if work.started is None:
        return work.task.budget
    return max(0.0, _maximum_seconds(work, plan, name) - _planned(plan, name))


def _planned(plan: Mapping[str, Any], name: str) -> float:
    """Seconds planned for a training without its judging, or for a whole prompting arm."""
    seconds: float = plan["trainings"][name]["seconds"] if name in plan["trainings"] else plan["budget"][name]
    return seconds


def _too_late(work: Workshop, plan: Mapping[str, Any], name: str) -> str | None:
    """Why a planned training or dispensable prompt cannot begin any more, if earlier stages took its time."""
    planned, left = _planned(plan, name), _maximum_seconds(work, plan, name)
    if name == DISTILLED and work.started is not None:
        left -= plan["budget"][TEACHING]
    if left >= _LEAST_SHARE * planned:
        return None
    return (
        f"earlier stages took longer than planned: {max(0.0, left):.0f} s of the budget are left of {planned:.0f} s "
        "for it; give a longer budget, or run it when the machine has less to do"
    )


def _check_arms(task: Task) -> None:
    check_trackers(task.training.trackers)
    check_race(task, [name for name, arm in arms_of(task).items() if arm.taught])
    check_search(task, [name for name, arm in arms_of(task).items() if arm.taught])
    if task.training.from_ is not None:
        RunFolder.existing(Path(task.training.from_))
    known = known_arms(task)
    if task.arms != "auto":
        unknown = [name for name in task.arms if name not in known]
        if unknown:
            raise InputError(f"unknown arms {unknown}", where="arms", cure=f"known: {', '.join(known)}")
    if not task.data.documents and any(name.partition(AT)[0] == DOCUMENTS for name in arms_of(task)):
        raise InputError("the arm 'documents' needs a folder of texts", where="arms", cure="name it in data.documents")
    if not task.data.traffic and DISTILLED in arms_of(task):
        cure = "name a file of requests in data.traffic, or leave the arm out"
        raise InputError(f"the arm '{DISTILLED}' needs requests without labels", where="arms", cure=cure)
    asked = {arm.provider for arm in arms_of(task).values()} | {task.judge}
    for arm in arms_of(task).values():
        if arm.taught_there and arm.provider and task.providers[arm.provider].fine_tune is None:
            raise InputError(
                f"the arm '{arm.name}' uploads your rows and pays for a training, which the task does not allow",
                where="arms",
                cure=f"set providers.{arm.provider}.fine_tune to true, or leave the arm out",
            )
    check_keys({name: provider for name, provider in task.providers.items() if name in asked})
