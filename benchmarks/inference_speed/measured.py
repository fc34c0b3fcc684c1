"""What every engine of the inference benchmark is given and gives back. Runs in each engine's own environment.

A job is a JSON file: prompts as token ids, how many tokens to write, the choices (ours alone can keep to them), and
the engine's settings. The result is a JSON file. Needs nothing but Python.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class Job:
    """One measurement of one engine."""

    def __init__(self, path: str) -> None:
        values = json.loads(Path(path).read_text("utf-8"))
        self.prompts: list[list[int]] = values["prompts"]
        self.warmup: list[list[int]] = values["warmup"]
        self.choices: list[list[int]] = values["choices"]
        self.limits: list[int] = values["limits"]  # new tokens of each prompt at most
        self.end_id: int = values["end_id"]
        self.one_by_one: bool = values["one_by_one"]
        self.model = Path(values["model"])
        self.settings: dict[str, Any] = values["settings"]
        self.threads: int = values["threads"]
        self.result = Path(values["result"])

    def measure(self, answer: Callable[[Sequence[list[int]], Sequence[int]], list[list[int]]]) -> None:
        """Time `answer` on the prompts, once, after a call on the warm-up prompts; write the result."""
        answer(self.warmup, [min(4, self.limits[0])] * len(self.warmup))
        before, start = cpu_seconds(), time.perf_counter()
        written = answer(self.prompts, self.limits)
        wall = time.perf_counter() - start
        own, everybody = (now - then for now, then in zip(cpu_seconds(), before, strict=True))
        tokens = sum(map(len, written))
        result = {
            "prompts_per_second": len(self.prompts) / wall,
            "tokens_per_second": tokens / wall,
            "prompts": len(self.prompts),
            "written_tokens": tokens,
            "seconds": wall,
            "peak_bytes": peak_bytes(),
            "cores_used_by_others": max(0.0, everybody - own) / wall,
            "answers": written,
        }
        self.result.write_text(json.dumps(result), "utf-8")


def peak_bytes() -> int:
    """Peak resident memory of this process. Linux counts in `ru_maxrss` what the process was before it became this
    program, so a small one would show the size of its parent."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text("utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def cpu_seconds() -> tuple[float, float]:
    """Processor seconds of this process, and of everybody on this machine (0 where /proc/stat is not there)."""
    own, stat = time.process_time(), Path("/proc/stat")
    if not stat.exists():
        return own, own
    fields = [int(field) for field in stat.read_text().split("\n", 1)[0].split()[1:9]]
    return own, (sum(fields) - fields[3] - fields[4]) / 100  # idle and waiting for disks are no work
