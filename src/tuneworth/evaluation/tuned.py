"""The fine-tuned arms: trained with one seed or several, the best on validation kept, and judged as it was saved."""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tuneworth.data.example import Example
from tuneworth.errors import TuneworthError
from tuneworth.evaluation.arms import Bench, answered, finish, model_details
from tuneworth.evaluation.fitting import Fit, fit_rows
from tuneworth.evaluation.forms import Form
from tuneworth.evaluation.local import LocalModel
from tuneworth.evaluation.tracking import tracking
from tuneworth.models.checkpoints import load_tensors, save_tensors
from tuneworth.models.tuning import Recipe, Tuned
from tuneworth.store.atomic import read_json, sync_folder, write_bytes, write_json
from tuneworth.store.run import MetricsFile, newest_checkpoint, write_checkpoint, write_folder
from tuneworth.training import Checkpoint, DivergedError, Settings
from tuneworth.training.records import Trainable

_TEMPLATE_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_VALUES = ("step", "best_step", "best_score", "seconds", "unimproved", "recent_losses", "length", "out_of_time")


@dataclass(frozen=True, slots=True)
class Before:
    """What was done before a training could begin: rows that it learns beside those of train, what making them cost in
    seconds of this machine and in USD beside (None where a price is not known), and what arm.json tells of it."""

    rows: tuple[Example, ...] = ()
    seconds: float = 0.0
    usd: float | None = 0.0
    told: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """How an arm is trained: prompt form, loop settings, recipe (whose seed is the first of `seeds`), provenance, and
    what came before."""

    form: Form
    settings: Settings
    recipe: Recipe
    seeds: int = 1
    recompute: bool = False
    trackers: Sequence[str] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    before: Before = field(default_factory=Before)


@dataclass(frozen=True, slots=True)
class Attempt:
    """How the training with one seed ended."""

    seed: int
    steps: int
    best_step: int
    validation_score: float
    seconds: float
    ended: str


def tuned_arm(bench: Bench, name: str, local: LocalModel, job: Job) -> None:
    """Train on the answers behind the job's form, then answer test with the saved weights; resumes where it stopped.

    The seeds, and of each the best step, are chosen by score on validation rows.
    """
    home, form = bench.folder.arm(name), job.form
    bench = replace(bench, train=(*bench.train, *job.before.rows))
    shown = {shot.id for shot in form.shots}  # its answer stands in every prompt, so there is nothing to learn in it
    learnt = [example for example in bench.train if example.id not in shown]
    rows, too_long = local.learnable(form, learnt, bench.kind, bench.task.training.turns)
    if too_long:
        bench.watcher.note(f"{name}: {len(too_long)} rows do not fit the model's context and are left out")
    seeds = range(job.recipe.seed, job.recipe.seed + job.seeds)
    attempts = [_attempt(bench, name, local, _with_seed(job, seed), rows) for seed in seeds]
    best = max(attempts, key=lambda attempt: attempt.validation_score)
    if not (home / "model").is_dir():
        if job.seeds > 1:  # metrics.jsonl is that of the weights that are kept
            write_bytes(home / "training" / "metrics.jsonl", _metrics(home, job, best.seed).read_bytes())
        (home / "candidates" / f"seed-{best.seed}").rename(home / "model")
        sync_folder(home)
    with local.tuned(home / "model"):
        bench.watcher.begin(f"{name}: answering test", len(bench.test))
        answers = answered(bench, local, form, bench.test)
        details = {
            "seed": best.seed,
            "settings": _settings(job, attempts, best, len(rows)) | {"rows_too_long": len(too_long), **job.before.told},
            "build_seconds": job.before.seconds + sum(attempt.seconds for attempt in attempts),
            "build_usd": job.before.usd,
            **model_details(bench, local, form),
        }
    finish(bench, name, "fine-tune", answers, details)
    for folder in ("checkpoints", "candidates"):
        shutil.rmtree(home / folder, ignore_errors=True)


def training_alone(bench: Bench, name: str, local: LocalModel, job: Job) -> tuple[Attempt, Path]:
    """Train as `tuned_arm` does with one seed, and resumably, but answer no test rows; and where the weights lie."""
    rows, _ = local.learnable(job.form, bench.train, bench.kind, bench.task.training.turns)
    attempt = _attempt(bench, name, local, job, rows)
    return attempt, bench.folder.arm(name) / "candidates" / f"seed-{attempt.seed}"


def _attempt(bench: Bench, name: str, local: LocalModel, job: Job, rows: Sequence[Trainable]) -> Attempt:
    """Train with one seed and save its best weights as a candidate, unless that is done."""
    home, seed = bench.folder.arm(name), job.recipe.seed
    record, checkpoints = home / "training" / f"seed-{seed}.json", home / "checkpoints" / f"seed-{seed}"
    if record.is_file():
        return Attempt(**{key: value for key, value in read_json(record).items() if key != "schema"})
    newest = newest_checkpoint(checkpoints)
    resume = _read_checkpoint(newest) if newest else None
    metrics = MetricsFile(_metrics(home, job, seed), keep_steps=resume.step if resume else 0)
    title = name if job.seeds == 1 else f"{name}, seed {seed}"
    bench.watcher.begin(f"{title}: training", job.settings.steps)
    if resume:
        bench.watcher.note(f"{title}: continuing after step {resume.step}")
        bench.watcher.advance(resume.step)
    shown = asdict(job.recipe) | {"learning_rate": job.settings.learning_rate, "batch_size": job.settings.batch_size}
    with (
        local.tuned(job.recipe) as tuned,
        _rows_named(bench.train),
        tracking(job.trackers, home / "training", title, shown) as log,
    ):

        def on_record(record: Mapping[str, Any]) -> None:
            metrics.append(record)
            bench.watcher.record(record)
            log(record)

        fit = Fit(
            job.settings, bench.scoring, on_record, lambda c: _write_checkpoint(checkpoints, c), resume, job.recompute,
            len(bench.test) / job.seeds,
        )  # fmt: skip
        outcome = fit_rows(local, job.form, rows, bench.validation, fit)
        write_folder(home / "candidates" / f"seed-{seed}", lambda folder: _write_model(folder, tuned, local))
    attempt = Attempt(seed, outcome.steps, outcome.best_step, outcome.best_score, outcome.seconds, outcome.ended)
    write_json(record, {"schema": "tuneworth.training/1", **asdict(attempt)})
    shutil.rmtree(checkpoints, ignore_errors=True)
    return attempt


def _metrics(home: Path, job: Job, seed: int) -> Path:
    return home / "training" / ("metrics.jsonl" if job.seeds == 1 else f"metrics-seed-{seed}.jsonl")


def _with_seed(job: Job, seed: int) -> Job:
    return replace(job, recipe=replace(job.recipe, seed=seed), settings=replace(job.settings, seed=seed))


def _settings(job: Job, attempts: Sequence[Attempt], best: Attempt, rows: int) -> dict[str, Any]:
    """What arm.json tells of the training; the spread is the sample standard deviation of the validation scores."""
    scores = [attempt.validation_score for attempt in attempts]
    adapter: dict[str, Any] = {}
    if job.recipe.method != "full":
        shares = dict(job.settings.rate_shares)
        adapter = {"rank": job.recipe.rank, "alpha": job.recipe.alpha, "rate_shares": shares}
    return {
        "method": job.recipe.method,
        **adapter,
        "learning_rate": job.settings.learning_rate,
        "schedule": job.settings.schedule,
        "batch_size": job.settings.batch_size,
        "steps": best.steps,
        "epochs": best.steps * job.settings.batch_size / rows,
        "best_step": best.best_step,
        "validation_score": best.validation_score,
        "rows": rows,
        "micro_batch_tokens": job.settings.maximum_tokens,
        "recompute": job.recompute,
        "ended_by_budget": best.ended == "time",
        "ended": best.ended,
        "seeds": [asdict(attempt) for attempt in attempts],
        "validation_spread": statistics.stdev(scores) if len(scores) > 1 else None,
        "from": dict(job.provenance) or None,
    }


@contextmanager
def _rows_named(examples: Sequence[Example]) -> Iterator[None]:
    """A loss that is no number names its rows as the user knows them: file, line and id (LAW 14)."""
    try:
        yield
    except DivergedError as error:
        by_id = {example.id: example for example in examples}
        places = [f"{by_id[name].file}:{by_id[name].line} (id {name})" for name in error.row_ids[:8]]
        more = len(error.row_ids) - len(places)
        where = ", ".join(places) + (f" and {more} more rows" if more else "")
        raise TuneworthError(error.problems[0].what, where=where, cure=error.problems[0].cure) from None


def _write_model(folder: Path, tuned: Tuned, local: LocalModel) -> None:
    tuned.save(folder, local.folder.id, local.folder.path)
    for name in _TEMPLATE_FILES:
        if (local.folder.path / name).is_file():
            shutil.copyfile(local.folder.path / name, folder / name)
    if not (folder / "chat_template.jinja").is_file():
        (folder / "chat_template.jinja").write_text(local.renderer.template.source, "utf-8")


def _write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    values = {name: getattr(checkpoint, name) for name in _VALUES}
    write_checkpoint(folder, checkpoint.step, lambda to: save_tensors(to, dict(checkpoint.tensors), values))


def _read_checkpoint(folder: Path) -> Checkpoint:
    tensors, values = load_tensors(folder)
    known = {name: values[name] for name in _VALUES if name in values}
    score = -math.inf if values["best_score"] is None else values["best_score"]
    length = tuple(values["length"]) if values.get("length") else None
    told = {"best_score": score, "recent_losses": tuple(values["recent_losses"]), "length": length}
    return Checkpoint(**{**known, **told, "tensors": tensors})
