"""What every engine of the training benchmark is given and gives back. Runs in each engine's own environment.

A job is a JSON file: the rows of every optimiser step as token ids and loss masks, the model, the adapter to start
from, and the engine's settings. The result is a JSON file: seconds and loss of every step, and the peak of memory.
Needs torch and nothing else.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids, and for each whether it is trained (predicted in the loss)."""

    ids: list[int]
    trained: list[int]

    @property
    def labels(self) -> list[int]:
        """The ids where trained, -100 elsewhere: the form that transformers and TRL take."""
        return [token if trained else -100 for token, trained in zip(self.ids, self.trained, strict=True)]


@dataclass(frozen=True, slots=True)
class Job:
    """One measurement of one engine. `steps` optimiser steps, of which the first `warmup_steps` are not timed.

    The learning rate falls linearly from `learning_rate` to 0 over `steps`. After `maximum_seconds` an engine stops
    at the next step's end. `save` is where the trained adapter goes (peft's layout), or None.
    """

    batches: list[list[Row]]
    model: Path
    adapter: Path
    result: Path
    save: Path | None
    device: str
    threads: int
    steps: int
    warmup_steps: int
    learning_rate: float
    clip_norm: float
    seed: int
    maximum_seconds: float
    settings: dict[str, Any]

    @property
    def rows(self) -> list[Row]:
        """The rows of all steps in the order in which they are trained."""
        return [row for batch in self.batches for row in batch]

    @property
    def batch_rows(self) -> int:
        """Rows of a step."""
        return len(self.batches[0])


def read_job(path: Path) -> Job:
    """The job that `path` describes; `rows` names the file of rows, `batch_rows` takes a share of every step's rows.

    Sets the number of threads.
    """
    values = json.loads(path.read_text("utf-8"))
    batches = json.loads(Path(values.pop("rows")).read_text("utf-8"))["batches"][: values["steps"]]
    share = values.pop("batch_rows")
    rows = [[Row(row["ids"], row["trained"]) for row in spread(batch, share)] for batch in batches]
    for key in ("model", "adapter", "result", "save"):
        values[key] = Path(values[key]) if values[key] else None
    job = Job(batches=rows, **values)
    torch.set_num_threads(job.threads)
    return job


def spread(batch: list[Any], count: int) -> list[Any]:
    """`count` members of `batch`, evenly spread: a share of a step's rows with the lengths of the whole step."""
    return [batch[(2 * i + 1) * len(batch) // (2 * count)] for i in range(count)]


class Meter:
    """Seconds and loss of every step, measured from one step's end to the next: all that an engine does counts."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._started = time.perf_counter()
        self._marks: list[float] = []
        self._losses: list[float] = []
        self._extra: dict[str, Any] = {}
        self._used = (0.0, 0.0)

    def begin(self) -> None:
        """Training starts now."""
        self._marks = [self._now()]
        self._used = cpu_seconds()

    def step(self, loss: float) -> bool:
        """A step is done. True when the engine shall stop because its time is up."""
        self._marks.append(self._now())
        self._losses.append(loss)
        enough = len(self._losses) > self._job.warmup_steps
        return enough and self._marks[-1] - self._marks[0] > self._job.maximum_seconds

    def note(self, **values: Any) -> None:
        """More facts for the result."""
        self._extra |= values

    def write(self) -> None:
        """Write the result file."""
        seconds = [after - before for before, after in zip(self._marks, self._marks[1:], strict=False)]
        timed = seconds[self._job.warmup_steps :]
        rows = sum(len(batch) for batch in self._job.batches[self._job.warmup_steps : len(seconds)])
        wall = self._marks[-1] - self._marks[0]
        own, everybody = (now - before for now, before in zip(cpu_seconds(), self._used, strict=True))
        result = {
            "rows_per_second": rows / math.fsum(timed),
            "timed_rows": rows,
            "timed_steps": len(timed),
            "batch_rows": self._job.batch_rows,
            "step_seconds": seconds,
            "losses": self._losses,
            "peak_bytes": peak_bytes(),
            "gpu_peak_bytes": torch.cuda.max_memory_allocated() if self._job.device == "cuda" else None,
            "cores_used": own / wall,
            "cores_used_by_others": max(0.0, everybody - own) / wall,
            "before_first_step_seconds": self._marks[0] - self._started,
        }
        self._job.result.write_text(json.dumps(result | self._extra), "utf-8")

    def _now(self) -> float:
        if self._job.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def cpu_seconds() -> tuple[float, float]:
    """Processor seconds of this process with its children (compilers), and of everybody on this machine (0 where
    /proc/stat is not there)."""
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    stat = Path("/proc/stat")
    if not stat.exists():
        return own, 0.0
    user, nice, system, _, _, irq, softirq, *_ = map(int, stat.read_text().split("\n", 1)[0].split()[1:])
    return own, (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def peak_bytes() -> int:
    """The most memory this process has had resident (VmHWM)."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
