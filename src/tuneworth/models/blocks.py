"""Decoder blocks with the fewest passes over memory, with the results of transformers' own; put on from outside.

In a LoRA training of a small model on a processor, half of the time goes into products too thin for its matrix units
and into reading and writing tensors between operations. Here the layers that read the same input (q, k and v; gate
and up) stand side by side in one matrix, and their LoRA adapters (Hu et al. 2021, arXiv:2106.09685) stand in the
same matrix as a few more rows and columns, so that y = x W' + s (x A') B' is one wide product for the narrow x A'
and one full product, forward, and the like backward:

    matrix [O + R, I + R] = | W  B |      y = [x | s x A'] [W B]'
                            | A  0 |     dx = [g | s g B ] [W ; A]

Shapes: T tokens, I inputs, O outputs, R the ranks of all adapters in the matrix together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor

from tuneworth.models.attention import Layout
from tuneworth.models.fused import is_plain, product
from tuneworth.models.kernels import (
    norm_backward,
    norm_heads,
    norm_heads_backward,
    norm_into,
    swiglu_backward,
    swiglu_into,
)

# Blocks whose forward pass is exactly the one below; where their attention's window is found, if it has one.
KNOWN_BLOCKS = {
    "LlamaDecoderLayer": None,
    "MistralDecoderLayer": "config.sliding_window",
    "Qwen2DecoderLayer": "sliding_window",
    "Qwen3DecoderLayer": "sliding_window",
}
_HEAD_NORMS = ("q_norm", "k_norm")


def fuse_blocks(model: torch.nn.Module) -> None:
    """Give every decoder block of `model` that is known and frozen the forward pass below.

    Others keep their own: the result is the same, only slower. `release_blocks` undoes it.
    """
    for layer in _blocks(model):
        if "forward" not in vars(layer) and _fits(layer):
            layer.forward = _Block(layer)


def release_blocks(model: torch.nn.Module) -> None:
    """Every block has its own forward pass and its own weights again. To be called before adapters change."""
    for layer in _blocks(model):
        fused = vars(layer).get("forward")
        if isinstance(fused, _Block):
            fused.release()
            del layer.forward


class _Block:
    """The forward pass of one decoder block."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._norms = layer.input_layernorm, layer.post_attention_layernorm
        self._qkv = Matrix([attention.q_proj, attention.k_proj, attention.v_proj])
        self._out = Matrix([attention.o_proj])
        self._gate_up = Matrix([mlp.gate_proj, mlp.up_proj])
        self._down = Matrix([mlp.down_proj])
        self._index, self._scaling = attention.layer_idx, attention.scaling
        self._shape = attention.k_proj.out_features // attention.head_dim, attention.head_dim
        self._window = window_of(layer)
        self._head_norms = head_norms_of(layer)

    def __call__(
        self, hidden_states: Tensor, *, position_embeddings: tuple[Tensor, Tensor], layout: Layout, **others: Any
    ) -> Tensor:
        """hidden_states [1, T, H] -> [1, T, H]; the cosines and sines of the positions are [1, T, D]."""
        x = hidden_states[0]
        cos, sin = position_embeddings[0][0], position_embeddings[1][0]
        wide = _run(_NormProject, x, self._norms[0], self._qkv, *self._qkv.parameters)
        if self._head_norms:
            wide = _run(_NormHeads, wide, *self._head_norms)
        attended = layout.attend_wide(self._index, wide, (cos, sin), self._shape, self._scaling, self._window)
        x = _run(_ProjectAdd, attended, x, self._out, *self._out.parameters)
        parameters = (*self._gate_up.parameters, *self._down.parameters)
        return _run(_GatedMlp, x, self._norms[1], self._gate_up, self._down, *parameters)[None]

    def release(self) -> None:
        """Give the weights back to their layers."""
        for matrix in (self._qkv, self._out, self._gate_up, self._down):
            matrix.release()


def _run(function: type[torch.autograd.Function], *inputs: Any) -> Tensor:
    out: Tensor = function.apply(*inputs)
    return out


def _blocks(model: torch.nn.Module) -> Iterator[Any]:
    return (module for module in model.modules() if type(module).__name__ in KNOWN_BLOCKS)


def _fits(layer: Any) -> bool:
    attention, mlp = layer.self_attn, layer.mlp
    linear = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
    linear += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
    norms = [layer.input_layernorm, layer.post_attention_layernorm]
    norms += [getattr(attention, name) for name in _HEAD_NORMS if hasattr(attention, name)]
    return (
        all(is_plain(module) for module in linear)
        and not any(norm.weight.requires_grad for norm in norms)
        and type(mlp.act_fn).__name__ in ("SiLUActivation", "SiLU")
    )


def window_of(layer: Any) -> int | None:
    """The window of a known block's attention, in tokens; None when it sees everything."""
    path = KNOWN_BLOCKS[type(layer).__name__]
    found = layer.self_attn if path else None
    for name in path.split(".") if path else ():
        found = getattr(found, name, None)
    return found


def head_norms_of(layer: Any) -> tuple[Tensor, Tensor, int, float] | None:
    """What `norm_heads` is to be given, where a known block normalises the heads of its queries and keys (Qwen3)."""
    attention = layer.self_attn
    if not all(hasattr(attention, name) for name in _HEAD_NORMS):
        return None
    query, key = attention.q_norm, attention.k_norm
    return query.weight, key.weight, attention.k_proj.out_features // attention.head_dim, _epsilon(query)


class Matrix:
    """Frozen linear layers that read the same input, with their adapters. Takes over the layers' weights.

    The weights become views of the matrix, so nothing is held twice. `release` gives them back.
    """

    def __init__(self, layers: Sequence[torch.nn.Module]) -> None:
        self._bases = [_base(layer) for layer in layers]
        adapters = [_adapter(layer) for layer in layers]
        self.parameters = [tensor for a, b, _ in filter(None, adapters) for tensor in (a, b)]
        first = self._bases[0].weight
        self.inputs = first.shape[1]
        self.outputs = sum(base.weight.shape[0] for base in self._bases)
        self.rank = sum(a.shape[0] for a in self.parameters[::2])
        self._matrix = first.new_zeros(self.outputs + self.rank, self.inputs + self.rank)
        self._scale = first.new_zeros(self.rank)
        self._parts: list[tuple[slice, slice]] = []  # (outputs, ranks) of each adapter
        row = column = 0
        for base, adapter in zip(self._bases, adapters, strict=True):
            rows = slice(row, row + base.weight.shape[0])
            view = self._matrix[rows, : self.inputs]
            view.copy_(base.weight)
            base.weight.data = view
            row = rows.stop
            if adapter is not None:
                ranks = slice(column, column + adapter[0].shape[0])
                self._scale[ranks] = adapter[2]
                self._parts.append((rows, ranks))
                column = ranks.stop
        biases = [base.bias for base in self._bases]
        self._bias = torch.cat([_bias_of(base) for base in self._bases]) if any(b is not None for b in biases) else None
        self._versions: list[int] = []

    def refresh(self) -> None:
        """Copy the adapters into the matrix if they have changed since the last time."""
        versions = [parameter._version for parameter in self.parameters]
        if versions == self._versions:
            return
        with torch.no_grad():
            for (rows, ranks), a, b in zip(self._parts, self.parameters[::2], self.parameters[1::2], strict=True):
                self._matrix[self.outputs :, : self.inputs][ranks] = a
                self._matrix[rows, self.inputs :][:, ranks] = b
        self._versions = versions

    def wide_input(self, x: Tensor) -> Tensor:
        """Room for an input [T, I] and its low-rank part beside it: [T, I + R]."""
        return x.new_empty(x.shape[0], self.inputs + self.rank)

    def forward(self, wide: Tensor, residual: Tensor | None = None) -> Tensor:
        """[T, O] of an input in `wide`[:, :I], plus `residual` [T, O]; fills in the low-rank part of `wide`."""
        if self.rank:
            low = wide[:, self.inputs :]
            torch.mm(wide[:, : self.inputs], self._matrix[self.outputs :, : self.inputs].t(), out=low)
            low.mul_(self._scale)
        weight = self._matrix[: self.outputs].t()
        added = residual if self._bias is None else self._bias if residual is None else residual + self._bias
        return product(wide, weight, added)

    def wide_gradient(self, gradient: Tensor) -> Tensor:
        """Room for a gradient [T, O] and its low-rank part beside it: [T, O + R]."""
        return gradient.new_empty(gradient.shape[0], self.outputs + self.rank)

    def backward(self, wide: Tensor) -> Tensor:
        """The input's gradient [T, I] of an output gradient in `wide`[:, :O]; fills in its low-rank part."""
        if self.rank:
            low = wide[:, self.outputs :]
            torch.mm(wide[:, : self.outputs], self._matrix[: self.outputs, self.inputs :], out=low)
            low.mul_(self._scale)
        return product(wide, self._matrix[:, : self.inputs])

    def gradients(self, x: Tensor, low: Tensor, wide_gradient: Tensor) -> list[Tensor]:
        """Gradients of A, B, A, B... from the input x [T, I], its low-rank part [T, R] and `backward`'s `wide`."""
        if not self.rank:
            return []
        to_a = wide_gradient[:, self.outputs :].t() @ x
        to_b = low.t() @ wide_gradient[:, : self.outputs]
        found = []
        for rows, ranks in self._parts:
            found += [to_a[ranks], to_b[ranks, rows].t()]
        return found

    def release(self) -> None:
        """Give every layer its weight as a tensor of its own again."""
        for base in self._bases:
            base.weight.data = base.weight.data.clone(memory_format=torch.contiguous_format)


class _NormProject(torch.autograd.Function):
    """x [T, I] -> RMSNorm -> linear layers [T, O]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Any, matrix: Matrix, *parameters: Tensor) -> Tensor:
        matrix.refresh()
        wide = matrix.wide_input(x)
        norm_into(wide[:, : matrix.inputs], x, norm.weight, _epsilon(norm))
        out = matrix.forward(wide)
        ctx.save_for_backward(x, wide)
        ctx.norm, ctx.matrix = norm, matrix
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x, wide = ctx.saved_tensors
        matrix: Matrix = ctx.matrix
        wide_gradient = matrix.wide_gradient(gradients[0])
        wide_gradient[:, : matrix.outputs] = gradients[0]
        inner = matrix.backward(wide_gradient)
        found = matrix.gradients(wide[:, : matrix.inputs], wide[:, matrix.inputs :], wide_gradient)
        if not ctx.needs_input_grad[0]:
            return None, None, None, *found
        own = norm_backward(inner, x, ctx.norm.weight, None, _epsilon(ctx.norm))
        return own, None, None, *found


class _NormHeads(torch.autograd.Function):
    """See `norm_heads`; [T, (H + 2 K) D] again."""

    @staticmethod
    def forward(ctx: Any, wide: Tensor, query: Tensor, key: Tensor, kv_heads: int, epsilon: float) -> Tensor:
        ctx.save_for_backward(wide, query, key)
        ctx.numbers = kv_heads, epsilon
        return norm_heads(wide, query, key, kv_heads, epsilon).flatten(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        own = norm_heads_backward(gradients[0].contiguous(), *ctx.saved_tensors, *ctx.numbers)
        return own.flatten(1), None, None, None, None


class _ProjectAdd(torch.autograd.Function):
    """x [T, I], residual [T, O] -> residual + linear layer [T, O]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor, matrix: Matrix, *parameters: Tensor) -> Tensor:
        matrix.refresh()
        wide = matrix.wide_input(x)
        wide[:, : matrix.inputs] = x
        out = matrix.forward(wide, residual)
        ctx.save_for_backward(wide)
        ctx.matrix = matrix
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (wide,) = ctx.saved_tensors
        matrix: Matrix = ctx.matrix
        wide_gradient = matrix.wide_gradient(gradients[0])
        wide_gradient[:, : matrix.outputs] = gradients[0]
        inner = matrix.backward(wide_gradient)
        found = matrix.gradients(wide[:, : matrix.inputs], wide[:, matrix.inputs :], wide_gradient)
        return inner, gradients[0], None, *found


class _GatedMlp(torch.autograd.Function):
    """x [T, H] -> x + down(silu(gate) * up) of its RMSNorm [T, H]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Any, gate_up: Matrix, down: Matrix, *parameters: Tensor) -> Tensor:
        gate_up.refresh()
        down.refresh()
        wide = gate_up.wide_input(x)
        norm_into(wide[:, : gate_up.inputs], x, norm.weight, _epsilon(norm))
        opened = gate_up.forward(wide)
        inside = down.wide_input(x)
        swiglu_into(inside[:, : down.inputs], opened)
        out = down.forward(inside, x)
        ctx.save_for_backward(x, wide, opened, inside[:, down.inputs :].clone())
        ctx.norm, ctx.gate_up, ctx.down = norm, gate_up, down
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x, wide, opened, low = ctx.saved_tensors
        gate_up, down = ctx.gate_up, ctx.down
        wide_gradient = down.wide_gradient(x)
        wide_gradient[:, : down.outputs] = gradients[0]
        inner = down.backward(wide_gradient)
        opened_gradient = gate_up.wide_gradient(x)
        to_gate, to_up = opened_gradient[:, : gate_up.outputs].chunk(2, -1)
        inside = swiglu_backward(to_gate, to_up, inner, *opened.chunk(2, -1))
        down_found = down.gradients(inside, low, wide_gradient)
        normal_gradient = gate_up.backward(opened_gradient)
        found = gate_up.gradients(wide[:, : gate_up.inputs], wide[:, gate_up.inputs :], opened_gradient)
        own = norm_backward(normal_gradient, x, ctx.norm.weight, gradients[0], _epsilon(ctx.norm))
        return own, None, None, None, *found, *down_found


def _base(layer: torch.nn.Module) -> torch.nn.Linear:
    base = layer.base_layer if isinstance(layer, LoraLinear) else layer
    if type(base) is not torch.nn.Linear:
        raise TypeError(f"{type(base).__name__} is no plain linear layer")
    return base


def _adapter(layer: torch.nn.Module) -> tuple[Tensor, Tensor, float] | None:
    """A [R, I], B [O, R] and the scale of a layer's adapter."""
    if not isinstance(layer, LoraLinear):
        return None
    (name,) = layer.active_adapters
    return layer.lora_A[name].weight, layer.lora_B[name].weight, float(layer.scaling[name])


def _bias_of(base: torch.nn.Linear) -> Tensor:
    return base.bias if base.bias is not None else base.weight.new_zeros(base.weight.shape[0])


def _epsilon(norm: Any) -> float:
    return float(norm.variance_epsilon)
