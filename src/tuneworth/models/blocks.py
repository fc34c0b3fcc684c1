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
    gate_backward,
    gate_into,
    norm_backward,
    norm_heads,
    norm_heads_backward,
    norm_into,
)
from tuneworth.models.structure import Norm, Structure, is_known, linear_layers


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
        self._own = Structure.of(layer)
        q, k, v, out, gate, up, down = linear_layers(layer)
        self._qkv, self._out = Matrix([q, k, v]), Matrix([out])
        self._gate_up, self._down = Matrix([gate, up]), Matrix([down])

    def __call__(
        self, hidden_states: Tensor, *, position_embeddings: tuple[Tensor, Tensor], layout: Layout, **others: Any
    ) -> Tensor:
        """hidden_states [1, T, H] -> [1, T, H]; the cosines and sines of the positions are [1, T, D]."""
        x, own = hidden_states[0], self._own
        cos, sin = position_embeddings[0][0], position_embeddings[1][0]
        wide = _run(_NormProject, x, own.before_attention, self._qkv, *self._qkv.parameters)
        if own.heads:
            wide = _run(_NormHeads, wide, *own.heads)
        attended = layout.attend_wide(own.index, wide, (cos, sin), own.shape, own.scaling, own.window)
        x = _run(_ProjectAdd, attended, x, own.behind_attention, self._out, *self._out.parameters)
        parameters = (*self._gate_up.parameters, *self._down.parameters)
        return _run(_GatedMlp, x, own, self._gate_up, self._down, *parameters)[None]

    def release(self) -> None:
        """Give the weights back to their layers."""
        for matrix in (self._qkv, self._out, self._gate_up, self._down):
            matrix.release()


def _run(function: type[torch.autograd.Function], *inputs: Any) -> Tensor:
    out: Tensor = function.apply(*inputs)
    return out


def _blocks(model: torch.nn.Module) -> Iterator[Any]:
    return (module for module in model.modules() if is_known(module))


def _fits(layer: Any) -> bool:
    norms = [module for name, module in layer.named_modules() if name.endswith("norm")]
    return all(is_plain(linear) for linear in linear_layers(layer)) and not any(
        norm.weight.requires_grad for norm in norms
    )


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
    def forward(ctx: Any, x: Tensor, norm: Norm, matrix: Matrix, *parameters: Tensor) -> Tensor:
        matrix.refresh()
        wide = matrix.wide_input(x)
        norm_into(wide[:, : matrix.inputs], x, *norm)
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
        own = _norm_backward(inner, x, ctx.norm)
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
    """x [T, I], residual [T, O] -> residual + linear layer [T, O], or + its norm."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor, norm: Norm | None, matrix: Matrix, *parameters: Tensor
    ) -> Tensor:
        matrix.refresh()
        wide = matrix.wide_input(x)
        wide[:, : matrix.inputs] = x
        out, projected = _added(matrix, wide, residual, norm)
        ctx.save_for_backward(wide, projected)
        ctx.norm, ctx.matrix = norm, matrix
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        wide, projected = ctx.saved_tensors
        matrix: Matrix = ctx.matrix
        wide_gradient = matrix.wide_gradient(gradients[0])
        wide_gradient[:, : matrix.outputs] = _through(gradients[0], projected, ctx.norm)
        inner = matrix.backward(wide_gradient)
        found = matrix.gradients(wide[:, : matrix.inputs], wide[:, matrix.inputs :], wide_gradient)
        return inner, gradients[0], None, None, *found


class _GatedMlp(torch.autograd.Function):
    """x [T, H] -> x + down(activated gate * up) of its RMSNorm [T, H], or + the norm of that."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, own: Structure, gate_up: Matrix, down: Matrix, *parameters: Tensor) -> Tensor:
        gate_up.refresh()
        down.refresh()
        wide = gate_up.wide_input(x)
        norm_into(wide[:, : gate_up.inputs], x, *own.before_mlp)
        opened = gate_up.forward(wide)
        inside = down.wide_input(x)
        gate_into(inside[:, : down.inputs], opened, own.activation)
        out, projected = _added(down, inside, x, own.behind_mlp)
        ctx.save_for_backward(x, wide, opened, inside[:, down.inputs :].clone(), projected)
        ctx.own, ctx.gate_up, ctx.down = own, gate_up, down
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x, wide, opened, low, projected = ctx.saved_tensors
        gate_up, down, own = ctx.gate_up, ctx.down, ctx.own
        wide_gradient = down.wide_gradient(x)
        wide_gradient[:, : down.outputs] = _through(gradients[0], projected, own.behind_mlp)
        inner = down.backward(wide_gradient)
        opened_gradient = gate_up.wide_gradient(x)
        to_gate, to_up = opened_gradient[:, : gate_up.outputs].chunk(2, -1)
        gate, up = opened.chunk(2, -1)
        inside = gate_backward(to_gate, to_up, inner, gate, up, own.activation)
        down_found = down.gradients(inside, low, wide_gradient)
        normal_gradient = gate_up.backward(opened_gradient)
        found = gate_up.gradients(wide[:, : gate_up.inputs], wide[:, gate_up.inputs :], opened_gradient)
        to_x = _norm_backward(normal_gradient, x, own.before_mlp, gradients[0])
        return to_x, None, None, None, *found, *down_found


def _added(matrix: Matrix, wide: Tensor, residual: Tensor, norm: Norm | None) -> tuple[Tensor, Tensor | None]:
    """residual + linear layer of `wide`; with `norm`, residual + norm of linear layer, and what is normalised."""
    if norm is None:
        return matrix.forward(wide, residual), None
    projected = matrix.forward(wide)
    out = torch.empty_like(projected)
    norm_into(out, projected, *norm)
    return out.add_(residual), projected


def _through(gradient: Tensor, projected: Tensor | None, norm: Norm | None) -> Tensor:
    """The gradient of what `_added` projected."""
    return gradient if projected is None or norm is None else _norm_backward(gradient, projected, norm)


def _norm_backward(gradient: Tensor, x: Tensor, norm: Norm, residual: Tensor | None = None) -> Tensor:
    weight, epsilon = norm
    return norm_backward(gradient, x, weight, residual, epsilon)


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
