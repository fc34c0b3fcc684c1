"""The probes, after the arms and before the verdict: several requests at once, strangers, forgetting, altered requests,
and the learning curve.

A probe runs when the time that the arms left suffices for it, or always when it is asked for (`tuneworth probe RUN`).
Each arm's part is a file of its own, written whole: a probe that was stopped goes on with the next part.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tuneworth.decision.statistics import compare, skewed_interval, spread, wilson_interval
from tuneworth.evaluation.arms import Bench, stratified
from tuneworth.evaluation.classical import Classical, fit_classical
from tuneworth.evaluation.forgetting import Knowledge, knowledge, steps_of_knowledge
from tuneworth.evaluation.forms import Form
from tuneworth.evaluation.load import MOMENTS, at_once
from tuneworth.evaluation.probed import Probed, probed_classical, probed_model
from tuneworth.evaluation.robustness import ROWS, Robustness, applicable, robustness
from tuneworth.evaluation.scope import Strangers, strangers
from tuneworth.evaluation.tuned import Job
from tuneworth.pipeline.curve_drawing import draw_classical_curve, draw_curve
from tuneworth.pipeline.ladder import arms_of
from tuneworth.pipeline.probe_planning import predicted
from tuneworth.pipeline.teaching import form_again
from tuneworth.pipeline.workshop import Workshop
from tuneworth.plan.budget import reserve_seconds
from tuneworth.plan.probing import (
    AT_ONCE,
    CLASSICAL_CURVE,
    CURVE,
    FORGETTING,
    OUT_OF_SCOPE,
    PROBES,
    ROBUSTNESS,
)
from tuneworth.store.atomic import read_json, write_json
from tuneworth.store.run import RunFolder, read_arm, write_arm

_BEYOND_PLAN = 1.15  # a probe that was not planned is begun only with so much more time than it is predicted to take


class OutOfTimeError(Exception):
    """The budget is used up in the middle of a probe; what is done of it is kept."""


class CannotAskError(Exception):
    """A finished arm that cannot be asked again, and why."""


@dataclass(frozen=True, slots=True)
class Clock:
    """What is left of the budget, in seconds; endless when nobody counts."""

    end: float

    @classmethod
    def of(cls, work: Workshop, forced: bool) -> Clock:
        """Counts from the start of the run; not when the probes are asked for, or the start is not known."""
        if forced or work.started is None:
            return cls(math.inf)
        return cls(work.started + work.task.budget - 0.5 * reserve_seconds(work.task.budget))

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def check(self) -> None:
        """Raise OutOfTimeError when nothing is left."""
        if self.left <= 0:
            raise OutOfTimeError


@dataclass(slots=True)
class Stage:
    """What the probes share: the arms that are done, and the classical one, fitted again when it is first asked."""

    work: Workshop
    bench: Bench
    clock: Clock
    job_of: Callable[[str], Job]
    left_out: dict[str, str] = field(default_factory=dict)
    _classical: Classical | None = None

    @property
    def records(self) -> list[dict[str, Any]]:
        """arm.json of every arm that is done."""
        folder = self.work.folder
        found = [read_arm(folder, name) for name in arms_of(self.work.task) if folder.arm_record(name).is_file()]
        return [record for record in found if record["status"] == "done"]

    @contextmanager
    def probed(self, record: Mapping[str, Any]) -> Iterator[Probed]:
        """The arm, ready to be asked. Raises CannotAskError when it cannot be asked again."""
        if record["family"] == "classical":
            yield probed_classical(record["name"], self._fitted())
        else:
            with probed_model(self.bench, record, self.work.local, self.form_of(record)) as probed:
                yield probed

    def form_of(self, record: Mapping[str, Any]) -> Form:
        """The prompt form that a finished arm was judged with, by the name that its arm.json holds.

        Raises CannotAskError when the arm cannot be asked as it was then.
        """
        if record.get("provider"):
            raise CannotAskError("a hosted model is paid for each request, so it is not asked more than the arm needs")
        form = form_again(self.work, self.bench, record)
        if form is None:
            raise CannotAskError("its prompt cannot be made again from the task and its rows")
        return form

    def each(self, title: str, file: str, units: Callable[[Probed], int]) -> Iterator[tuple[Path, Probed]]:
        """Every arm whose part is not done, and the file to write; the bar begun with `units` of the arm."""
        for record in self.records:
            path = self.work.folder.arm(record["name"]) / file
            if path.is_file():
                continue
            self.clock.check()
            try:
                with self.probed(record) as probed:
                    self.work.watcher.begin(f"{title}: {record['name']}", units(probed))
                    yield path, probed
            except CannotAskError as error:
                self.left_out[record["name"]] = str(error)

    def _fitted(self) -> Classical:
        if self._classical is None:
            bench = self.bench
            self._classical = fit_classical(bench.kind, bench.train, bench.validation, bench.task.seed, bench.vectorise)
        return self._classical


def run_probes(work: Workshop, job_of: Callable[[str], Job], *, forced: bool = False) -> None:
    """Run the probes that time allows, or all of them when `forced`; write probes.json. `job_of` tells how a
    fine-tuned arm is trained."""
    plan = read_json(work.folder.plan)
    stage = Stage(work, work.bench(plan["test_rows"]), Clock.of(work, forced), job_of)
    probes: dict[str, Any] = read_json(work.folder.probes)["probes"] if work.folder.probes.is_file() else {}
    for name in PROBES:
        if probes.get(name, {}).get("status") == "done":
            continue
        why = None if forced else _why_not(plan, name, stage.clock)
        started = time.monotonic()
        if why is None:
            try:
                why = _RUN[name](stage)
            except OutOfTimeError:
                why = "the budget was used up while it ran; `tuneworth probe RUN` goes on where it stopped"
        probes[name] = {"status": "skipped" if why else "done", "why": why, "seconds": time.monotonic() - started}
        work.folder.log("probe", name=name, **probes[name])
    content = {"schema": "tuneworth.probes/1", "probes": probes, "arms_left_out": stage.left_out}
    write_json(work.folder.probes, content)  # last: it marks the stage as done
    missing = [name for name, probe in probes.items() if probe["status"] != "done"]
    if missing:
        names = ", ".join(missing)
        work.watcher.note(f"not measured: {names} (probes.json says why; `tuneworth probe RUN` measures what can be)")
    if FORGETTING in missing and work.task.decision.largest_forgetting is not None:
        work.watcher.note("decision.largest_forgetting is not checked, since forgetting was not measured")


def _why_not(plan: Mapping[str, Any], name: str, clock: Clock) -> str | None:
    """Why a probe is not begun: there is nothing to probe, it was not planned, or its time is gone."""
    seconds = predicted(plan)
    if name not in seconds:
        return "this run has nothing to probe so" if "probes" in plan else "the plan of this run knows no probes"
    planned = name in plan["budget"]
    if planned and (clock.left == math.inf or clock.left >= seconds[name]):
        return None
    if planned:
        return (
            f"earlier stages took longer than planned: it needs {seconds[name]:.0f} s, "
            f"{max(0.0, clock.left):.0f} s are left; run `tuneworth probe RUN`"
        )
    if clock.left != math.inf and clock.left >= _BEYOND_PLAN * seconds[name]:
        return None  # the arms were quicker than planned
    return str(plan["probes"][name]["why"])


def _at_once(stage: Stage) -> str | None:
    """Latency and machine time with 1, 4 and 16 requests at once, into arm.json."""
    folder, watcher = stage.work.folder, stage.work.watcher
    for record in stage.records:
        if record.get("at_once"):
            continue
        stage.clock.check()
        try:
            with stage.probed(record) as probed:
                watcher.begin(f"requests at once: {record['name']}", len(MOMENTS))
                found = at_once(probed, stage.bench.validation, watcher.advance)
        except CannotAskError as error:
            stage.left_out[record["name"]] = str(error)
            continue
        write_arm(folder, {**record, "at_once": [asdict(point) for point in found]})
    return None


def _out_of_scope(stage: Stage) -> str | None:
    """Each arm's answers to strangers, into out_of_scope.json."""
    if stage.bench.kind == "preference":
        return "pairs of answers are judged, and strangers have none"
    for path, probed in stage.each("requests out of scope", "out_of_scope.json", lambda probed: 2):
        found = strangers(stage.bench, probed, stage.work.watcher.advance)
        write_json(path, _strangers_json(found, stage.work.task.decision.confidence))
    return None


def _strangers_json(found: Strangers, confidence: float) -> dict[str, Any]:
    shares = {name: getattr(found, name) / found.rows for name in ("answered", "declined", "empty", "invalid")}
    return {
        "schema": "tuneworth.out_of_scope/1",
        "rows": found.rows,
        **shares,
        "interval": [float(end) for end in wilson_interval(found.answered, found.rows, confidence)],
        "auroc": found.auroc,
        "confidence": found.confidence,
        "confidence_of_test_rows": found.confidence_of_test_rows,
        "labels": [{"label": label, "share": count / found.rows} for label, count in found.labels],
    }


def _forgetting(stage: Stage) -> str | None:
    """General knowledge before and after, of each fine-tuned arm, into forgetting.json."""
    folder, watcher, local = stage.work.folder, stage.work.watcher, stage.work.local
    tuned = [
        record["name"] for record in stage.records if record["family"] == "fine-tune" and not record.get("provider")
    ]
    missing = [name for name in tuned if not (folder.arm(name) / "forgetting.json").is_file()]
    if not tuned:
        return "no arm was fine-tuned"
    if not missing:
        return None
    stage.clock.check()
    watcher.begin("forgetting: before", steps_of_knowledge())
    before = knowledge(local, watcher.advance)
    for name in missing:
        stage.clock.check()
        watcher.begin(f"forgetting: {name}", steps_of_knowledge())
        with local.tuned(folder.arm(name) / "model"):
            after = knowledge(local, watcher.advance)
        content = forgetting_json(before, after, stage.work.task.decision.confidence)
        write_json(folder.arm(name) / "forgetting.json", content)
    return None


def forgetting_json(before: Knowledge, after: Knowledge, confidence: float) -> dict[str, Any]:
    """Both measures before and after, and intervals of the differences, paired by text and by question."""
    tokens = np.array(before.tokens, dtype=np.float64)
    # The mean of these is the difference of the two losses, exactly.
    rises = (np.array(after.nats) - np.array(before.nats)) / tokens.mean()
    low, high = skewed_interval(rises.mean(), spread(rises), confidence)
    right_after, right_before = (np.array(found.right, dtype=np.float64) for found in (after, before))
    choice = compare(right_after, right_before, 1 - confidence, 0.0)
    return {
        "schema": "tuneworth.forgetting/1",
        "loss_before": before.loss,
        "loss_after": after.loss,
        "loss_rise": float(rises.mean()),
        "loss_rise_interval": (float(low), float(high)),
        "choice_before": before.accuracy,
        "choice_after": after.accuracy,
        "choice_difference_interval": choice.interval,
        "texts": len(before.tokens),
        "tokens": sum(before.tokens),
        "questions": len(before.right),
    }


def _robustness(stage: Stage) -> str | None:
    """Every arm on altered requests, into robustness.json."""
    bench = stage.bench
    rows = stratified(bench.test, ROWS, bench.task.seed, bench.kind)

    def passes(probed: Probed) -> int:
        return 1 + len(applicable(probed, bench.scoring.labels))

    for path, probed in stage.each("altered requests", "robustness.json", passes):
        found = robustness(bench, probed, rows, stage.work.watcher.advance)
        write_json(path, robustness_json(found, bench.task.decision.confidence))
    return None


def robustness_json(found: Robustness, confidence: float) -> dict[str, Any]:
    """Of each perturbation the score, its difference from the unaltered rows with its interval, and how many answers
    changed."""
    before = np.array(found.unaltered, dtype=np.float64)
    content: dict[str, Any] = {"schema": "tuneworth.robustness/1"}
    for shaken in found.shaken:
        after = np.array(shaken.scores, dtype=np.float64)
        pair = compare(after, before, 1 - confidence, 0.0)
        content[shaken.perturbation.name] = {
            "score": float(after.mean()),
            "difference": pair.difference,
            "interval": pair.interval,
            "changed": shaken.changed,
            "rows": len(after),
            "about": shaken.perturbation.about,
        }
    return content


def _classical_curve(stage: Stage) -> str | None:
    return draw_classical_curve(stage.work, stage.bench, stage.records)


def _curve(stage: Stage) -> str | None:
    return draw_curve(stage.work, stage.bench, stage.records, stage.job_of, lambda: stage.clock.left)


_RUN: Mapping[str, Callable[[Stage], str | None]] = {
    CLASSICAL_CURVE: _classical_curve,
    AT_ONCE: _at_once,
    OUT_OF_SCOPE: _out_of_scope,
    FORGETTING: _forgetting,
    ROBUSTNESS: _robustness,
    CURVE: _curve,
}


def probes_document(folder: RunFolder) -> dict[str, Any]:
    """All that the probes of a run wrote, as one object."""
    arms: dict[str, Any] = {}
    for name in folder.arm_names():
        paths = {probe: folder.arm(name) / f"{probe}.json" for probe in (OUT_OF_SCOPE, FORGETTING, ROBUSTNESS, CURVE)}
        found = {probe: read_json(path) for probe, path in paths.items() if path.is_file()}
        record = read_arm(folder, name)
        arms[name] = found | ({AT_ONCE: record[AT_ONCE]} if record.get(AT_ONCE) else {})
    curve = read_json(folder.learning_curve) if folder.learning_curve.is_file() else None
    return {**read_json(folder.probes), "arms": arms, CURVE: curve}
