"""What the live view shows: the loss and pace as measured, a time left that does not lie, and every warning."""

from __future__ import annotations

import gc
import io
from typing import Any

import pytest
from rich.console import Console

from tuneworth import cli, console
from tuneworth.console import ConsoleWatcher


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def shown(watcher: ConsoleWatcher) -> dict[str, Any]:
    (task,) = watcher._progress.tasks
    return {"completed": task.completed, **task.fields}


def step(number: int, **changes: Any) -> dict[str, Any]:
    plain = {"step": number, "loss": 1.25, "tokens": 900, "step_seconds": 2.0, "seconds_left": 75.0}
    return plain | changes


def test_a_step_shows_its_loss_the_rate_of_the_last_steps_and_the_time_left_that_the_training_measured() -> None:
    watcher = ConsoleWatcher()
    watcher.begin("lora-short: training", 10)
    watcher.record(step(1))
    assert shown(watcher) == {"completed": 1, "live": "loss 1.250  450 tokens/s", "left": "1m15s left"}
    watcher.record(step(2, tokens=300, seconds_left=-3.0))
    assert shown(watcher) == {"completed": 2, "live": "loss 1.250  300 tokens/s", "left": "0s left"}


def test_elsewhere_the_time_left_is_that_of_the_mean_pace_even_when_the_clock_stands(clock: list[float]) -> None:
    watcher = ConsoleWatcher()
    watcher.begin("answering test", 100)
    watcher.advance(10)
    assert shown(watcher)["left"] == "0s left"
    clock[0] += 20
    watcher.advance(10)
    assert shown(watcher)["left"] == "1m20s left"
    clock[0] += 60
    watcher.advance(80)
    assert shown(watcher) == {"completed": 100, "live": "", "left": "0s left"}
    watcher.begin("the next step", 5)
    assert shown(watcher) == {"completed": 0, "live": "", "left": ""}


def test_a_warning_and_an_evaluation_are_lines_that_stay() -> None:
    watcher = ConsoleWatcher()
    watcher._console = Console(file=io.StringIO(), width=200)
    watcher.begin("lora-short: training", 10)
    watcher.record(step(7, warning="loss spike: 9.000 after a median of 1.000 over the last 20 steps"))
    watcher.record({"step": 8, "steps": 12, "validation_loss": 0.5, "validation_score": 0.75})
    file = watcher._console.file
    assert watcher._progress.tasks[0].total == 12  # as many steps as fit now
    assert isinstance(file, io.StringIO)
    assert "warning at step 7: loss spike: 9.000" in file.getvalue()
    watcher.record({"step": 9, "warning": "the loss or its gradient is not finite at step 9"})
    assert "warning at step 9: the loss or its gradient is not finite" in file.getvalue()
    assert "step 8 of 12: validation score 0.750, loss 0.500" in file.getvalue()


def test_libraries_are_loaded_without_the_collector_which_is_on_again_whatever_happens() -> None:
    with pytest.raises(ImportError), cli._loading():
        assert not gc.isenabled()
        raise ImportError("a part is missing")
    assert gc.isenabled()
    gc.unfreeze()
