"""The learning curve as a stage: the best fine-tuned arm trained again on an eighth, a quarter and half of the rows.

Every point is trained as a run that had no more rows would train it (`plan.training_plan`: fewer rows, more passes), to
its last step, and scored on the same validation rows. A training that the budget cuts short is no point. The point of
all rows is the arm itself, unless its own training was cut short.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tuneworth.data.example import Example
from tuneworth.decision.statistics import mean_interval
from tuneworth.evaluation.arms import Bench, answered, stratified
from tuneworth.evaluation.curve import JUDGING_ROWS, classical_curve, curve_set, curve_sizes, finalist
from tuneworth.evaluation.tuned import Job, training_alone
from tuneworth.pipeline.probe_planning import curve_point
from tuneworth.pipeline.workshop import Workshop
from tuneworth.store.atomic import read_json, write_json
from tuneworth.store.run import RunFolder

_LEAST_POINTS = 3
_WHOLE = 0.98  # of the wanted epochs: a training that reached them was not cut short
_FILE = "learning_curve.json"


def draw_classical_curve(work: Workshop, bench: Bench, records: Sequence[Mapping[str, Any]]) -> str | None:
    """Write the curve of the classical arm into its folder, unless it is there; or return why there is none."""
    name = next((record["name"] for record in records if record["family"] == "classical"), None)
    if name is None:
        return "no classical arm was run"
    path = work.folder.arm(name) / _FILE
    if path.is_file():
        return None
    work.watcher.begin(f"learning curve: {name}", len(curve_sizes(len(bench.train))))
    found = classical_curve(bench, _judging(work, bench), work.watcher.advance)
    points = [_point(bench, rows, scores) for rows, scores in found]
    write_json(path, _curve_json(bench, name, points))
    return None


def draw_curve(
    work: Workshop,
    bench: Bench,
    records: Sequence[Mapping[str, Any]],
    job_of: Callable[[str], Job],
    seconds: Callable[[], float],
) -> str | None:
    """Draw the curve of the best fine-tuned arm into learning_curve.json; or return why there is none, or not all of
    it. `seconds` tells what is left of the budget; points that are done are not done again.
    """
    name = finalist(records)
    if name is None:
        return "no arm was fine-tuned"
    sizes = curve_sizes(len(bench.train))
    if len(sizes) < _LEAST_POINTS:
        return f"{len(bench.train)} training rows are too few for a curve"
    record = next(record for record in records if record["name"] == name)
    job, judging = job_of(name), _judging(work, bench)
    points: list[dict[str, Any]] = []
    why = None
    for size in [sizes[-1], *sizes[:-1]]:
        home = work.folder.path / "curve" / "arms" / f"{name}-{size}"
        if not (home / "point.json").is_file():
            if size == sizes[-1] and was_whole(record, curve_point(bench, size, _width(work)).steps):
                point: dict[str, Any] | None = _point_of_arm(work, bench, record, job, judging)
            elif size == sizes[-1] and seconds() != float("inf"):
                return "the budget cut the training of all rows short; `tuneworth probe RUN` trains it to its end"
            else:
                point = _trained_point(work, bench, name, size, job, judging, seconds())
            if point is None:
                why = "the budget was used up while it ran; `tuneworth probe RUN` goes on where it stopped"
                break
            write_json(home / "point.json", point)
        shutil.rmtree(home / "candidates", ignore_errors=True)  # its weights are needed no more
        points.append(read_json(home / "point.json"))
    points.sort(key=lambda point: point["rows"])
    if len(points) >= _LEAST_POINTS:
        write_json(work.folder.learning_curve, _curve_json(bench, name, points))
    return why


def was_whole(record: Mapping[str, Any], wanted_steps: int) -> bool:
    """Whether an arm was trained to its own end: all the steps that its rows ask for, or until patience ended it."""
    settings = record["settings"]
    return bool(settings["ended"] == "patience" or settings["steps"] >= _WHOLE * wanted_steps)


def _trained_point(
    work: Workshop, bench: Bench, name: str, size: int, job: Job, judging: Sequence[Example], seconds: float
) -> dict[str, Any] | None:
    """One point, trained; None when the time was used up before its last step."""
    curve = RunFolder(work.folder.path / "curve")
    small = replace(bench, train=curve_set(bench.train, size, bench.task.seed, bench.kind), folder=curve)
    title = f"{name}-{size}"
    attempt, weights = training_alone(small, title, work.local, _job(work, bench, job, size, seconds))
    if attempt.ended == "time":
        shutil.rmtree(curve.arm(title), ignore_errors=True)  # what was cut short would be taken for done
        return None
    scores = _scores(work, bench, job, judging, weights, title)
    return _point(bench, size, scores) | {"steps": attempt.steps, "best_step": attempt.best_step}


def _point_of_arm(
    work: Workshop, bench: Bench, record: Mapping[str, Any], job: Job, judging: Sequence[Example]
) -> dict[str, Any]:
    """The point of all rows: the arm as it was judged, now on validation rows."""
    weights, settings = work.folder.arm(record["name"]) / "model", record["settings"]
    scores = _scores(work, bench, job, judging, weights, f"{record['name']} of all rows")
    return _point(bench, len(bench.train), scores) | {"steps": settings["steps"], "best_step": settings["best_step"]}


def _scores(
    work: Workshop, bench: Bench, job: Job, judging: Sequence[Example], weights: Path, title: str
) -> list[float]:
    work.watcher.begin(f"learning curve: {title} answers validation", len(judging))
    with work.local.tuned(weights):
        return [answer.score for answer in answered(bench, work.local, job.form, judging)]


def _job(work: Workshop, bench: Bench, job: Job, size: int, seconds: float) -> Job:
    """`job` for `size` rows: as many steps as they ask for, and no more time than is left."""
    point = curve_point(bench, size, _width(work))
    warmup_share = read_json(work.folder.plan)["settings"]["warmup_share"]["value"]
    settings = replace(
        job.settings,
        steps=point.steps,
        batch_size=point.batch_size,
        warmup_steps=max(1, round(warmup_share * point.steps)),
        evaluate_every=max(1, -(-point.steps // point.looks)),
        maximum_seconds=seconds,
        most_steps=None,
        seconds_after=0.0,
    )
    return replace(job, settings=settings, seeds=1, trackers=())


def _judging(work: Workshop, bench: Bench) -> tuple[Example, ...]:
    return stratified(work.splits.validation, JUDGING_ROWS, bench.task.seed, bench.kind)


def _width(work: Workshop) -> int:
    return int(work.local.model.config.hidden_size)


def _point(bench: Bench, rows: int, scores: Sequence[float]) -> dict[str, Any]:
    values = np.array(scores, dtype=np.float64)
    binary = bool(np.isin(values, (0.0, 1.0)).all())
    interval = mean_interval(values, binary, bench.task.decision.confidence)
    return {"rows": rows, "score": float(values.mean()), "interval": interval}


def _curve_json(bench: Bench, arm: str, points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "schema": "tuneworth.learning_curve/1",
        "arm": arm,
        "metric": bench.scoring.metric.name,
        "points": list(points),
    }
