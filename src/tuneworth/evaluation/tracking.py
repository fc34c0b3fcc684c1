"""Training records for TensorBoard, Weights & Biases, MLflow and trackio, each through its own library; off by default.

metrics.jsonl is always written and is what everything here reads; trackers only get a copy.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tuneworth.errors import MachineError

Log = Callable[[Mapping[str, Any]], None]
_PROJECT = "tuneworth"


def check_trackers(names: Sequence[str]) -> None:
    """Raises MachineError with the install command when a tracker's library is not there."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise MachineError(
            f"not installed: {', '.join(missing)}",
            where="training.trackers",
            cure=f"pip install {' '.join(missing)}",
        )


@contextmanager
def tracking(names: Sequence[str], folder: Path, title: str, settings: Mapping[str, Any]) -> Iterator[Log]:
    """Inside the block every record goes to all trackers; `folder` is where those that write files write."""
    check_trackers(names)
    with ExitStack() as stack:
        logs = [stack.enter_context(_TRACKERS[name](folder, title, settings)) for name in names]

        def log(record: Mapping[str, Any]) -> None:
            numbers = {key: float(v) for key, v in record.items() if isinstance(v, int | float) and key != "step"}
            for each in logs:
                each(int(record["step"]), numbers)

        yield log


_Numbers = Callable[[int, Mapping[str, float]], None]


@contextmanager
def _tensorboard(folder: Path, title: str, settings: Mapping[str, Any]) -> Iterator[_Numbers]:
    writer = importlib.import_module("tensorboard.summary").Writer(str(folder / "tensorboard"))

    def log(step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            writer.add_scalar(f"{title}/{name}", value, step)

    try:
        yield log
    finally:
        writer.close()


@contextmanager
def _wandb(folder: Path, title: str, settings: Mapping[str, Any]) -> Iterator[_Numbers]:
    library = importlib.import_module("wandb")
    run = library.init(project=_PROJECT, name=title, dir=str(folder), config=dict(settings))
    try:
        yield lambda step, numbers: run.log(dict(numbers), step=step)
    finally:
        run.finish()


@contextmanager
def _mlflow(folder: Path, title: str, settings: Mapping[str, Any]) -> Iterator[_Numbers]:
    library = importlib.import_module("mlflow")
    library.set_experiment(_PROJECT)
    with library.start_run(run_name=title):
        library.log_params(dict(settings))
        yield lambda step, numbers: library.log_metrics(dict(numbers), step=step)


@contextmanager
def _trackio(folder: Path, title: str, settings: Mapping[str, Any]) -> Iterator[_Numbers]:
    library = importlib.import_module("trackio")
    library.init(project=_PROJECT, name=title, config=dict(settings))
    try:
        yield lambda step, numbers: library.log(dict(numbers), step=step)
    finally:
        library.finish()


_TRACKERS = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio}
