"""What this machine does per second, measured once in a few seconds and kept: the only place where it is measured.

Rates are the best of several short turns, taken in alternation: other work on the machine slows a turn down, nothing
speeds one up.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from tuneworth.errors import InputError
from tuneworth.models.machine import DTYPES, Machine
from tuneworth.store.atomic import read_json, write_json
from tuneworth.store.cache import cache_folder

_SCHEMA = "tuneworth.rates/1"
# How many times as fast as fp32 bf16 must be measured to be, to be used.
_WITH_UNITS, _WITHOUT_UNITS = 0.9, 1.2
_TURNS, _TURN_SECONDS = 5, 0.06
_ROWS, _INPUTS, _OUTPUTS = 2048, 576, 1536  # the shapes of a small model's layer
_STREAM_BYTES = 1 << 28  # larger than any cache


@dataclass(frozen=True, slots=True)
class Rates:
    """Floating-point operations per second of matrix products, and bytes per second read from memory.

    `measured` is when (UTC, ISO 8601), `busy_cores` how many cores other processes kept busy meanwhile.
    """

    fp32_flops: float
    bf16_flops: float
    memory_bytes_per_second: float
    measured: str
    busy_cores: float

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)

    def flops(self, precision: str) -> float:
        """Of `bf16` or `fp32`."""
        return self.bf16_flops if precision == "bf16" else self.fp32_flops


def machine_rates(machine: Machine, *, again: bool = False) -> Rates:
    """The rates of this machine: as kept from an earlier time, or measured now (in about 2 s) and kept."""
    path = _place(machine)
    if not again and (kept := _kept(path)) is not None:
        return kept
    rates = _measure(machine.device)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"schema": _SCHEMA, "machine": str(machine), **rates.to_json()})
    return rates


def choose_precision(machine: Machine, rates: Rates | None = None) -> tuple[str, str]:
    """The faster of bf16 and fp32 here, and why; `rates` are this machine's if not given.

    With bf16 units bf16 is taken unless it is clearly slower (it halves the memory to read besides); without them only
    where it is clearly faster. One short measurement on a busy machine must not turn a choice over.
    """
    found = rates or machine_rates(machine)
    has_units = machine.dtype == DTYPES["bf16"]
    chosen = "bf16" if found.bf16_flops > (_WITH_UNITS if has_units else _WITHOUT_UNITS) * found.fp32_flops else "fp32"
    told = f"bf16 {found.bf16_flops / 1e12:.2f}, fp32 {found.fp32_flops / 1e12:.2f}"
    units = "bf16 units" if has_units else "no bf16 units"
    return chosen, f"{units}; matrix products in TFLOP/s: {told} (override: training.precision)"


def matrix_rate(dtype: torch.dtype, device: str = "cpu", seconds: float = _TURN_SECONDS) -> float:
    """Floating-point operations per second of a product of a small model's layer, the best within `seconds`."""
    left = torch.randn(_ROWS, _INPUTS, device=device).to(dtype)
    right = torch.randn(_INPUTS, _OUTPUTS, device=device).to(dtype)
    return 2 * _ROWS * _INPUTS * _OUTPUTS / _best(lambda: left @ right, device, seconds)


def memory_rate(device: str = "cpu", seconds: float = _TURN_SECONDS) -> float:
    """Bytes per second read from memory, the best within `seconds`."""
    block = torch.ones(_STREAM_BYTES // 4, dtype=torch.float32, device=device)
    return _STREAM_BYTES / _best(block.sum, device, seconds)


def _measure(device: str) -> Rates:
    matrix = {name: getattr(torch, dtype) for name, dtype in DTYPES.items()}
    best = dict.fromkeys(matrix, 0.0)
    before, begun = _busy_seconds(), time.perf_counter()
    for _ in range(_TURNS):
        for name, dtype in matrix.items():
            best[name] = max(best[name], matrix_rate(dtype, device))
    stream = max(memory_rate(device) for _ in range(_TURNS))
    busy = max(0.0, (_busy_seconds() - before) / (time.perf_counter() - begun))
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Rates(best["fp32"], best["bf16"], stream, now, round(busy, 2))


def _best(work: Callable[[], object], device: str, seconds: float) -> float:
    """Seconds of the quickest call."""
    work()
    best, deadline = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def _busy_seconds() -> float:
    """Processor seconds that other processes have used so far; 0 where the system does not tell."""
    try:
        fields_ = Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:9]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, soft, _ = (int(value) / os.sysconf("SC_CLK_TCK") for value in fields_)
    own = os.times()
    return user + nice + system + irq + soft - own.user - own.system


def _place(machine: Machine) -> Path:
    """Where the rates of this machine are kept: other hardware, threads or torch is another machine."""
    what = (machine.processor, machine.cores, machine.gpus, torch.get_num_threads(), torch.__version__)
    return cache_folder() / "rates" / f"{hashlib.sha256(repr(what).encode()).hexdigest()[:16]}.json"


def _kept(path: Path) -> Rates | None:
    """What was kept, or None when it is not there or not readable: it is then measured again."""
    if not path.is_file():
        return None
    try:
        found = read_json(path)
        rates = Rates(**{field.name: found[field.name] for field in fields(Rates)})
    except (InputError, KeyError, TypeError, ValueError):
        return None
    numbers = (rates.fp32_flops, rates.bf16_flops, rates.memory_bytes_per_second)
    return rates if all(isinstance(number, float) and number > 0 for number in numbers) else None
