"""The precision is what is measured to be fast, on processors with and without bf16 units."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from tuneworth.models import machine
from tuneworth.models.machine import choose_precision, this_machine


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
    units: str, bf16: float, fp32: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.dtype] = []
    noise = itertools.cycle([0.3, 1.0, 0.6])  # the best of several short turns counts

    def rate(dtype: torch.dtype, device: str, seconds: float) -> float:
        asked.append(dtype)
        slowed = next(noise) if len(asked) % 2 else 1.0
        return (bf16 if dtype == torch.bfloat16 else fp32) * slowed * 1e12

    monkeypatch.setattr(machine, "matrix_rate", rate)
    found, why = choose_precision(replace(this_machine(), dtype=units))
    assert found == chosen
    assert f"bf16 {bf16:.2f}, fp32 {fp32:.2f}" in why
    assert asked[:4] == [torch.bfloat16, torch.float32] * 2
