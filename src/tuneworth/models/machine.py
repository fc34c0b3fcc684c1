"""What this machine is: cores, memory, disk, processor features, GPUs, and which precision is fast."""

from __future__ import annotations

import os
import platform
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from tuneworth.store.cache import cache_folder

DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
# How many times as fast as fp32 bf16 must be measured to be, to be used.
_WITH_UNITS, _WITHOUT_UNITS = 0.9, 1.2
_TURNS, _TURN_SECONDS = 3, 0.05


_PAYS_WIDTH, _PAYS_SECONDS = 256, 600


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
    """Look at this machine. Takes milliseconds; nothing is measured."""
    features = _processor_features()
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    cache = cache_folder()
    existing = next(parent for parent in (cache, *cache.parents) if parent.exists())
    fast_bf16 = bool(gpus) or "amx_bf16" in features or "avx512_bf16" in features
    return Machine(
        system=f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}",
        processor=_processor_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        free_disk_bytes=shutil.disk_usage(existing).free,
        features=features,
        gpus=tuple(gpu.name for gpu in gpus),
        gpu_memory_bytes=tuple(gpu.total_memory for gpu in gpus),
        dtype="bfloat16" if fast_bf16 else "float32",
    )


def compiling_pays(hidden_size: int, seconds: float) -> tuple[bool, str]:
    """Whether a model of this width, used for this long, wins more by compiled kernels than compiling takes, and why.

    The first time on a machine that takes half a minute or more, later a few seconds: what was compiled is kept in
    tuneworth's cache folder.
    """
    folder = compiled_folder()
    if hidden_size < _PAYS_WIDTH:
        return False, f"a model {hidden_size} wide is too small to win by compiled kernels"
    if folder.is_dir() and any(folder.iterdir()):
        return True, "kernels were compiled on this machine before"
    if seconds >= _PAYS_SECONDS:
        return True, f"a budget of {seconds:.0f} s wins more by compiled kernels than their half minute of compiling"
    return False, f"compiling kernels takes half a minute, which a budget under {_PAYS_SECONDS} s does not win back"


def compiled_folder() -> Path:
    """Where compiled kernels are kept."""
    return cache_folder() / "compiled"


def matrix_rate(dtype: torch.dtype, device: str = "cpu", seconds: float = 0.5) -> float:
    """Measured rate of a 2048 x 576 x 1536 matrix product, in floating-point operations per second."""
    left, right = (
        torch.randn(2048, 576, device=device).to(dtype),
        torch.randn(576, 1536, device=device).to(dtype),
    )
    best, deadline = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        start = time.perf_counter()
        for _ in range(4):
            left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - start) / 4)
    return 2 * 2048 * 576 * 1536 / best


def choose_precision(machine: Machine) -> tuple[str, str]:
    """The faster of bf16 and fp32 here, measured in turns, and why.

    With bf16 units bf16 is taken unless it is clearly slower (it halves the memory to read besides); without them only
    where it is clearly faster. One short measurement on a busy machine must not turn a choice over.
    """
    best = dict.fromkeys(DTYPES, 0.0)
    for _ in range(_TURNS):
        for name, dtype in DTYPES.items():
            best[name] = max(best[name], matrix_rate(getattr(torch, dtype), machine.device, _TURN_SECONDS))
    has_units = machine.dtype == DTYPES["bf16"]
    chosen = "bf16" if best["bf16"] > (_WITH_UNITS if has_units else _WITHOUT_UNITS) * best["fp32"] else "fp32"
    rates = ", ".join(f"{name} {rate / 1e12:.2f}" for name, rate in best.items())
    units = "bf16 units" if has_units else "no bf16 units"
    return chosen, f"{units}; matrix products in TFLOP/s: {rates} (override: training.precision)"


def compute_deterministically() -> None:
    """From now on torch uses only algorithms that give the same bits each time, and says when it has none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)


def memory_rate(seconds: float = 0.5) -> float:
    """Measured rate of reading memory, in bytes per second."""
    block = torch.ones(64 << 20, dtype=torch.float32)
    best, deadline = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        start = time.perf_counter()
        block.sum()
        best = min(best, time.perf_counter() - start)
    return block.numel() * 4 / best


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
