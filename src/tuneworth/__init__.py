"""tuneworth: should you fine-tune? Measured on your own data, and then done for you.

Packages in the order in which data flows:

errors      the tree of errors: message, cure, exit code
task        task.yaml becomes one frozen Task
store       run folders, locks, cache, atomic writes
rendering   messages become token ids and loss mask
data        files become Examples: read, split, audit, clean
models      sources, loading, attention over shared prefixes, adapters, this machine
plan        settings with reasons, the budget allotted
training    pack, loss, the one loop
inference   generation with caches and shared prefixes, chat
evaluation  arms, prompts, metrics, per-row scores
decision    statistics, costs, verdict: pure functions
report      a run folder becomes one HTML file
pipeline    the run, top to bottom
cli         one function per command
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneworth.errors import InputError, Interrupted, MachineError, RunBusyError, TuneworthError
from tuneworth.task import Task, load_task

if TYPE_CHECKING:
    from tuneworth.pipeline.finished import Run

__all__ = [
    "InputError",
    "Interrupted",
    "MachineError",
    "RunBusyError",
    "Task",
    "TuneworthError",
    "load_run",
    "load_task",
    "run",
]


def run(data: str | Path | None = None, *, task: Task | str | Path | None = None, **settings: Any) -> Run:
    """From a data file to a measured verdict.

    `settings` are keys of task.yaml (`budget="10m"`, `seed=1`; nested ones as `{"data.test": "test.csv"}` through
    `overrides=`), `out`, the run folder, and `allow_code=True` when the task's metric is a function of yours.
    Returns the finished Run: `.verdict`, `.report`, `.model.chat([...])`.
    Raises InputError, MachineError or RunBusyError.
    """
    clock = time.monotonic()
    from tuneworth.pipeline.running import run as run_pipeline

    out, allow_code = settings.pop("out", None), bool(settings.pop("allow_code", False))
    overrides = {**settings.pop("overrides", {}), **settings}
    if data is not None:
        overrides["data.train"] = str(data)
    if not isinstance(task, Task):
        task = load_task(Path(task) if task else None, overrides)
    elif overrides:
        raise InputError("give settings inside the Task, or a task file with settings", where="run()")
    return run_pipeline(task, out=Path(out) if out else None, allow_code=allow_code, clock=clock)


def load_run(path: str | Path) -> Run:
    """A run folder that was made before. Raises InputError when there is none."""
    from tuneworth.pipeline.finished import Run

    return Run(Path(path))
