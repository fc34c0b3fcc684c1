"""Kernels that are compiled for named dimensions: right at every length, kept on disk, and never used for others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tiny import random_ids, random_row, tiny_model
from tuneworth.inference import Engine, Request
from tuneworth.models import compiling, kernels, single
from tuneworth.models.adapters import add_lora
from tuneworth.models.blocks import fuse_blocks, release_blocks
from tuneworth.models.kernels import Kernel
from tuneworth.training import answer_loss, pack

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler, at its import


@pytest.fixture(autouse=True)
def place(compiled: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty place for what is compiled."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    yield tmp_path
    assert not kernels._Compiling.failed


def scaled_into(out: Tensor, x: Tensor, factor: float, shift: Tensor | None) -> None:
    """x [T, H] times `factor`, plus `shift` [H]."""
    out.copy_(x * factor if shift is None else x * factor + shift)


def both(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and product."""
    return x + y, x * y


def doubled_if_long(x: Tensor) -> Tensor:
    """Another function for long tensors."""
    return x * 2 if x.shape[0] > 300 else x + 1


def kernel_of_scaled() -> Kernel:
    return Kernel(scaled_into, {"out": "T H", "x": "T H", "shift": "H"})


def test_it_holds_at_every_length_and_for_other_constants() -> None:
    kernel = kernel_of_scaled()
    torch.manual_seed(0)
    constants = [
        (6, torch.float32, 2.0, False),
        (5, torch.float32, 2.0, False),
        (6, torch.float64, 2.0, False),
        (6, torch.float32, 3.0, False),
        (6, torch.float32, 2.0, True),
    ]
    for variants, (width, dtype, factor, shifted) in enumerate(constants, 1):
        for length in (2, 3, 700):
            x = torch.randn(length, width, dtype=dtype)
            shift = torch.randn(width, dtype=dtype) if shifted else None
            found, wanted = torch.zeros_like(x), torch.zeros_like(x)
            kernel(found, x, factor, shift)
            scaled_into(wanted, x, factor, shift)
            torch.testing.assert_close(found, wanted)
        assert len(kernel._compiled) == variants


def test_a_part_of_something_wider_is_not_taken_for_a_whole() -> None:
    kernel = kernel_of_scaled()
    for wide in (6, 9, 11):
        for length in (4, 5):
            x, out = torch.randn(length, wide), torch.zeros(length, wide)
            kernel(out[:, :6], x[:, :6], 2.0, None)
            torch.testing.assert_close(out[:, :6], 2 * x[:, :6])
            assert not out[:, 6:].any()


def test_results_keep_their_form_and_last_arguments_can_be_given_before() -> None:
    kernel = Kernel(both, {"x": "T H"})
    x, y = torch.randn(7, 4), torch.randn(4).requires_grad_()
    bound = kernel.with_last(y)
    for found in (kernel(x, y), bound(x), bound(x[:3]), bound(x[:1])):
        assert isinstance(found, tuple)
        torch.testing.assert_close(found, both(x[: len(found[0])], y.detach()))
        assert not found[0].requires_grad or len(found[0]) == 1  # a single one runs as it stands


def test_what_was_compiled_is_read_again_and_a_damaged_file_is_made_anew(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, out = torch.randn(5, 6), torch.zeros(5, 6)
    kernel_of_scaled()(out, x, 2.0, None)
    (kept,) = (place / "kernels").iterdir()
    whole = kept.read_bytes()
    monkeypatch.setattr(compiling, "standalone_compile", None)  # nothing can be compiled now
    again = torch.zeros(5, 6)
    kernel_of_scaled()(again, x, 2.0, None)
    assert torch.equal(again, out)
    monkeypatch.undo()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(place))
    for damage in (b"", whole[:100], whole[:-50], b"\x80\x04." + whole):
        kept.write_bytes(damage)
        kernel_of_scaled()(again.zero_(), x, 2.0, None)
        assert torch.equal(again, out)
        assert len(kept.read_bytes()) > 1000


def test_other_constants_are_other_files(place: Path) -> None:
    """Also where another process asks: what is looked up on disk knows all constants."""
    for dtype, width in ((torch.float32, 6), (torch.float64, 6), (torch.float32, 7)):
        x = torch.randn(5, width, dtype=dtype)
        out = torch.zeros_like(x)
        kernel_of_scaled()(out, x, 2.0, None)
        torch.testing.assert_close(out, 2 * x)
    assert len(list((place / "kernels").iterdir())) == 3


def test_a_function_that_differs_for_some_lengths_only_is_refused() -> None:
    x = torch.randn(700, 3)
    dimensions = [compiling.Dimensions.of("T H")]
    with pytest.raises(ValueError, match="for some lengths only"):
        compiling.compiled(doubled_if_long, dimensions, [x], compiling.key_of(dimensions, [x]))


LONG = ("softmax_of_both", "softmax_of_own", "softmax_backward_of_both", "softmax_backward_of_own",
        "attend_one_each", "attend_one_each_of_both")  # fmt: skip


def long_arguments(own: int, shared: int, dtype: torch.dtype) -> dict[str, tuple[Any, ...]]:
    """Of the kernels that sum over lengths: two key heads, three rows, so many keys of their own and shared ones."""
    torch.manual_seed(0)
    weights, gradients = torch.softmax(torch.randn(2, 3, 2, own + shared), -1), torch.randn(2, 3, 2, own + shared)
    heads, cos, sin = torch.randn(3, 8, 16), torch.randn(3, 16), torch.randn(3, 16)
    keys, values = torch.randn(3, 2, own, 16), torch.randn(3, 2, own, 16)
    scores, common = torch.randn(2, 3, 2, own), torch.randn(2, 3, 2, shared)
    parts = [
        x.contiguous()
        for pair in zip(*(x.split([own, shared], -1) for x in (weights, gradients)), strict=True)
        for x in pair
    ]
    allowed, ends, places = torch.ones(3, own, dtype=torch.bool), own - torch.arange(1, 4), torch.arange(own)
    found = {
        "softmax_of_both": (scores, common, allowed, 0.5),
        "softmax_of_own": (scores, allowed, 0.5),
        "softmax_backward_of_both": (*parts, 0.5),
        "softmax_backward_of_own": (*parts[:2], 0.5),
        "attend_one_each": (heads, cos, sin, keys, values, ends, places, 0.25),
        "attend_one_each_of_both": (heads, keys, values, ends, places, common, 0.25),
    }
    return {
        name: tuple(x.to(dtype, copy=True) if isinstance(x, Tensor) and x.is_floating_point() else x for x in given)
        for name, given in found.items()
    }


@pytest.mark.parametrize("name", LONG)
def test_sums_over_more_than_it_was_compiled_for_are_off_by_millionths_at_most(name: str) -> None:
    """PyTorch's compiler would add up over 4,096 values in parts, had it seen so many."""
    kernel = getattr(kernels, name)
    kernel(*long_arguments(7, 9, torch.float32)[name])
    compiled_for = set(kernel._compiled)
    found = kernel(*long_arguments(5000, 9000, torch.float32)[name])
    wanted = kernel.__wrapped__(*long_arguments(5000, 9000, torch.float64)[name])
    assert set(kernel._compiled) == compiled_for  # the same code
    both = zip(found, wanted, strict=True) if isinstance(found, tuple) else [(found, wanted)]
    for some, exact in both:
        torch.testing.assert_close(some.double(), exact, rtol=0, atol=3e-6 * float(exact.abs().max()))


def test_a_kernel_that_holds_for_some_lengths_only_runs_as_it_stands_and_others_compiled() -> None:
    refused, other = Kernel(doubled_if_long, {"x": "T H"}), kernel_of_scaled()
    for length in (700, 5):
        x = torch.randn(length, 3)
        torch.testing.assert_close(refused(x), doubled_if_long(x))
    assert list(refused._compiled.values()) == [doubled_if_long]
    x, out = torch.randn(5, 6), torch.zeros(5, 6)
    other(out, x, 2.0, None)
    assert scaled_into not in other._compiled.values()


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("head norms", torch.bfloat16), ("head norms", torch.float32), ("wide alternating", torch.bfloat16)],
)
def test_every_kernel_is_compiled_for_the_types_of_real_models(
    kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training pass and answers behind a shared beginning and without one: nothing runs as it stands."""
    every = [x for module in (kernels, single) for x in vars(module).values() if isinstance(x, Kernel)]
    for kernel in every:
        monkeypatch.setattr(kernel, "_compiled", {})
    model = add_lora(tiny_model(kind).to(dtype), rank=4, alpha=8, seed=0)
    fuse_blocks(model)
    for shared in (0, 9):
        rows = [random_row(str(n), 4 + n, 3, seed=n, shared=random_ids(shared, seed=1)) for n in range(3)]
        answer_loss(model, pack(rows)).backward()
    release_blocks(model)
    for shared in (0, 70):
        beginning = random_ids(shared, seed=9)
        prompts = [beginning + random_ids(length, seed=length) for length in (3, 4)]
        Engine(model, end_id=10**6).answer([Request(prompt, 4) for prompt in prompts])
    Engine(model, end_id=10**6).answer([Request(random_ids(5, seed=2), 3)])
    for kernel in every:
        used = list(kernel._compiled.values())
        assert used and kernel.__wrapped__ not in used, kernel.__name__  # type: ignore[attr-defined]
