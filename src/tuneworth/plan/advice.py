"""What an expert would say before anything is downloaded: needs by part, time by stage, whether it fits and what would.

Pure functions of facts about rows, model and machine. The plan that follows measures a few real steps; until then the
times come from the machine's rates and are good to a factor of about two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tuneworth.models.architecture import Architecture
from tuneworth.models.catalogue import Entry
from tuneworth.plan.budget import EVALUATIONS, FORWARD_SHARE
from tuneworth.plan.needs import (
    FULL_METHOD,
    Batch,
    Memory,
    Method,
    largest_batch,
    request_memory,
    request_seconds,
    training_memory,
    training_seconds,
)
from tuneworth.plan.settings import TrainingPlan

MICRO_BATCH_TOKENS = 4096
_SHOWN = 3  # models that would fit


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of rows in a prompt form: of each row in all and trained, and how many of them all rows begin with."""

    rows: tuple[int, ...]
    trained: tuple[int, ...]
    shared: int

    @property
    def mean(self) -> float:
        """Tokens of a row."""
        return sum(self.rows) / len(self.rows)

    @property
    def mean_trained(self) -> float:
        """Trained tokens of a row."""
        return sum(self.trained) / len(self.trained)


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done: rows to train on, to choose with and to judge with, and their lengths by prompt form.

    `lengths` are of a sample that holds the longest rows; `is_counted` tells whether the model's tokenizer counted.
    """

    train: int
    validation: int
    test: int
    lengths: Mapping[str, Lengths]
    is_counted: bool


@dataclass(frozen=True, slots=True)
class Means:
    """What there is: free bytes, operations and bytes per second, USD an hour."""

    free_bytes: int
    flops: float
    bytes_per_second: float
    precision: str
    device: str
    usd_per_hour: float


@dataclass(frozen=True, slots=True)
class Fit:
    """A way to train that fits, or the one that needs least; `memory` at its peak."""

    fits: bool
    method: Method
    batch: Batch
    memory: Memory
    why: str


def method_of(settings: TrainingPlan) -> Method:
    """The method of `settings`."""
    return Method(str(settings.method.value), int(settings.rank.value))


def find_fit(job: Job, model: Architecture, settings: TrainingPlan, means: Means) -> Fit:
    """The first that fits of: micro-batches as wanted, of one row, and of one row with blocks computed again."""
    batch_size = int(settings.batch_size.value)
    wanted = [_largest(lengths, batch_size) for lengths in job.lengths.values()]
    method = method_of(settings)
    tries = [
        (method, max(wanted, key=lambda b: _peak(model, method, b, means)), "as it is wanted"),
        (method, max((_alone(batch) for batch in wanted), key=lambda b: b.tokens), "with fewer tokens at a time"),
    ]
    again = replace(method, recompute=True)
    tries.append((again, tries[1][1], "with blocks computed again, a third slower"))
    for method, batch, why in tries:
        memory = training_memory(model, method, batch, means.precision, means.device)
        if memory.peak <= means.free_bytes:
            return Fit(True, method, batch, memory, why)
    return Fit(False, method, batch, memory, "not even one row at a time with blocks computed again")


def what_would_fit(
    job: Job, settings: TrainingPlan, model: Architecture, means: Means, entries: Sequence[Entry]
) -> list[str]:
    """Ways that would fit this memory instead, the mildest first."""
    found = []
    lora = replace(settings, method=replace(settings.method, value="lora"))
    if settings.method.value == FULL_METHOD and (fit := find_fit(job, model, lora, means)).fits:
        found.append(f"training.method=lora, which needs {fit.memory.peak / 1e9:.1f} GB")
    smaller = [
        entry
        for entry in reversed(entries)
        if entry.architecture.parameters < model.parameters
        and not entry.architecture.traits.unsupported
        and find_fit(job, entry.architecture, settings, means).fits
    ]
    if smaller:
        names = [f"{entry.id} ({entry.architecture.parameters / 1e9:.2g} B)" for entry in smaller[:_SHOWN]]
        found.append(f"a smaller model: {', '.join(names)}")
    return found


def stage_seconds(job: Job, model: Architecture, settings: TrainingPlan, means: Means, fit: Fit) -> dict[str, float]:
    """Seconds by stage at the machine's rates: all epochs that are wanted, all test rows; one request alone."""
    epochs, batch_size = float(settings.epochs.value), int(settings.batch_size.value)
    found: dict[str, float] = {}
    for name, lengths in job.lengths.items():
        steps = math.ceil(epochs * job.train / batch_size)
        step = _mean_batch(lengths, batch_size)
        a_step = training_seconds(model, fit.method, step, means.flops, means.bytes_per_second, means.precision)
        an_answer = answer_seconds(lengths, model, means)
        a_look = job.validation * (an_answer + FORWARD_SHARE * a_step / batch_size)
        found[f"train, {name} prompt"] = steps * a_step + EVALUATIONS * a_look
        found[f"answer test, {name} prompt"] = job.test * an_answer
    shortest = min(job.lengths.values(), key=lambda lengths: lengths.mean)
    prompt, answer = round(shortest.mean - shortest.mean_trained), round(shortest.mean_trained)
    found["one request alone"] = request_seconds(
        model, prompt, answer, means.flops, means.bytes_per_second, means.precision
    )
    return found


def answer_seconds(lengths: Lengths, model: Architecture, means: Means) -> float:
    """Seconds of a row among many: its own prompt (what all share is computed once), and its answer with others."""
    body = 2 * model.layers * model.block_parameters
    own = max(1.0, lengths.mean - lengths.shared)
    head = 2 * model.vocabulary * model.width * lengths.mean_trained
    return (body * own + head) / means.flops * 1.5


def request_needs(job: Job, model: Architecture, means: Means) -> Memory:
    """Memory of answering one request of the longest row."""
    longest = max(max(lengths.rows) for lengths in job.lengths.values())
    return request_memory(model, longest, means.precision, 1, means.device)


def too_long(job: Job, model: Architecture) -> dict[str, int]:
    """Rows of the sample that do not fit the model's context, by prompt form."""
    return {
        name: sum(tokens > model.context for tokens in lengths.rows)
        for name, lengths in job.lengths.items()
        if max(lengths.rows) > model.context
    }


def fit_to_json(fit: Fit) -> dict[str, Any]:
    """A JSON object."""
    return {
        "fits": fit.fits,
        "how": fit.why,
        "recompute": fit.method.recompute,
        "micro_batch": asdict(fit.batch),
        "peak_bytes": fit.memory.peak,
        "parts": dict(fit.memory.parts),
    }


def _peak(model: Architecture, method: Method, batch: Batch, means: Means) -> int:
    return training_memory(model, method, batch, means.precision, means.device).peak


def _largest(lengths: Lengths, batch_size: int) -> Batch:
    return largest_batch(lengths.rows, lengths.trained, batch_size, MICRO_BATCH_TOKENS, lengths.shared)


def _alone(batch: Batch) -> Batch:
    """One row of `batch`."""
    return Batch(1, batch.prefix + batch.length, math.ceil(batch.trained / batch.rows))


def _mean_batch(lengths: Lengths, batch_size: int) -> Batch:
    """A batch of mean rows behind what they share."""
    own = max(1, round(lengths.mean - lengths.shared))
    return Batch(batch_size, own, round(batch_size * lengths.mean_trained), lengths.shared)
