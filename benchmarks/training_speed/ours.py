"""tuneworth's own training loop as `tuneworth train` runs it, on the rows and batches that the peers train.

Settings: none; what tuneworth chooses for this machine counts. The batches are tuneworth's own for the pool of rows
and the seed; that they are those of the job is checked.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path

_STARTED = time.perf_counter()
# As the command line does.
os.environ.setdefault("GOMP_SPINCOUNT", "50000")
gc.disable()

import contextlib
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from job import Job, Meter, read_job
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tuneworth.models.adapters import add_lora, save_adapter, trainable
from tuneworth.models.kernels import compile_kernels
from tuneworth.models.machine import compiled_folder, this_machine
from tuneworth.pipeline.workshop import local_model
from tuneworth.training import Hooks, Pack, Row, Settings, answer_loss, train

gc.freeze()
gc.enable()
_IMPORTED = time.perf_counter()


class _TimeIsUp(Exception):
    pass


class Phases:
    """Where the time of the timed steps goes, seen from outside the loop: what it calls, and when."""

    def __init__(self, device: str) -> None:
        self.seconds: Counter[str] = Counter()
        self._device = device
        self._last = time.perf_counter()
        self._in_step = False
        register_optimizer_step_pre_hook(lambda *_: self._mark("backward"))

    def loss(self, model: torch.nn.Module, pack: Pack) -> torch.Tensor:
        """answer_loss; what came before it is packing at a step's start, and the last part's backward pass after."""
        self._mark("backward" if self._in_step else "packing")
        self._in_step = True
        value = answer_loss(model, pack)
        self._mark("forward")
        return value

    def step(self, timed: bool) -> None:
        """A step is done; an untimed one is forgotten."""
        self._mark("optimiser")
        self._in_step = False
        if not timed:
            self.seconds.clear()

    def _mark(self, phase: str) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[phase] += now - self._last
        self._last = now


def pool_of(path: Path) -> list[Row]:
    """The training rows in the order in which they are given to tuneworth."""
    return [
        Row(row["id"], tuple(row["ids"]), tuple(map(bool, row["trained"])))
        for row in json.loads(path.read_text("utf-8"))["pool"]
    ]


def put_in(parameters: Mapping[str, torch.nn.Parameter], adapter: Path) -> None:
    """The weights that everybody starts from, strictly."""
    saved = load_file(adapter / "adapter_model.safetensors")
    names = {name.replace(".default.", "."): parameter for name, parameter in parameters.items()}
    if saved.keys() != names.keys():
        raise SystemExit(f"the saved adapter has other weights: {sorted(saved.keys() ^ names.keys())[:4]}")
    with torch.no_grad():
        for name, value in saved.items():
            names[name].copy_(value)


def run(job: Job, meter: Meter, pool: list[Row]) -> None:
    """Train, and note where the time goes."""
    local = local_model(str(job.model), this_machine())
    compile_kernels(True, compiled_folder())  # as a run of ten minutes or more does
    loaded = time.perf_counter()
    adapter = add_lora(local.model, rank=16, alpha=32, seed=job.seed)
    parameters = trainable(adapter)
    put_in(parameters, job.adapter)
    records: list[Mapping[str, Any]] = []
    phases = Phases(job.device)

    def on_record(record: Mapping[str, Any]) -> None:
        if "loss" not in record:
            return
        records.append(record)
        phases.step(timed=len(records) > job.warmup_steps)
        if meter.step(record["loss"]):
            raise _TimeIsUp

    settings = Settings(
        steps=job.steps, batch_size=job.batch_rows, learning_rate=job.learning_rate, warmup_steps=0,
        evaluate_every=job.steps + 1, seed=job.seed, clip_norm=job.clip_norm, device=job.device,
    )  # fmt: skip
    hooks = Hooks(evaluate=lambda: {"validation_score": 0.0, "validation_loss": 0.0}, on_record=on_record)
    prepared = time.perf_counter()
    meter.begin()
    with contextlib.suppress(_TimeIsUp):
        train(adapter, parameters, pool, settings, phases.loss, hooks)
    wanted = [sum(sum(row.trained[1:]) for row in batch) for batch in job.batches[: len(records)]]
    computed = sum(int(record["tokens"]) for record in records[job.warmup_steps :])
    meter.note(
        same_batches=[int(record["trained_tokens"]) for record in records] == wanted,
        computed_tokens=computed,
        phases=dict(phases.seconds),
        startup_seconds={
            "import": _IMPORTED - _STARTED,
            "load": loaded - _IMPORTED,
            "adapter": prepared - loaded,
        },
        dtype=str(next(iter(parameters.values())).dtype).removeprefix("torch."),
    )
    if job.save:
        save_adapter(adapter, job.save, str(job.model))


if __name__ == "__main__":
    path = Path(sys.argv[1])
    rows = Path(json.loads(path.read_text("utf-8"))["rows"])
    the_job = read_job(path)
    the_meter = Meter(the_job)
    run(the_job, the_meter, pool_of(rows))
    the_meter.write()
