"""A decoder block for a single token, compiled: a request that is answered alone.

With one token a product is one pass over its weights and nothing else, so the time is that of reading memory and
whatever comes on top. Here a block is one compiled function: it reads the weights once, as they lie in the layers (no
copy), adds up in float32, and writes the token's key and value where they stay. Against oneDNN's products and some
forty operations between them a token takes half the time (docs/log.md).

Shapes: H features, I inputs, O outputs, R ranks of an adapter, V tokens in the vocabulary; the rest as in
models/attention.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor

from tuneworth.models.kernels import Kernel, activated, normed, precise, rotated
from tuneworth.models.structure import Norm, Structure, linear_layers

Low = tuple[Tensor, Tensor, Tensor]  # A [R, I], B [O, R], its scale [1]
Part = tuple[Tensor, Tensor | None, Sequence[Low]]  # W [O, I], its bias [O], the adapters that answer


@dataclass(frozen=True, slots=True)
class Slots:
    """Where the keys and values of a lone row are: a layer's [K, S, D], of which the first N are used, the last of them
    by the token itself. `used` [N] is there for its length, which is no constant to the compiler.
    """

    keys: Tensor
    values: Tensor
    used: Tensor

    @classmethod
    def of(cls, keys: Sequence[Tensor], values: Sequence[Tensor], used: int) -> list[Slots]:
        """Those of every layer."""
        length = torch.empty(used)
        return [cls(key, value, length) for key, value in zip(keys, values, strict=True)]


class SingleToken:
    """One decoder block."""

    def __init__(self, layer: Any, own: Structure, names: Sequence[str]) -> None:
        self._linears = linear_layers(layer)
        self._own = own
        self._names = names
        self._ready: dict[int | None, Callable[..., Tensor]] = {}

    def __call__(self, x: Tensor, angles: tuple[Tensor, Tensor], slots: Slots, adapter: int | None) -> Tensor:
        """x [1, H] -> [1, H]; fills the token's slot. `adapter` is a number in `names`, -1 for none, None for the
        active ones.
        """
        if adapter not in self._ready:
            self._ready[adapter] = self._with_weights(adapter)
        return self._ready[adapter](x, *angles, slots.keys, slots.values, slots.used)

    def _with_weights(self, adapter: int | None) -> Callable[..., Tensor]:
        """`_block` of what changes from token to token."""
        parts = [self._part(linear, adapter) for linear in self._linears]
        own = self._own
        norms = own.before_attention, own.behind_attention, own.before_mlp, own.behind_mlp
        weights = *(None if norm is None else norm[0] for norm in norms), *(own.heads or (None, None))[:2]
        flat = [x for weight, bias, lows in parts for x in (weight, bias, *(x for low in lows for x in low))]
        counts = tuple(len(lows) for _, _, lows in parts)
        epsilon = own.before_attention[1]
        return _block.with_last(*weights, epsilon, own.scaling, own.activation, counts, *flat)

    def _part(self, linear: Any, adapter: int | None) -> Part:
        if not isinstance(linear, LoraLinear):
            return linear.weight, linear.bias, ()
        base: Any = linear.base_layer
        wanted = linear.active_adapters if adapter is None else [] if adapter < 0 else [self._names[adapter]]
        lows = tuple(
            (linear.lora_A[name].weight, linear.lora_B[name].weight, base.weight.new_tensor([linear.scaling[name]]))
            for name in wanted
            if name in linear.lora_A
        )
        return base.weight, base.bias, lows


def project_single(x: Tensor, norm: Norm, weight: Tensor) -> Tensor:
    """Logits [1, V] of the last block's x [1, H]."""
    out: Tensor = _normed_product(x, *norm, weight)
    return out


def _block_of(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    keys: Tensor,
    values: Tensor,
    used: Tensor,
    norm: Tensor,
    norm_behind: Tensor | None,
    norm_mlp: Tensor,
    norm_behind_mlp: Tensor | None,
    norm_query: Tensor | None,
    norm_key: Tensor | None,
    epsilon: float,
    scaling: float,
    activation: str,
    adapters: tuple[int, ...],
    *weights: Tensor | None,
) -> Tensor:
    """The block's output [1, H]. `weights` are those of the seven layers one after the other, each with its bias and
    the three tensors of every adapter on it; `adapters` counts those."""
    rest = iter(weights)
    layers = [(next(rest), next(rest), [(next(rest), next(rest), next(rest)) for _ in range(n)]) for n in adapters]
    query, key, value, out, gate, up, down = cast(list[Part], layers)
    kv_heads, _, size = keys.shape
    length = used.shape[0]
    y = normed(x, norm, epsilon)
    queries, own = _product(y, query).view(1, -1, size), _product(y, key).view(1, -1, size)
    if norm_query is not None and norm_key is not None:
        queries, own = normed(queries, norm_query, epsilon), normed(own, norm_key, epsilon)
    q = rotated(queries, cos, sin).view(kv_heads, -1, 1, size)
    turned = rotated(own, cos, sin)
    keys.narrow(1, length - 1, 1).copy_(turned.transpose(0, 1))
    values.narrow(1, length - 1, 1).copy_(_product(y, value).view(kv_heads, 1, size))
    seen, found = keys[:, None, :length].to(precise(q)), values[:, None, :length].to(precise(q))
    shares = torch.softmax((q.to(seen.dtype) * seen).sum(-1) * scaling, -1)
    attended = (shares[..., None] * found).sum(2).to(x.dtype).view(1, -1)
    z = _product(attended, out)
    x = x + (z if norm_behind is None else normed(z, norm_behind, epsilon))
    y = normed(x, norm_mlp, epsilon)
    z = _product(activated(_product(y, gate), activation) * _product(y, up), down)
    return x + (z if norm_behind_mlp is None else normed(z, norm_behind_mlp, epsilon))


def _normed_product_of(x: Tensor, norm: Tensor, epsilon: float, weight: Tensor) -> Tensor:
    return _sums(normed(x, norm, epsilon), weight).to(x.dtype)


_block = Kernel(_block_of, {"keys": "K R D", "values": "K R D", "used": "S"})
_normed_product = Kernel(_normed_product_of, {})


def _product(x: Tensor, part: Part) -> Tensor:
    """x [1, I] -> [1, O]; the low-rank part is rounded where LoRA's first layer rounds."""
    weight, bias, lows = part
    total = _sums(x, weight)
    for a, b, scale in lows:
        total = total + _sums(_sums(x, a).to(x.dtype) * scale, b)
    return (total if bias is None else total + bias).to(x.dtype)


def _sums(x: Tensor, weight: Tensor) -> Tensor:
    """x [1, I] W' [I, O] in float32 as one sum along each row of W, which a compiler turns into one pass over it."""
    exact = precise(x)
    return (weight.to(exact) * x.to(exact)).sum(-1)[None]
