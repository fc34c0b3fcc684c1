"""Runs engines one at a time, each in a fresh child process, and keeps what was measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DISTURBED = 0.15
"""Cores that other processes used during a measurement, from which on it is repeated, and said to be disturbed."""


class TimeIsUp(Exception):
    """`--minutes` are over; what was measured is kept, and the next call goes on from there."""


class Kept:
    """Results by name in a JSON file; a name that is there is not measured again."""

    def __init__(self, path: Path, deadline: float) -> None:
        self.path = path
        self._deadline = deadline
        self._parts: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        """The part `name`, measured and written to the file if it is not there. Raises TimeIsUp."""
        if name not in self._parts:
            if time.monotonic() > self._deadline:
                raise TimeIsUp
            self.put(name, measure())
        return self._parts[name]

    def put(self, name: str, part: Any) -> None:
        """Keep a part that took no measuring."""
        self._parts[name] = part
        aside = self.path.with_suffix(".part")
        aside.write_text(json.dumps(self._parts, indent=1), "utf-8")
        aside.replace(self.path)

    def peek(self, name: str) -> Any:
        """The part `name`, or None if it was not measured."""
        return self._parts.get(name)

    def items(self, start: str) -> list[tuple[str, Any]]:
        """The parts whose names begin with `start`, in the order in which they were measured."""
        return [(name, part) for name, part in self._parts.items() if name.startswith(start)]

    def drop(self, start: str) -> None:
        """Forget the parts whose names begin with `start`."""
        self._parts = {name: part for name, part in self._parts.items() if not name.startswith(start)}


@dataclass(frozen=True, slots=True)
class Child:
    """How an engine's process is started."""

    python: Path
    script: str
    environment: Mapping[str, str]
    threads: int

    def run(self, *arguments: str, seconds: float) -> str | None:
        """Run it to its end; None, or the last line of its error. One that takes longer than `seconds` is ended."""
        process = subprocess.Popen(
            [str(self.python), str(HERE / self.script), *arguments],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(self.threads), **self.environment},
        )  # fmt: skip
        try:
            _, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return f"not done after {seconds:.0f} s"
        except BaseException:
            process.kill()  # nothing that was started outlives an interruption
            raise
        return None if process.returncode == 0 else (errors.strip().splitlines() or [f"exit {process.returncode}"])[-1]


def measure(
    child: Child, job: Mapping[str, Any], say: Callable[[str], None], *, seconds: float = 900.0, attempts: int = 2
) -> dict[str, Any]:
    """The result of `job`, or {"error": why}. Repeated while other processes disturb it; the quietest run counts."""
    best: dict[str, Any] | None = None
    for attempt in range(attempts):
        with tempfile.TemporaryDirectory() as folder:
            path, result = Path(folder) / "job.json", Path(folder) / "result.json"
            path.write_text(json.dumps({**job, "result": str(result)}), "utf-8")
            error = child.run(str(path), seconds=seconds)
            if error is not None:
                return {"error": error}
            found: dict[str, Any] = json.loads(result.read_text("utf-8"))
        if best is None or found["cores_used_by_others"] < best["cores_used_by_others"]:
            best = found
        if best["cores_used_by_others"] <= DISTURBED:
            return best
        others = f"other processes used {found['cores_used_by_others']:.1f} cores meanwhile"
        say(f"  {others}" + (", once more" if attempt + 1 < attempts else ""))
    return {**(best or {}), "disturbed": True}


def children(root: Path, python_of: Callable[[str], Path], device: str, threads: int) -> Callable[[str, str], Child]:
    """How to start a script in an environment: `ours` is this Python with the tuneworth that is imported here."""

    def child(script: str, environment: str) -> Child:
        common = {"GOMP_SPINCOUNT": "50000", "HF_HUB_OFFLINE": "1"}
        if device == "cpu":
            common["CUDA_VISIBLE_DEVICES"] = ""
        if environment == "ours":
            # Caches that start empty: what tuneworth compiles for later runs is part of its start.
            caches = {name: str(root / "caches") for name in ("TUNEWORTH_CACHE", "TORCHINDUCTOR_CACHE_DIR")}
            return Child(Path(sys.executable), script, common | caches, threads)
        return Child(python_of(environment), script, common, threads)

    return child
