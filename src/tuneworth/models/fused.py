"""A faster form of what peft computes, with the same result; put on a model from outside.

LoRA on a frozen linear layer is y = x W' + s (x A') B' (Hu et al. 2021). peft computes it as five operations that
autograd takes apart one by one. Here it is one autograd function with the fewest matrix products, in blocks of rows:
a block stays in the cache from one product to the next.

`product` is the product of a decoder block's sizes. With matrix units (AMX) oneDNN gives one of few columns and
some hundreds of rows to one core alone, whatever there are (measured, docs/log.md); cut in blocks, all cores share it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor

_BLOCK_ROWS = 512
# Of products that oneDNN gives to one core alone with AMX: columns and rows at most, and the rows that all cores share,
# fewer where the sums are long.
_FEW_OUTPUTS, _FEW_ROWS = 1024, 2048
_LONG_INPUTS, _LONG_BLOCK_ROWS = 1600, 320


class _LoraLinear(torch.autograd.Function):
    """x [T, I], W [O, I], b [O] or None, A [R, I], B [O, R] -> [T, O]. W and b are frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        out = x.new_empty(x.shape[0], weight.shape[0])
        low = (x @ a.t()).mul_(scale)
        for rows in _blocks(x):
            torch.mm(x[rows], weight.t(), out=out[rows])
            out[rows].addmm_(low[rows], b.t())
        if bias is not None:
            out += bias
        ctx.save_for_backward(x, weight, a, b, low)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, low = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        low_gradient = (gradient @ b).mul_(ctx.scale)
        grad_a, grad_b = low_gradient.t() @ x, (low.t() @ gradient).t()
        if not ctx.needs_input_grad[0]:
            return None, None, None, grad_a, grad_b, None
        grad_x = torch.empty_like(x)
        for rows in _blocks(x):
            torch.mm(gradient[rows], weight, out=grad_x[rows])
            grad_x[rows].addmm_(low_gradient[rows], a)
        return grad_x, None, None, grad_a, grad_b, None


def fuse_lora(model: torch.nn.Module) -> None:
    """Give every plain LoRA layer of `model` the fused forward; layers with anything else on them are left alone."""
    for module in model.modules():
        if isinstance(module, LoraLinear) and is_plain(module):
            module.forward = _forward_of(module)


def product(x: Tensor, weight: Tensor, added: Tensor | None = None) -> Tensor:
    """x [T, I] times weight [I, O], plus `added` [T, O] or [O]: [T, O]."""
    rows = _rows_shared(x, weight.shape[1])
    if rows >= len(x):
        return torch.mm(x, weight) if added is None else torch.addmm(added, x, weight)
    out = x.new_empty(len(x), weight.shape[1])
    for block in _slices(len(x), rows):
        if added is None:
            torch.mm(x[block], weight, out=out[block])
        else:
            torch.addmm(added if added.dim() == 1 else added[block], x[block], weight, out=out[block])
    return out


def _rows_shared(x: Tensor, outputs: int) -> int:
    """How many rows of x [T, I] to multiply at once so that all cores share the product with a weight [I, O]."""
    rows, inputs = x.shape
    one_core = outputs <= _FEW_OUTPUTS and rows <= _FEW_ROWS and x.dtype == torch.bfloat16
    if not one_core or x.is_cuda or not _has_matrix_units() or torch.get_num_threads() == 1:
        return rows
    return _LONG_BLOCK_ROWS if inputs > _LONG_INPUTS else _BLOCK_ROWS


def _has_matrix_units() -> bool:
    return bool(torch.cpu._is_amx_tile_supported())


def _blocks(x: Tensor) -> Iterator[slice]:
    """Slices of nearly equal size; one on a GPU, where the library cuts better itself."""
    return _slices(len(x), len(x) if x.is_cuda else _BLOCK_ROWS)


def _slices(rows: int, most: int) -> Iterator[slice]:
    size = math.ceil(rows / max(1, math.ceil(rows / most)))
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _forward_of(module: LoraLinear) -> Any:
    base, (name,) = module.base_layer, module.active_adapters
    a, b, scale = module.lora_A[name], module.lora_B[name], float(module.scaling[name])

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        out: Tensor = _LoraLinear.apply(  # type: ignore[no-untyped-call]
            x.flatten(0, -2), base.weight, base.bias, a.weight, b.weight, scale
        )
        return out.view(*x.shape[:-1], -1)

    return forward


def is_plain(module: torch.nn.Module) -> bool:
    """A frozen torch.nn.Linear, alone or under one LoRA adapter without dropout, DoRA or bias that is not merged."""
    if not isinstance(module, LoraLinear):
        return type(module) is torch.nn.Linear and not module.weight.requires_grad
    if len(module.active_adapters) != 1 or module.merged or module.disable_adapters:
        return False
    (name,) = module.active_adapters
    return (
        isinstance(module.lora_dropout[name], torch.nn.Identity)
        and not module.lora_variant
        and module.lora_B[name].bias is None
        and type(module.base_layer) is torch.nn.Linear
        and not module.base_layer.weight.requires_grad
    )
