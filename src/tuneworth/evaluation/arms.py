"""The arms: each way of doing the task answers the same test rows and leaves `arm.json` and `answers.jsonl`.

Whatever is chosen (k, regularisation, the best step) is chosen on train and validation; test is read once (LAW 7).
"""

from __future__ import annotations

import random
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneworth.data.example import Example
from tuneworth.evaluation.classical import Classical, fit_classifier, fit_retrieval
from tuneworth.evaluation.local import Fit, LocalModel, Scoring
from tuneworth.evaluation.metrics import score
from tuneworth.evaluation.prompts import PromptForm, prompt_form, with_shots
from tuneworth.evaluation.records import Answer, Decoding
from tuneworth.evaluation.summary import summary
from tuneworth.evaluation.watching import Watcher
from tuneworth.models.adapters import Adapter, save_adapter
from tuneworth.models.checkpoints import load_tensors, save_tensors
from tuneworth.store.atomic import write_jsonl
from tuneworth.store.run import (
    MetricsFile,
    RunFolder,
    newest_checkpoint,
    write_arm,
    write_checkpoint,
    write_folder,
)
from tuneworth.task import Task
from tuneworth.training import Checkpoint, Settings

SHOT_COUNTS = (4, 16)
_TEMPLATE_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@dataclass(frozen=True, slots=True)
class Bench:
    """What all arms share: the task, the rows, how answers are scored, and where results go."""

    task: Task
    kind: str
    scoring: Scoring
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    folder: RunFolder
    watcher: Watcher

    def form(self, name: str) -> PromptForm:
        """A prompt form of this task."""
        return prompt_form(name, self.task, self.kind, self.scoring.labels)


def stratified(examples: Sequence[Example], count: int, seed: int, kind: str) -> tuple[Example, ...]:
    """`count` rows, seeded, with the classes in proportion, in their original order; all rows if there are no more."""
    if count >= len(examples):
        return tuple(examples)
    chance = random.Random(f"subset/{seed}")
    classes: dict[str, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        classes[example.answer if kind == "classification" else ""].append(index)
    ranked = []
    for members in classes.values():
        chance.shuffle(members)
        offset = chance.random()
        ranked += [((place + offset) / len(members), index) for place, index in enumerate(members)]
    return tuple(examples[index] for index in sorted(index for _, index in sorted(ranked)[:count]))


def classical_arm(bench: Bench, name: str) -> None:
    """TF-IDF with logistic regression (labels), or the nearest row's answer (text)."""
    bench.watcher.begin(f"{name}: fitting", 1)
    if bench.kind == "classification":
        fitted = fit_classifier(bench.train, bench.validation, bench.task.seed)
    else:
        fitted = fit_retrieval(bench.train)
    answers = score(bench.test, fitted.answer(bench.test), bench.scoring.metric, bench.scoring.labels)
    details = {
        "model": "scikit-learn",
        "decoding": "scored",
        "settings": fitted.settings,
        "build_seconds": fitted.fit_seconds,
        "latency_seconds": _classical_latency(fitted, bench.test),
    }
    _finish(bench, name, "classical", answers, details)
    bench.watcher.advance(1)


def prompt_arm(bench: Bench, name: str, local: LocalModel, shot_counts: Sequence[int] = ()) -> None:
    """The pre-trained model with the full prompt; with `shot_counts`, examples whose number validation chooses."""
    form, tried, start = bench.form("full"), {}, time.perf_counter()
    if shot_counts:
        bench.watcher.begin(f"{name}: choosing examples on validation", len(shot_counts) * len(bench.validation))
        forms = {k: with_shots(form, bench.train, k, bench.task.seed, bench.kind) for k in shot_counts}
        tried = {k: _mean(_answered(bench, local, forms[k], bench.validation)) for k in shot_counts}
        form = forms[max(tried, key=lambda k: tried[k])]
    build_seconds = time.perf_counter() - start if shot_counts else 0.0
    bench.watcher.begin(f"{name}: answering test", len(bench.test))
    answers = _answered(bench, local, form, bench.test)
    settings = {"examples": len(form.shots), "validation_score_by_examples": tried} if shot_counts else {}
    details = {
        "settings": settings,
        "build_seconds": build_seconds,
        **_model_details(bench, local, form),
    }
    _finish(bench, name, "prompt", answers, details)


def tuned_arm(
    bench: Bench, name: str, local: LocalModel, form: PromptForm, settings: Settings, rank: int, alpha: int
) -> None:
    """LoRA on the answers behind `form`; resumes from its newest checkpoint; the best step on validation answers."""
    home = bench.folder.arm(name)
    rows, too_long = local.training_rows(form, bench.train)
    if too_long:
        bench.watcher.note(f"{name}: {len(too_long)} rows do not fit the model's context and are left out")
    saved = newest_checkpoint(home / "checkpoints")
    resume = _read_checkpoint(saved) if saved else None
    metrics = MetricsFile(home / "training" / "metrics.jsonl", keep_steps=resume.step if resume else 0)
    bench.watcher.begin(f"{name}: training", settings.steps)
    if resume:
        bench.watcher.note(f"{name}: continuing after step {resume.step}")
        bench.watcher.advance(resume.step)

    def on_record(record: Mapping[str, Any]) -> None:
        metrics.append(record)
        bench.watcher.record(record)

    with local.adapted(local.fresh_adapter(rank, alpha, settings.seed)) as adapter:
        fit = Fit(settings, bench.scoring, on_record, lambda c: _write_checkpoint(home / "checkpoints", c), resume)
        outcome = local.fit(form, rows, bench.validation, fit)
        write_folder(home / "model", lambda folder: _write_model(folder, adapter, local))
        bench.watcher.begin(f"{name}: answering test", len(bench.test))
        answers = _answered(bench, local, form, bench.test)
        details = {
            "settings": {
                "method": "lora",
                "rank": rank,
                "alpha": alpha,
                "learning_rate": settings.learning_rate,
                "batch_size": settings.batch_size,
                "steps": outcome.steps,
                "epochs": outcome.steps * settings.batch_size / len(rows),
                "best_step": outcome.best_step,
                "validation_score": outcome.best_score,
                "rows": len(rows),
                "rows_too_long": len(too_long),
                "ended_by_budget": outcome.stopped_early,
            },
            "build_seconds": outcome.seconds,
            **_model_details(bench, local, form),
        }
    _finish(bench, name, "fine-tune", answers, details)
    shutil.rmtree(home / "checkpoints", ignore_errors=True)


def skip_arm(bench: Bench, name: str, family: str, why: str) -> None:
    """Write down that an arm was not run, and why."""
    record = {"name": name, "family": family, "status": "skipped", "why": why}
    write_arm(bench.folder, {**record, "model": bench.task.models[0], "decoding": "generate"})
    bench.watcher.note(f"{name}: skipped, {why}")


def model_decoding(kind: str) -> Decoding:
    """Models may only write a label where there are any, fine-tuned or not.

    Small untuned models rarely write one unaided, and a comparison that only shows this would flatter fine-tuning;
    a constrained answer is also finished as soon as one label is left.
    """
    return "constrained" if kind == "classification" else "generate"


def _answered(bench: Bench, local: LocalModel, form: PromptForm, examples: Sequence[Example]) -> list[Answer]:
    return local.scored(form, examples, bench.scoring, bench.watcher.advance)


def _finish(bench: Bench, name: str, family: str, answers: list[Answer], details: Mapping[str, Any]) -> None:
    write_jsonl(bench.folder.arm(name) / "answers.jsonl", (answer.to_json() for answer in answers))
    record = {"name": name, "family": family, "status": "done", "why": None, "seed": bench.task.seed}
    write_arm(bench.folder, {**record, **details, **summary(answers, bench.test, bench.scoring.labels)})
    bench.watcher.note(f"{name}: {bench.scoring.metric} {_mean(answers):.3f} on {len(answers):,} test rows")


def _model_details(bench: Bench, local: LocalModel, form: PromptForm) -> dict[str, Any]:
    return {
        "model": local.folder.id,
        "model_sha256": local.folder.sha256,
        "decoding": bench.scoring.decoding,
        "max_new_tokens": bench.scoring.max_new_tokens,
        "prompt": form.messages(bench.test[0]),
        "opening": form.opening(),
        "shots": [shot.id for shot in form.shots],
        "latency_seconds": local.latency(form, bench.validation, bench.scoring),
    }


def _classical_latency(fitted: Classical, examples: Sequence[Example]) -> dict[str, float]:
    seconds = []
    for example in examples[:40]:
        start = time.perf_counter()
        fitted.answer([example])
        seconds.append(time.perf_counter() - start)
    return {"p50": statistics.median(seconds), "p95": statistics.quantiles([*seconds, *seconds], n=20)[18]}


def _mean(answers: Sequence[Answer]) -> float:
    return sum(answer.score for answer in answers) / len(answers)


def _write_model(folder: Path, adapter: Adapter, local: LocalModel) -> None:
    save_adapter(adapter, folder, local.folder.id)
    for name in _TEMPLATE_FILES:
        if (local.folder.path / name).is_file():
            shutil.copyfile(local.folder.path / name, folder / name)
    if not (folder / "chat_template.jinja").is_file():
        (folder / "chat_template.jinja").write_text(local.renderer.template.source, "utf-8")


def _write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    values = {name: getattr(checkpoint, name) for name in ("step", "best_step", "best_score", "seconds")}
    write_checkpoint(folder, checkpoint.step, lambda to: save_tensors(to, dict(checkpoint.tensors), values))


def _read_checkpoint(folder: Path) -> Checkpoint:
    tensors, values = load_tensors(folder)
    return Checkpoint(tensors=tensors, **values)
