"""The arms: each way of doing the task answers the same test rows and leaves `arm.json` and `answers.jsonl`.

Whatever is chosen (k, regularisation, the best step) is chosen on train and validation; test is read once (LAW 7).
"""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuneworth.data.example import Example
from tuneworth.data.vectors import Vectorise
from tuneworth.evaluation.classical import Classical, fit_classical
from tuneworth.evaluation.forms import Answerer, Form
from tuneworth.evaluation.local import LocalModel, Scoring
from tuneworth.evaluation.metrics import score
from tuneworth.evaluation.metrics.calibration import KINDS, calibration
from tuneworth.evaluation.prompts import PromptForm, Told, prompt_form
from tuneworth.evaluation.records import Answer, Decoding
from tuneworth.evaluation.strata import stratum
from tuneworth.evaluation.summary import summary
from tuneworth.evaluation.watching import Watcher
from tuneworth.plan import Setting
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
    told: Told = field(default_factory=Told)
    vectorise: Vectorise | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels of which each row has one; none for other kinds."""
        return self.scoring.labels if self.kind == "classification" else ()

    @property
    def read_first(self) -> bool:
        """Whether a training reads all its rows once before the first step: what holds it on preferences."""
        return self.kind == "preference"

    def form(self, name: str) -> PromptForm:
        """A prompt form of this task."""
        return prompt_form(name, self.task, self.kind, self.scoring.labels, self.told)


def stratified(examples: Sequence[Example], count: int, seed: int, kind: str) -> tuple[Example, ...]:
    """`count` rows, seeded, with the classes in proportion, in their original order; all rows if there are no more."""
    if count >= len(examples):
        return tuple(examples)
    chance = random.Random(f"subset/{seed}")
    classes: dict[str, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        classes[stratum(example, kind)].append(index)
    ranked = []
    for members in classes.values():
        chance.shuffle(members)
        offset = chance.random()
        ranked += [((place + offset) / len(members), index) for place, index in enumerate(members)]
    return tuple(examples[index] for index in sorted(index for _, index in sorted(ranked)[:count]))


def classical_arm(bench: Bench, name: str) -> None:
    """A linear model on words or word vectors (labels, preferences), or the nearest row's answer (everything else)."""
    bench.watcher.begin(f"{name}: fitting", 1)
    fitted = fit_classical(bench.kind, bench.train, bench.validation, bench.task.seed, bench.vectorise)
    answers = score(bench.test, fitted.answer(bench.test), bench.scoring.metric)
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
    write_arm(bench.folder, {**record, "model": model or bench.task.model, "decoding": "generate"})
    bench.watcher.note(f"{name}: {status}, {why}")


_DECODINGS: dict[str, tuple[Decoding, str]] = {
    "classification": ("constrained", "a model may only write a label"),
    "extraction": ("constrained", "a model may only write JSON that fits the schema"),
    "preference": ("scored", "a model says which of the two answers is likelier"),
}


def model_decoding(kind: str, why_not: str | None = None) -> Setting:
    """Models may only write a label where one is wanted, and JSON of its schema where objects are, fine-tuned or not;
    of a pair they score both answers. `why_not` says why they cannot be held to that.

    Small untuned models rarely write one unaided, and a comparison that only shows this would flatter fine-tuning;
    a constrained answer is also finished as soon as one label is left.
    """
    if why_not is not None:
        return Setting("generate", f"answers cannot be held to the schema: {why_not}", "measured")
    return Setting(*_DECODINGS.get(kind, ("generate", "a model writes what it likes")), "default")


def answered(bench: Bench, model: Answerer, form: Form, examples: Sequence[Example]) -> list[Answer]:
    """Scored answers, the bar moving."""
    raw = model.answer(form, examples, model.suited(bench.scoring), bench.watcher.advance)
    return score(examples, raw, bench.scoring.metric)


def finish(bench: Bench, name: str, family: str, answers: list[Answer], details: Mapping[str, Any]) -> None:
    """Write answers.jsonl, then arm.json."""
    write_jsonl(bench.folder.arm(name) / "answers.jsonl", (answer.to_json() for answer in answers))
    record: dict[str, Any] = {"name": name, "family": family, "status": "done", "why": None, "seed": bench.task.seed}
    if bench.kind in KINDS:
        record["calibration"] = calibration(answers, details["decoding"])
    write_arm(bench.folder, {**record, **summary(answers, bench.test, bench.scoring.metric, bench.classes), **details})
    bench.watcher.note(f"{name}: {bench.scoring.metric.name} {_mean(answers):.3f} on {len(answers):,} test rows")


def model_details(bench: Bench, model: Answerer, form: Form) -> dict[str, Any]:
    """What arm.json tells of an arm that a model answers."""
    scoring = model.suited(bench.scoring)
    return {
        "decoding": scoring.decoding,
        "json_schema": scoring.schema if scoring.decoding == "constrained" and not scoring.labels else None,
        "max_new_tokens": scoring.max_new_tokens,
        "form": form.name,
        "prompt": form.messages(bench.test[0]),
        "opening": form.opening(),
        "keeps_own_system": form.keeps_own_system,
        "tools": bench.test[0].tool_definitions or None,
        "shots": [shot.id for shot in form.shots],
        **model.details(form, bench.validation, scoring),
        **_turns(bench, model, form),
    }


def _turns(bench: Bench, model: Answerer, form: Form) -> dict[str, Any]:
    """The loss of every turn of test conversations, where there are several turns and weights to ask."""
    if bench.kind != "chat" or not isinstance(model, LocalModel):
        return {}
    return {"turns": model.turn_losses(form, bench.test)}


def _classical_latency(fitted: Classical, examples: Sequence[Example]) -> dict[str, float]:
    seconds = []
    for example in examples[:40]:
        start = time.perf_counter()
        fitted.answer([example])
        seconds.append(time.perf_counter() - start)
    return {"p50": statistics.median(seconds), "p95": statistics.quantiles([*seconds, *seconds], n=20)[18]}


def _mean(answers: Sequence[Answer]) -> float:
    return sum(answer.score for answer in answers) / len(answers)
