"""What this machine is: cores, memory, disk, processor features, GPUs. What it can do is measured in models.rates."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from tuneworth.store.cache import cache_folder

DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
_PAYS_WIDTH, _PAYS_SECONDS, _PAYS_AGAIN_SECONDS = 256, 300, 90
_CONTROL_GROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts of this machine. Bytes in bytes; `dtype` is the precision that its units are made for."""

    system: str
    processor: str
    cores: int
    memory_bytes: int
    free_disk_bytes: int
    features: tuple[str, ...]
    gpus: tuple[str, ...]
    gpu_memory_bytes: tuple[int, ...]
    dtype: str

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)

    @property
    def device(self) -> str:
        """Where models run: the first GPU if there is one, else the processor."""
        return "cuda" if self.gpus else "cpu"

    def __str__(self) -> str:
        gpus = f", {', '.join(self.gpus)}" if self.gpus else ""
        return f"{self.cores} cores, {self.memory_bytes / 2**30:.0f} GiB memory, {self.dtype}{gpus}"


def this_machine() -> Machine:
    """Look at this machine. Takes milliseconds; nothing is measured. A container's limits count as the machine's."""
    features = _processor_features()
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    cache = cache_folder()
    existing = next(parent for parent in (cache, *cache.parents) if parent.exists())
    fast_bf16 = bool(gpus) or "amx_bf16" in features or "avx512_bf16" in features
    return Machine(
        system=f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}",
        processor=_processor_name(),
        cores=_cores(),
        memory_bytes=_memory_bytes(),
        free_disk_bytes=shutil.disk_usage(existing).free,
        features=features,
        gpus=tuple(gpu.name for gpu in gpus),
        gpu_memory_bytes=tuple(gpu.total_memory for gpu in gpus),
        dtype="bfloat16" if fast_bf16 else "float32",
    )


def compiling_pays(hidden_size: int, seconds: float) -> tuple[bool, str]:
    """Whether a model of this width, used for this long, wins more by compiled kernels than compiling takes, and why.

    The first time on a machine that takes about half a minute, later 5 s: what was compiled is kept in tuneworth's
    cache folder. It saves a fifth of a training step (docs/results.md).
    """
    folder = compiled_folder()
    if hidden_size < _PAYS_WIDTH:
        return False, f"a model {hidden_size} wide is too small to win by compiled kernels"
    before = folder.is_dir() and any(folder.iterdir())
    if before and seconds >= _PAYS_AGAIN_SECONDS:
        return True, "kernels were compiled on this machine before"
    if seconds >= _PAYS_SECONDS:
        return True, f"a budget of {seconds:.0f} s wins more by compiled kernels than compiling them takes"
    return False, (
        f"compiling kernels takes half a minute, which a budget under {_PAYS_SECONDS} s does not win back "
        f"({_PAYS_AGAIN_SECONDS} s where that was done before)"
    )


def compiled_folder() -> Path:
    """Where compiled kernels are kept."""
    return cache_folder() / "compiled"


def compute_deterministically() -> None:
    """From now on torch uses only algorithms that give the same bits each time, and says when it has none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)


def _cores() -> int:
    """Processors that this process may use: those it is bound to, and not more than its container has time of."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _limit("cpu.max").partition(" ")
    return max(1, min(cores, round(int(quota) / int(period)))) if quota.isdigit() and period.isdigit() else cores


def _memory_bytes() -> int:
    """Memory of the machine, or of the container if that has less."""
    limit = _limit("memory.max")
    total = int(psutil.virtual_memory().total)
    return min(total, int(limit)) if limit.isdigit() else total


def _limit(name: str) -> str:
    """A limit of this process's control group (Linux, version 2); empty where there is none."""
    try:
        return (_CONTROL_GROUP / name).read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def _processor_features() -> tuple[str, ...]:
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "avx_vnni")
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123
            flags = next((line for line in file if line.startswith("flags")), "").split()
    except OSError:
        return ()
    return tuple(name for name in wanted if name in flags)


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123
            line = next((line for line in file if line.startswith("model name")), "")
    except OSError:
        line = ""
    return line.partition(":")[2].strip() or platform.processor() or platform.machine()
