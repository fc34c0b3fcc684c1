"""A faster form of what peft computes, with the same result; put on a model from outside.

LoRA on a frozen linear layer is y = x W' + s (x A') B' (Hu et al. 2021). peft computes it as five operations that
autograd takes apart one by one. Here it is one autograd function with the fewest matrix products, in blocks of rows:
two cores share products of about 500 rows evenly, while oneDNN gives products of 600 to 1,200 rows and 576 columns to
one core alone (measured, docs/log.md), and a block stays in the cache from one product to the next.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor

_BLOCK_ROWS = 512


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


def _blocks(x: Tensor) -> Iterator[slice]:
    """Slices of nearly equal size; one on a GPU, where the library cuts better itself."""
    rows = x.shape[0]
    count = 1 if x.is_cuda else max(1, math.ceil(rows / _BLOCK_ROWS))
    size = math.ceil(rows / count)
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
