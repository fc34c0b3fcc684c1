"""A causal model's forward pass for answering: the fewest operations, no autograd, weights packed once.

oneDNN puts the weights of a product in an order of its own before it multiplies. That costs as much as reading them
twice, and at few tokens a pass reading the weights is all the time there is. Here they are put in order once: a pass
of one token takes less than half the time, one of 16 tokens half, one of 512 a tenth less, with the same bits
(docs/log.md). Layers that read the same input stand side by side, and LoRA adapters are more columns of their layer:

    y = [x | g (x A')] [W B]'          A, B of all adapters in memory, g 0 for tokens that another adapter answers

so that one pass can hold tokens of several adapters. The packed weights are a copy, made anew when weights change.

Shapes: T tokens, N tokens whose logits are wanted, H features, I inputs, O outputs, R ranks of all adapters, V tokens
in the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import psutil
import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor
from torch.nn.functional import linear

from tuneworth.models.attention import Layout
from tuneworth.models.kernels import gate_into, kernels_compiled, norm_heads, norm_into, norm_of_sum, normed
from tuneworth.models.single import SingleToken, project_single
from tuneworth.models.structure import Norm, Structure, is_known, linear_layers, norm_of, plain_head

_PACKED_FOR_ROWS = 16  # which order oneDNN chooses hardly depends on it


class Decoder(Protocol):
    """Next-token logits of packed sequences."""

    def refresh(self) -> bool:
        """Follow the weights; True when they have changed since the last call."""
        ...

    def __call__(
        self,
        ids: Tensor,
        positions: Tensor,
        layout: Layout,
        wanted: Tensor,
        *,
        allowed: Tensor | None = None,
        adapters: Tensor | None = None,
    ) -> Tensor:
        """Logits [N, V] behind the tokens at places `wanted` [N] of ids [T]; of the tokens `allowed` alone, if given.

        `adapters` [T] gives the number of each token's adapter in `names`, -1 for none; the active one by default.
        """
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters in memory that tokens can choose from; empty when only the model as it is can answer."""
        ...


def decoder_of(model: torch.nn.Module) -> Decoder:
    """The fastest decoder for `model`: packed where the architecture is known and there is memory for a copy of the
    weights, else its own forward pass."""
    return PackedDecoder(model) if _fits(model) and _has_room(model) else PlainDecoder(model)


class PlainDecoder:
    """Any causal model's own forward pass."""

    names = ()

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._seen: list[tuple[int, int]] = []

    def refresh(self) -> bool:
        """See Decoder."""
        return _changed(self)

    def __call__(
        self,
        ids: Tensor,
        positions: Tensor,
        layout: Layout,
        wanted: Tensor,
        *,
        allowed: Tensor | None = None,
        adapters: Tensor | None = None,
    ) -> Tensor:
        """See Decoder."""
        if adapters is not None:
            raise ValueError("this model's adapters cannot be chosen by token")
        out: Tensor = self._model(
            input_ids=ids[None], position_ids=positions[None], layout=layout, use_cache=False, logits_to_keep=wanted
        ).logits[0]
        return out if allowed is None else out[:, allowed]


class PackedDecoder:
    """The forward pass of a model of known blocks, one after the other."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._seen: list[tuple[int, int]] = []
        self._blocks: list[_Block] = []
        self._body: Any = None
        self._head: Any = None
        self._norm: Norm = (torch.empty(0), 0.0)
        self._window = math.inf  # the narrowest of all blocks
        self._project: Callable[[Tensor], Tensor] | None = None
        self.names: tuple[str, ...] = ()

    def refresh(self) -> bool:
        """See Decoder."""
        if not _changed(self):
            return False
        # The old copy goes before the new one comes.
        self._blocks.clear()
        self._project = None
        whole: Any = self._model.get_base_model() if isinstance(self._model, PeftModel) else self._model
        self.names = tuple(self._model.peft_config) if isinstance(self._model, PeftModel) else ()
        self._body, self._head, self._norm = whole.model, whole.lm_head, norm_of(whole.model.norm)
        self._blocks += [_Block(layer, self.names) for layer in whole.model.layers]
        self._window = min((block.own.window or math.inf for block in self._blocks), default=math.inf)
        self._project = _packed(self._head.weight)
        return True

    def __call__(
        self,
        ids: Tensor,
        positions: Tensor,
        layout: Layout,
        wanted: Tensor,
        *,
        allowed: Tensor | None = None,
        adapters: Tensor | None = None,
    ) -> Tensor:
        """See Decoder."""
        if self._project is None:
            self.refresh()
        assert self._project is not None
        x: Tensor = self._body.embed_tokens(ids)
        angles = {kind: self._angles(x, positions, kind) for kind in {block.own.angles for block in self._blocks}}
        lone = len(ids) == 1 and x.device.type == "cpu" and kernels_compiled()
        slots = layout.lone() if lone else []
        if slots and slots[0].used.shape[0] <= self._window:
            adapter = None if adapters is None else int(adapters[0])
            for block, place in zip(self._blocks, slots, strict=True):
                x = block.single(x, angles[block.own.angles], place, adapter)
            if allowed is None:
                return project_single(x, self._norm, self._head.weight)
            x = x[wanted]
        else:
            added = torch.zeros_like(x)
            for block in self._blocks:
                x, added = block(x, added, angles[block.own.angles], layout, adapters)
            x = x[wanted] + added[wanted]
        x = normed(x, *self._norm)
        return self._project(x) if allowed is None else linear(x, self._head.weight[allowed])

    def _angles(self, x: Tensor, positions: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        """Cosines and sines [T, D] of a kind of layer."""
        cos, sin = self._body.rotary_emb(x[None], positions[None], *([kind] if kind else []))
        return cos[0], sin[0]


class _Block:
    """One decoder block."""

    def __init__(self, layer: Any, names: Sequence[str]) -> None:
        self.own = Structure.of(layer)
        q, k, v, out, gate, up, down = linear_layers(layer)
        self._qkv, self._out = _Projection([q, k, v], names), _Projection([out], names)
        self._gate_up, self._down = _Projection([gate, up], names), _Projection([down], names)
        self.single = SingleToken(layer, self.own, names)

    def __call__(
        self, x: Tensor, added: Tensor, angles: tuple[Tensor, Tensor], layout: Layout, adapters: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """x + added [T, H] -> two parts of the output [T, H], which the next block adds up as it reads them."""
        own = self.own
        x, y = norm_of_sum(x, added, *own.before_attention)
        wide = self._qkv(y, adapters)
        if own.heads:
            wide = norm_heads(wide, *own.heads).flatten(1)
        attended = layout.attend_wide(own.index, wide, angles, own.shape, own.scaling, own.window)
        x, y = norm_of_sum(x, _behind(self._out(attended, adapters), own.behind_attention), *own.before_mlp)
        opened = self._gate_up(y, adapters)
        inside = opened.new_empty(len(opened), opened.shape[1] // 2)
        gate_into(inside, opened, own.activation)
        return x, _behind(self._down(inside, adapters), own.behind_mlp)


class _Projection:
    """Linear layers that read the same input, with all their adapters."""

    def __init__(self, layers: Sequence[Any], names: Sequence[str]) -> None:
        bases = [layer.base_layer if isinstance(layer, LoraLinear) else layer for layer in layers]
        weight = torch.cat([base.weight.detach() for base in bases])
        found = [
            (number, place, layer.lora_A[name].weight, layer.lora_B[name].weight, float(layer.scaling[name]))
            for number, name in enumerate(names)
            for place, layer in enumerate(layers)
            if isinstance(layer, LoraLinear) and name in layer.lora_A
        ]
        ranks = sum(len(a) for _, _, a, _, _ in found)
        # The last row is for tokens without an adapter: adapter -1.
        self._scales = weight.new_zeros(len(names) + 1, ranks)
        active = {name for layer in layers if isinstance(layer, LoraLinear) for name in layer.active_adapters}
        self._default = self._scales[-1]
        if ranks:
            starts = [0]
            for base in bases:
                starts.append(starts[-1] + len(base.weight))
            more, column = weight.new_zeros(len(weight), ranks), 0
            for number, place, a, b, scale in found:
                more[starts[place] : starts[place + 1], column : column + len(a)] = b
                self._scales[number, column : column + len(a)] = scale
                column += len(a)
            weight = torch.cat([weight, more], 1)
            self._low = _packed(torch.cat([a.detach() for _, _, a, _, _ in found]))
            self._default = self._scales[[n for n, name in enumerate(names) if name in active]].sum(0)
        self._ranks = ranks
        biases = [base.bias for base in bases]
        bias = None
        if any(b is not None for b in biases):
            bias = torch.cat(
                [weight.new_zeros(len(base.weight)) if b is None else b for base, b in zip(bases, biases, strict=True)]
            )
        self._full = _packed(weight, bias)

    def __call__(self, x: Tensor, adapters: Tensor | None) -> Tensor:
        """x [T, I] -> [T, O]."""
        if not self._ranks:
            return self._full(x)
        low = self._low(x).mul_(self._default if adapters is None else self._scales[adapters])
        return self._full(torch.cat([x, low], 1))


def _packed(weight: Tensor, bias: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """x [T, I] -> x W' + b of a frozen W [O, I]; packed where oneDNN can, else the plain product."""
    weight = weight.detach()
    if weight.device.type == "cpu" and _can_pack(weight.dtype):
        ordered = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _PACKED_FOR_ROWS)
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, ordered, bias, "none", [], "")
    return lambda x: linear(x, weight, bias)


def _can_pack(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))


def _behind(x: Tensor, norm: Norm | None) -> Tensor:
    """The norm of what attention or MLP gives, where there is one."""
    if norm is None:
        return x
    out = torch.empty_like(x)
    norm_into(out, x, *norm)
    return out


def _changed(decoder: Any) -> bool:
    """Whether any weight is another tensor since the last call, or was written to, which counts up its version."""
    seen = [(parameter.data_ptr(), parameter._version) for parameter in decoder._model.parameters()]
    if isinstance(decoder._model, PeftModel):
        seen += [(hash(name), 0) for name in (*decoder._model.active_adapters, *decoder._model.peft_config)]
    changed = bool(seen != decoder._seen)
    decoder._seen = seen
    return changed


def _has_room(model: torch.nn.Module) -> bool:
    """Whether a copy of all weights takes less than half of the free memory."""
    first = next(model.parameters())
    copy = sum(p.numel() * p.element_size() for p in model.parameters())
    free = torch.cuda.mem_get_info(first.device)[0] if first.is_cuda else psutil.virtual_memory().available
    return bool(copy < free / 2)


def _fits(model: torch.nn.Module) -> bool:
    if plain_head(model) is None:
        return False
    whole: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return all(
        is_known(layer) and all(_is_answerable(module) for module in linear_layers(layer))
        for layer in whole.model.layers
    )


def _is_answerable(module: torch.nn.Module) -> bool:
    """A torch.nn.Linear, alone or under LoRA adapters without dropout, DoRA or bias that are not merged."""
    if not isinstance(module, LoraLinear):
        return type(module) is torch.nn.Linear
    return (
        not module.merged
        and not module.disable_adapters
        and type(module.base_layer) is torch.nn.Linear
        and not module.lora_variant
        and all(isinstance(dropout, torch.nn.Identity) for dropout in module.lora_dropout.values())
        and all(b.bias is None for b in module.lora_B.values())
    )
