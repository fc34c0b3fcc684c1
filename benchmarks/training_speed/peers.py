"""The peers: where they are installed, which settings each of them is tried with, and the search for the best."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"
REQUIREMENTS = {
    "hugging-face": ("torch", "transformers", "peft", "trl", "datasets", "accelerate", "numpy>=2"),
    "litgpt": ("torch", "litgpt", "safetensors"),
}
"""Environments of their own: litgpt holds numpy below 2, which the others' pyarrow refuses."""

Settings = dict[str, Any]
Axes = tuple[tuple[str, tuple[Any, ...]], ...]


@dataclass(frozen=True, slots=True)
class Peer:
    """An engine to compare with. The search starts at `start` and improves one axis after the other."""

    name: str
    script: str
    environment: str
    start: Mapping[str, Any]
    axes: Axes

    def at(self, workload: str) -> tuple[Settings, Axes]:
        """Start and axes for a workload: how many rows a forward pass takes depends on their length."""
        sizes = MICRO_BATCHES[workload]
        start = {**self.start, "micro_batch": sizes[0]}
        return start, tuple((key, sizes if key == "micro_batch" else values) for key, values in self.axes)


MICRO_BATCHES = {"short": (32, 16, 8), "shared_prefix": (4, 2, 1)}
_PRECISION = ("precision", ("bf16+autocast", "bf16-autocast", "bf16", "fp32"))
_ATTENTION = ("attention", ("eager", "sdpa"))
_MICRO = ("micro_batch", ())
_ROWS = ("rows", ("padded", "packed"))
_COMPILE = ("compile", (False, True))
_START: Settings = {"precision": "bf16+autocast", "attention": "eager", "rows": "padded", "compile": False}
PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "trl", "trl_sft.py", "hugging-face", {**_START, "trainer": "trl"},
            (_PRECISION, _ATTENTION, _MICRO, _ROWS, _COMPILE),
        ),
        Peer(
            "transformers", "trl_sft.py", "hugging-face", {**_START, "trainer": "transformers"},
            (_PRECISION, _ATTENTION, _MICRO, _COMPILE),
        ),
        Peer(
            "plain", "plain_loop.py", "hugging-face", {**_START, "head": "trained"},
            (_PRECISION, ("head", ("trained", "all")), _ATTENTION, _MICRO, _ROWS, _COMPILE),
        ),
        Peer(
            "litgpt", "litgpt_lora.py", "litgpt", {"precision": "bf16-mixed"},
            (("precision", ("bf16-mixed", "bf16-true", "32-true")), _MICRO),
        ),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting that was tried: its rows per second, or why it does not count."""

    settings: Settings
    rows_per_second: float | None
    why_not: str | None = None


def search(start: Settings, axes: Axes, measure: Callable[[Settings], Trial]) -> tuple[Settings | None, list[Trial]]:
    """The fastest settings found by improving one axis after the other, and all trials. None if nothing worked."""
    trials: dict[str, Trial] = {}

    def rate(settings: Settings) -> float:
        key = json.dumps(settings, sort_keys=True)
        if key not in trials:
            trials[key] = measure(settings)
        return trials[key].rows_per_second or 0.0

    best = start
    for name, values in axes:
        best = max(({**best, name: value} for value in values), key=rate)
    return (best if rate(best) else None), list(trials.values())


def python_of(environment: str, root: Path, say: Callable[[str], None]) -> Path:
    """The Python of a peers' environment under `root`, installed at the first call. Raises SystemExit if it fails."""
    folder = root / environment
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    wanted = "\n".join(REQUIREMENTS[environment])
    marker = folder / "installed.txt"
    if marker.is_file() and marker.read_text("utf-8") == wanted:
        return python
    say(f"installing {', '.join(REQUIREMENTS[environment])} into {folder} (once)")
    commands = [
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "-c", str(CONSTRAINTS), *REQUIREMENTS[environment]],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            tail = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise SystemExit(f"the peers' environment could not be installed: {tail[0]}\n(in {folder})")
    marker.write_text(wanted, "utf-8")
    return python
