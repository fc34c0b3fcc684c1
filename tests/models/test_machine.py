"""What the machine is said to be: limits of containers count, rates are measured once, precision is what is fast."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tuneworth.models import doctor, machine, rates
from tuneworth.models.doctor import diagnose
from tuneworth.models.machine import this_machine
from tuneworth.models.rates import Rates, choose_precision, machine_rates

QUICK = Rates(1e12, 2e12, 1e10, "2026-11-25T00:00:00Z", 0.0)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWORTH_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("units", "bf16", "fp32", "chosen"),
    [
        ("bfloat16", 2.3, 0.2, "bf16"),  # AMX or AVX512-BF16
        ("bfloat16", 0.95, 1.0, "bf16"),  # a disturbed measurement
        ("bfloat16", 0.3, 1.0, "fp32"),  # units that are there in name only
        ("float32", 0.05, 0.2, "fp32"),  # AVX2: bf16 is emulated
        ("float32", 1.1, 1.0, "fp32"),
        ("float32", 2.0, 1.0, "bf16"),  # fast bf16 that the list of features does not know
    ],
)
def test_the_precision_is_the_one_that_is_measured_to_be_fast(
    units: str, bf16: float, fp32: float, chosen: str
) -> None:
    found, why = choose_precision(
        replace(this_machine(), dtype=units), replace(QUICK, bf16_flops=bf16 * 1e12, fp32_flops=fp32 * 1e12)
    )
    assert found == chosen
    assert f"bf16 {bf16:.2f}, fp32 {fp32:.2f}" in why


def test_rates_are_the_best_of_turns_in_alternation(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def rate(dtype: object, device: str) -> float:
        asked.append(str(dtype))
        return 1e12 if len(asked) in (5, 6) else 3e11  # one quiet turn among disturbed ones

    monkeypatch.setattr(rates, "matrix_rate", rate)
    monkeypatch.setattr(rates, "memory_rate", lambda device: 1e10)
    found = rates._measure("cpu")
    assert (found.bf16_flops, found.fp32_flops) == (1e12, 1e12)
    assert asked[:4] == ["torch.bfloat16", "torch.float32"] * 2


def test_rates_are_measured_once_kept_and_measured_again_on_demand_or_when_damaged(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def measure(device: str) -> Rates:
        measured.append(device)
        return replace(QUICK, fp32_flops=float(len(measured)))

    monkeypatch.setattr(rates, "_measure", measure)
    here = this_machine()
    assert machine_rates(here) == machine_rates(here)
    assert len(measured) == 1
    assert machine_rates(here, again=True).fp32_flops == 2.0
    assert machine_rates(here).fp32_flops == 2.0
    (file,) = (empty_cache / "rates").iterdir()
    for damage in ("{", json.dumps({**QUICK.to_json(), "fp32_flops": -1.0}), json.dumps({"fp32_flops": 1.0})):
        file.write_text(damage)
        before = len(measured)
        machine_rates(here)
        assert len(measured) == before + 1
    machine_rates(replace(here, processor="another one"))
    assert len(measured) == 6


def test_the_limits_of_a_container_are_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CONTROL_GROUP", tmp_path)
    whole = this_machine()
    (tmp_path / "memory.max").write_text("2147483648\n")
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert (this_machine().memory_bytes, this_machine().cores) == (2**31, 1)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert (this_machine().memory_bytes, this_machine().cores) == (whole.memory_bytes, whole.cores)


def test_what_is_missing_is_said_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    poor = replace(this_machine(), memory_bytes=2**30, free_disk_bytes=10**8, features=("avx2",), gpus=())
    monkeypatch.setattr(doctor, "this_machine", lambda: poor)
    monkeypatch.setattr(doctor, "machine_rates", lambda machine, again: replace(QUICK, busy_cores=1.5))
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/bin/nvidia-smi" if name == "nvidia-smi" else None)
    found = {check.name: check for check in diagnose().checks}
    assert {name for name, check in found.items() if check.status == "missing"} == {"memory", "disk"}
    assert {name for name, check in found.items() if check.status == "note"} == {
        "bf16 units",
        "GPU",
        "C++ compiler",
        "quiet",
    }
    assert all(check.cure for check in found.values() if check.status != "ok")


def test_kernels_are_compiled_for_long_budgets_and_for_shorter_ones_where_they_are_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TUNEWORTH_CACHE", str(tmp_path))
    assert [machine.compiling_pays(576, seconds)[0] for seconds in (60, 240, 1200)] == [False, False, True]
    kept = machine.compiled_folder() / "aa"
    kept.mkdir(parents=True)
    assert [machine.compiling_pays(576, seconds)[0] for seconds in (60, 240, 1200)] == [False, True, True]
    assert not machine.compiling_pays(64, 1200)[0]
