"""The arms: each way of doing the task answers the same test rows and leaves `arm.json` and `answers.jsonl`.

Whatever is chosen (k, regularisation, the best step) is chosen on train and validation; test is read once (LAW 7).
"""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneworth.data.example import Example
from tuneworth.data.vectors import Vectorise
from tuneworth.evaluation.classical import Classical, fit_classifier, fit_retrieval
from tuneworth.evaluation.forms import Answerer, Form
from tuneworth.evaluation.local import Scoring
from tuneworth.evaluation.metrics import score
from tuneworth.evaluation.prompts import PromptForm, prompt_form
from tuneworth.evaluation.records import Answer, Decoding
from tuneworth.evaluation.summary import summary
from tuneworth.evaluation.watching import Watcher
from tuneworth.store.atomic import write_jsonl
from tuneworth.store.run import RunFolder, write_arm
from tuneworth.task import Task


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
    vectorise: Vectorise | None = None

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
    """Logistic regression on words or word vectors (labels), or the nearest row's answer (text)."""
    bench.watcher.begin(f"{name}: fitting", 1)
    if bench.kind == "classification":
        fitted = fit_classifier(bench.train, bench.validation, bench.task.seed, bench.vectorise)
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
    finish(bench, name, "classical", answers, details)
    bench.watcher.advance(1)


def leave_out(bench: Bench, name: str, family: str, why: str, *, status: str = "skipped", model: str = "") -> None:
    """Write down that an arm has no answers, and why: `skipped`, or `failed` when it was tried."""
    record = {"name": name, "family": family, "status": status, "why": why}
    write_arm(bench.folder, {**record, "model": model or bench.task.models[0], "decoding": "generate"})
    bench.watcher.note(f"{name}: {status}, {why}")


def model_decoding(kind: str) -> Decoding:
    """Models may only write a label where there are any, fine-tuned or not.

    Small untuned models rarely write one unaided, and a comparison that only shows this would flatter fine-tuning;
    a constrained answer is also finished as soon as one label is left.
    """
    return "constrained" if kind == "classification" else "generate"


def answered(bench: Bench, model: Answerer, form: Form, examples: Sequence[Example]) -> list[Answer]:
    """Scored answers, the bar moving."""
    raw = model.answer(form, examples, model.suited(bench.scoring), bench.watcher.advance)
    return score(examples, raw, bench.scoring.metric, bench.scoring.labels)


def finish(bench: Bench, name: str, family: str, answers: list[Answer], details: Mapping[str, Any]) -> None:
    """Write answers.jsonl, then arm.json."""
    write_jsonl(bench.folder.arm(name) / "answers.jsonl", (answer.to_json() for answer in answers))
    record = {"name": name, "family": family, "status": "done", "why": None, "seed": bench.task.seed}
    write_arm(bench.folder, {**record, **summary(answers, bench.test, bench.scoring.labels), **details})
    bench.watcher.note(f"{name}: {bench.scoring.metric} {_mean(answers):.3f} on {len(answers):,} test rows")


def model_details(bench: Bench, model: Answerer, form: Form) -> dict[str, Any]:
    """What arm.json tells of an arm that a model answers."""
    scoring = model.suited(bench.scoring)
    return {
        "decoding": scoring.decoding,
        "max_new_tokens": scoring.max_new_tokens,
        "form": form.name,
        "prompt": form.messages(bench.test[0]),
        "opening": form.opening(),
        "shots": [shot.id for shot in form.shots],
        **model.details(form, bench.validation, scoring),
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
