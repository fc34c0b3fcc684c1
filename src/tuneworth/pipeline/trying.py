"""A short training, and what it is worth on validation rows: what a race among models and a search of settings repeat.

Both run on a track that holds no test rows (LAW 7), and keep what they have done in a folder of their own, so that what
was stopped goes on where it was.
"""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tuneworth.data.example import Example
from tuneworth.decision import machine_hour_price
from tuneworth.decision.statistics import Codes, mean_interval
from tuneworth.errors import Interrupted, TuneworthError
from tuneworth.evaluation.arms import Bench, answered, stratified
from tuneworth.evaluation.tuned import Job, training_alone
from tuneworth.evaluation.watching import Watcher
from tuneworth.models.machine import this_machine
from tuneworth.pipeline.ladder import Taught, arms_of
from tuneworth.pipeline.measuring import recipe_of, training_rates
from tuneworth.pipeline.planning import memory_of
from tuneworth.pipeline.preparing import Prepared, read_splits
from tuneworth.pipeline.settling import loop_settings, settings_of
from tuneworth.pipeline.trainable import trainable
from tuneworth.pipeline.workshop import Workshop
from tuneworth.plan import Course, Pace, Rows, TrainingPlan
from tuneworth.store.atomic import read_jsonl
from tuneworth.store.run import RunFolder
from tuneworth.task import Task

_LOOK_ROWS, _LOOK_ROWS_OF_TEXT = 32, 8  # for the loss, in the loop's own evaluation; scored afterwards, on more
_TRAINED_SHARE = 0.6  # of what is left of the budget that one training may take at most
_LATE, _LATE_SECONDS = 2.0, 5.0  # times the predicted seconds, and more, after which a training is cut off


class Track:
    """Where trials are run: rows without test rows, a folder `name` for what is done, and what failed and why."""

    def __init__(self, task: Task, folder: RunFolder, watcher: Watcher, left_seconds: float, name: str) -> None:
        self.task, self.folder, self.watcher, self.left_seconds = task, folder, watcher, left_seconds
        self.name, self.home = name, RunFolder(folder.path / name)
        self.splits: Prepared = replace(trainable(read_splits(folder), task), test=())
        self.failed: dict[str, str] = {}
        self.spent = 0.0
        machine = this_machine()
        price = machine_hour_price(task.decision.usd_per_machine_hour, machine.cores, len(machine.gpus))
        self.usd_per_hour = price.usd_per_machine_hour

    def at(self, model: str) -> Workshop:
        """The workshop with this pre-trained model."""
        gc.collect()  # the model before it
        return Workshop(self.task.model_copy(update={"models": [model]}), self.folder, self.splits, self.watcher)

    def guarded(self, what: str, work: Callable[[], Any]) -> Any:
        """What `work` finds; None when `what` cannot do it, with the reason kept and its time counted."""
        start = time.perf_counter()
        try:
            return work()
        except Interrupted:
            raise
        except TuneworthError as error:
            self.failed[what] = str(error)
            self.spent += time.perf_counter() - start
            self.watcher.note(f"{self.name}: {what} is out: {error}")
            return None

    def groups(self, examples: Sequence[Example]) -> Codes | None:
        """The groups of rows as numbers, if rows have groups."""
        names = [example.group for example in examples]
        return np.unique(np.asarray(names), return_inverse=True)[1].astype(np.int64) if all(names) else None


@dataclass(frozen=True, slots=True)
class Trial:
    """A training to try: its name, its settings, what it learns from and in how many steps, the rows that choose by its
    answers and those that only judge, and wall seconds that it should take."""

    name: str
    settings: TrainingPlan
    rows: Sequence[Example]
    steps: int
    choosing: Sequence[Example]
    judging: Sequence[Example]
    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """Rows learnt (repeats count), the scores of the rows that choose and then of those that judge, the mean loss of
    some that choose, and wall seconds of all (training, loading, answering) and of answering a row."""

    rows: int
    scores: tuple[float, ...]
    loss: float
    seconds: float
    answer_a_row: float

    @classmethod
    def of_json(cls, kept: Mapping[str, Any]) -> Outcome:
        """As it was written with `asdict`."""
        return cls(**{**kept, "scores": tuple(kept["scores"])})

    @property
    def score(self) -> float:
        """The mean."""
        return sum(self.scores) / len(self.scores)

    def interval(self, confidence: float) -> list[float]:
        """Of the mean."""
        values = np.array(self.scores)
        return list(mean_interval(values, bool(np.isin(values, (0.0, 1.0)).all()), confidence))


def first_taught(task: Task) -> Taught:
    """How the first trained arm of the task is trained."""
    return next(arm.taught for arm in arms_of(task).values() if arm.taught)


def pace_of(work: Workshop, left_seconds: float) -> Pace:
    """How fast the model of `work` is here, measured on a few rows."""
    start = time.perf_counter()
    bench = work.bench(0)
    load = time.perf_counter() - start
    settings = settings_of(work, bench)
    tokens = memory_of(work, bench, settings).micro_batch_tokens
    answer, train = training_rates(work, bench, settings, first_taught(work.task), tokens, roughly=True)
    epochs, seeds = float(settings.epochs.value), work.task.training.seeds
    course = Course(epochs, int(settings.batch_size.value), seeds, answer, train, bench.read_first)
    whole = epochs * len(bench.train) * train * seeds
    rows = Rows(len(bench.train), len(bench.validation), 0)
    whole += course.looking(rows) + course.reading(rows)
    return Pace(load, train, answer.a_row, min(whole, _TRAINED_SHARE * max(0.0, left_seconds)))


def try_out(track: Track, work: Workshop, trial: Trial) -> Outcome:
    """Train as `trial` says and answer its validation rows; the weights are not kept."""
    start = time.perf_counter()
    whole, judged = work.bench(0), (*trial.choosing, *trial.judging)
    looks = _LOOK_ROWS if whole.scoring.chooses else _LOOK_ROWS_OF_TEXT
    looked_at = stratified(trial.choosing, looks, track.task.seed, whole.kind)
    bench = replace(whole, train=tuple(trial.rows), validation=looked_at, folder=track.home)
    job = _job(work, whole, trial)
    attempt, weights = training_alone(bench, trial.name, work.local, job)
    track.watcher.begin(f"{track.name}: {trial.name} answers validation", len(judged))
    with work.local.tuned(weights):
        before = time.perf_counter()
        answers = answered(whole, work.local, job.form, judged)
        a_row = (time.perf_counter() - before) / len(judged)
    records = read_jsonl(bench.folder.arm(trial.name) / "training" / "metrics.jsonl")
    loss = next(float(record["validation_loss"]) for record in reversed(records) if "validation_loss" in record)
    shutil.rmtree(bench.folder.arm(trial.name), ignore_errors=True)
    learnt = attempt.steps * job.settings.batch_size
    scores = tuple(answer.score for answer in answers)
    return Outcome(learnt, scores, loss, time.perf_counter() - start, a_row)


def _job(work: Workshop, bench: Bench, trial: Trial) -> Job:
    """The trial's settings, with a learning rate that falls to zero at its last step."""
    taught, settings = first_taught(work.task), trial.settings.to_json()
    memory = memory_of(work, bench, trial.settings)
    loop = loop_settings(work, settings, trial.steps, all_weights=taught.all_weights)
    return Job(
        form=taught.form_of(bench),
        settings=replace(
            loop,
            batch_size=min(loop.batch_size, len(trial.rows)),
            evaluate_every=trial.steps,
            maximum_tokens=memory.micro_batch_tokens,
            maximum_seconds=_LATE * trial.seconds + _LATE_SECONDS,
        ),
        recipe=recipe_of(settings, taught.all_weights, work.task.seed, work.start.folder if work.start else None),
        recompute=memory.recompute,
    )
