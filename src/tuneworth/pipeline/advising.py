"""Advice before anything is downloaded or started: the rows as they stand, the model's published numbers, this machine.

Nothing here needs weights. `make_plan` follows with a few measured steps and writes plan.json.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import psutil

from tuneworth.data import Example, read_examples
from tuneworth.data.registered import data_file, pinned
from tuneworth.decision import machine_hour_price
from tuneworth.errors import InputError, MachineError
from tuneworth.evaluation.prompts import FULL, SHORT, PromptForm, prompt_form
from tuneworth.models.catalogue import catalogue, entry_of
from tuneworth.models.machine import this_machine
from tuneworth.models.rates import choose_precision, machine_rates
from tuneworth.models.sources import find_architecture, folder_at_hand
from tuneworth.pipeline.candidates import least_memory, memory_of
from tuneworth.plan import training_plan
from tuneworth.plan.advice import (
    Job,
    Lengths,
    Means,
    find_fit,
    fit_to_json,
    request_needs,
    stage_seconds,
    too_long,
    what_would_fit,
)
from tuneworth.power import smallest_detectable_difference
from tuneworth.rendering import Renderer
from tuneworth.task import Task

SCHEMA = "tuneworth.advice/1"
_SAMPLE, _LONGEST = 400, 32
_BYTES_A_TOKEN, _TOKENS_A_MESSAGE = 4.0, 6  # where the model's tokenizer is not at hand
_VALIDATION_LEAST, _VALIDATION_MOST = 30, 500  # data.splitting
_DISAGREE = 0.2  # share of rows on which exactly one of two arms is right: a usual value before anything is known
_GPU_FREE = 0.9


def advise(task: Task) -> dict[str, Any]:
    """The advice as one JSON object. Reads the data and this machine; downloads at most a config.json.

    Raises InputError for mistakes in the data or the model's id, and MachineError when the training cannot fit.
    """
    task = pinned(task)
    if task.data.train is None:
        raise InputError("no data is named", where="data.train", cure="name a data file")
    reading = read_examples(data_file(task.data.train), task.data.columns, task.kind)
    examples, kind = reading.examples, reading.shape.kind
    model_id = task.model
    model, entry = find_architecture(model_id), entry_of(model_id)
    job = _job(task, examples, kind, model_id)
    short = job.lengths[SHORT]
    settings = training_plan(
        task.training,
        train_rows=job.train,
        width=model.width,
        preference=kind == "preference",
        trained_tokens=round(job.train * short.mean_trained),
        adapter_parameters_a_rank=model.lora_parameters(1),
    )
    means, machine, precision_why = _means(task)
    fit = find_fit(job, model, settings, means)
    seconds = stage_seconds(job, model, settings, means, fit)
    total = sum(value for name, value in seconds.items() if name != "one request alone")
    advice = {
        "schema": SCHEMA,
        "model": {
            "id": model_id,
            "parameters": model.parameters,
            "context": model.context,
            "licence": entry.licence.id if entry else None,
            "licence_limits": entry.licence.limits if entry else None,
            "unsupported": model.traits.unsupported or None,
            "source": entry.source if entry else None,
        },
        "rows": {"train": job.train, "validation": job.validation, "test": job.test},
        "tokens": {
            name: {
                "mean": round(lengths.mean, 1),
                "longest": max(lengths.rows),
                "shared": lengths.shared,
                "trained": round(lengths.mean_trained, 1),
            }
            for name, lengths in job.lengths.items()
        },
        "tokens_counted": job.is_counted,
        "settings": settings.to_json() | {"precision": {"value": means.precision, "reason": precision_why}},
        "memory": fit_to_json(fit) | {"free_bytes": means.free_bytes},
        "request": {
            "peak_bytes": request_needs(job, model, means).peak,
            "seconds": seconds["one request alone"],
            "usd_per_1k": 1000 * seconds["one request alone"] * means.usd_per_hour / 3600,
        },
        "seconds": seconds,
        "predicted": {"seconds": total, "usd": total / 3600 * means.usd_per_hour, "peak_bytes": fit.memory.peak},
        "budget_seconds": task.budget,
        "test_shows": smallest_detectable_difference(
            _DISAGREE, job.test, 1 - task.decision.confidence, kind == "classification"
        ),
        "machine": str(machine),
    }
    _refuse_unfit(advice, lambda: what_would_fit(job, settings, model, means, catalogue()))
    _refuse_short_context(job, model.context, model_id, too_long(job, model))
    return advice


def check_fits(task: Task) -> None:
    """Refuse a model that this machine cannot train even one short row of, before it is downloaded.

    Of a hub id outside the catalogue nothing is known yet. Raises MachineError.
    """
    model = task.model
    if task.is_raced or entry_of(model) is None:
        return  # what does not fit is left out of a race
    facts, machine = find_architecture(model), this_machine()
    needed, most = least_memory(task, facts, machine.device), memory_of(machine)
    if needed > most:
        raise MachineError(
            f"training it needs at least {needed / 1e9:.0f} GB of memory, this machine has {most / 1e9:.0f} GB",
            where=model,
            cure="`tuneworth plan DATA --quick` says what would fit",
        )


def _refuse_unfit(advice: dict[str, Any], alternatives: Callable[[], list[str]]) -> None:
    """Raises MachineError with what would fit when the training cannot, and for attention that is not supported."""
    memory, model = advice["memory"], advice["model"]
    if model["unsupported"]:
        raise MachineError(
            f"this model needs {model['unsupported']}, which is not supported yet",
            where=model["id"],
            cure="choose another one: `tuneworth models`",
        )
    if memory["fits"]:
        return
    parts = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in memory["parts"].items())
    found = alternatives()
    raise MachineError(
        f"training needs {memory['peak_bytes'] / 1e9:.1f} GB even one row at a time ({parts}), "
        f"{memory['free_bytes'] / 1e9:.1f} GB are free",
        where=model["id"],
        cure=("what would fit: " + "; or ".join(found))
        if found
        else "close other programs, or use a machine with more memory",
    )


def _refuse_short_context(job: Job, context: int, model: str, long: dict[str, int]) -> None:
    """Raises InputError when no row of a prompt form fits the model's context."""
    for form, count in long.items():
        sampled = len(job.lengths[form].rows)
        if count == sampled:
            raise InputError(
                f"none of {sampled} sampled rows fits the model's context of {context:,} tokens behind the {form} "
                f"prompt (the shortest has {min(job.lengths[form].rows):,})",
                where=model,
                cure=f"`tuneworth models --context {max(job.lengths[form].rows)}` lists models that hold them",
            )


def _job(task: Task, examples: Sequence[Example], kind: str, model: str) -> Job:
    """Rows of each part, as they will be split, and the lengths of a sample with the longest rows in it."""
    held = [_given(task.data.test, task), _given(task.data.validation, task)]
    test = held[0] if held[0] is not None else round(task.data.test_share * len(examples))
    left = len(examples) - (test if held[0] is None else 0)
    validation = held[1]
    if validation is None:
        validation = round(min(max(0.1 * left, _VALIDATION_LEAST), _VALIDATION_MOST, 0.2 * left))
        left -= validation
    labels = tuple(sorted({e.answer for e in examples})) if kind == "classification" else ()
    if task.prompt.labels != "auto":
        labels = tuple(task.prompt.labels)
    folder = folder_at_hand(model)
    renderer = Renderer.load(folder) if folder else None
    sample = _sample(examples)
    lengths = {name: _lengths(prompt_form(name, task, kind, labels), sample, renderer) for name in (SHORT, FULL)}
    if lengths[SHORT] == lengths[FULL]:
        del lengths[FULL]
    return Job(max(1, left), validation, test, lengths, renderer is not None)


def _given(reference: str | None, task: Task) -> int | None:
    """Rows of a file that is named; None when the part is to be split off."""
    if reference is None:
        return None
    return len(read_examples(data_file(reference), task.data.columns, task.kind, rows_needed=1).examples)


def _sample(examples: Sequence[Example]) -> list[Example]:
    """Every so many rows, and the longest."""
    step = max(1, len(examples) // _SAMPLE)
    longest = sorted(examples, key=lambda e: len(e.answer) + sum(len(m.content) for m in e.messages))[-_LONGEST:]
    return [*examples[::step], *longest]


def _lengths(form: PromptForm, sample: Sequence[Example], renderer: Renderer | None) -> Lengths:
    rows, trained = [], []
    for example in sample:
        messages = [*form.messages(example), {"role": "assistant", "content": example.answer}]
        if renderer is not None:
            rendered = renderer.training(messages)
            rows.append(len(rendered.ids))
            trained.append(sum(rendered.trained[1:]))
        else:
            rows.append(sum(_estimated(message.get("content")) for message in messages))
            trained.append(_estimated(example.answer) - _TOKENS_A_MESSAGE + 1)
    shared = sum(_estimated(message.get("content")) for message in form.opening())
    if renderer is not None:
        shared = _shared(renderer, form, sample)
    return Lengths(tuple(rows), tuple(trained), shared)


def _shared(renderer: Renderer, form: PromptForm, sample: Sequence[Example]) -> int:
    """Tokens with which all prompts of a few rows begin."""
    prompts = [renderer.prompt(form.messages(example)) for example in sample[:8]]
    first, last = min(prompts), max(prompts)
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def _estimated(text: str | None) -> int:
    return math.ceil(len((text or "").encode()) / _BYTES_A_TOKEN) + _TOKENS_A_MESSAGE


def _means(task: Task) -> tuple[Means, Any, str]:
    """What this machine has free and does per second, the machine, and why this precision."""
    machine = this_machine()
    rates = machine_rates(machine)
    fixed = task.training.precision
    precision, why = choose_precision(machine, rates) if fixed == "auto" else (fixed, "fixed by you")
    free = (
        int(_GPU_FREE * machine.gpu_memory_bytes[0])
        if machine.gpus
        else min(machine.memory_bytes, int(psutil.virtual_memory().available))
    )
    price = machine_hour_price(task.decision.usd_per_machine_hour, machine.cores, len(machine.gpus))
    means = Means(
        free,
        rates.flops(precision),
        rates.memory_bytes_per_second,
        precision,
        machine.device,
        price.usd_per_machine_hour,
    )
    return means, machine, why
