"""Attention over rows that share a prefix, as one function for training, scoring and generation.

Every forward pass of this project runs on one packed sequence (batch 1) whose structure is a *layout*: models/rows
has that of training, inference/cache that of generation. The function is registered with transformers' attention
interface under the name `tuneworth`, so any causal model that uses the interface works unpatched; the layout travels
as a keyword argument of `model.forward`.

Shapes: P prefix tokens, B rows, L tokens a row (padded right), H query heads, K key/value heads, G = H / K,
D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from tuneworth.errors import InputError
from tuneworth.models.kernels import precise

ATTENTION = "tuneworth"
# Above this many tokens a row the fused kernel wins; below it plain matrix products do, most of all backward.
_PLAIN_ROW_TOKENS = 256


class Layout(Protocol):
    """What the tokens of a packed sequence are, and so which of them attend to which."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        """query [1, H, T, D], key and value [1, K, T, D] become the output [1, T, H, D]."""
        ...


def padded_slots(lengths: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of these lengths, one behind the other in R tokens, as N = rows x longest slots.

    `slots` [N] names the token in each slot (padding repeats token 0), `filled` [N] the slots that are no padding,
    `back` [R] the slot of each token.
    """
    longest = max(lengths, default=0)
    filled = (torch.arange(longest)[None, :] < torch.tensor(lengths, dtype=torch.long)[:, None]).flatten()
    back = filled.nonzero()[:, 0]
    slots = torch.zeros(len(filled), dtype=torch.long)
    slots[back] = torch.arange(len(back))
    return slots, filled, back


def attend_prefix(query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None) -> Tensor:
    """Causal attention of one sequence [1, H or K, P, D] to itself; returns [1, P, H, D]."""
    tokens = query.shape[2]
    if window is None or tokens <= window:
        out = scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)
    else:
        position = torch.arange(tokens, device=query.device)
        distance = position[:, None] - position[None, :]
        mask = (distance >= 0) & (distance < window)
        out = scaled_dot_product_attention(query, key, value, mask, scale=scaling, enable_gqa=True)
    return out.transpose(1, 2)


def attend_rows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prefix_key: Tensor,
    prefix_value: Tensor,
    *,
    scaling: float,
    window: int | None,
    offsets: Tensor,
) -> Tensor:
    """Each row attends to the shared prefix and causally to itself.

    query [B, H, L, D]; key, value [B, K, S, D]; prefix_key, prefix_value [K, P, D]; returns [1, B*L, H, D].
    Query i of row b sits at key offsets[b] + i, offsets being [B]; later keys are unseen.
    """
    rows, heads, tokens, size = query.shape
    kv_heads, keys, prefix = key.shape[1], key.shape[2], prefix_key.shape[1]
    mask = _allowed(tokens, keys, prefix, window, offsets)
    if tokens > _PLAIN_ROW_TOKENS:
        full_key, full_value = key, value
        if prefix:
            full_key = torch.cat([prefix_key.expand(rows, -1, -1, -1), key], 2)
            full_value = torch.cat([prefix_value.expand(rows, -1, -1, -1), value], 2)
        out = scaled_dot_product_attention(query, full_key, full_value, mask[:, None], scale=scaling, enable_gqa=True)
        return out.transpose(1, 2).reshape(1, rows * tokens, heads, size)
    group = heads // kv_heads
    grouped = query.reshape(rows, kv_heads, group * tokens, size) * scaling
    own = (grouped @ key.transpose(2, 3)).view(rows, kv_heads, group, tokens, keys)
    own_mask = mask[..., prefix:]
    own = own.masked_fill(~own_mask[:, None, None], float("-inf"))
    if prefix:
        # One product for all rows: [K, B*G*L, D] @ [K, D, P].
        flat = grouped.transpose(0, 1).reshape(kv_heads, rows * group * tokens, size)
        shared = (flat @ prefix_key.transpose(1, 2)).view(kv_heads, rows, group, tokens, prefix).transpose(0, 1)
        if window is not None:
            shared = shared.masked_fill(~mask[:, None, None, :, :prefix], float("-inf"))
        scores = torch.cat([shared, own], -1)
    else:
        scores = own
    weights = torch.softmax(scores, -1, dtype=precise(scores)).to(value.dtype)
    out = weights[..., prefix:].reshape(rows, kv_heads, group * tokens, keys) @ value
    if prefix:
        shared_weights = weights[..., :prefix].transpose(0, 1).reshape(kv_heads, rows * group * tokens, prefix)
        out = out + (shared_weights @ prefix_value).view(kv_heads, rows, group * tokens, size).transpose(0, 1)
    return out.view(rows, heads, tokens, size).transpose(1, 2).reshape(1, rows * tokens, heads, size)


def _allowed(tokens: int, keys: int, prefix: int, window: int | None, offsets: Tensor) -> Tensor:
    """Which of [prefix | own] keys each query may see: bool [B, L, P + S]."""
    device = offsets.device
    query = prefix + offsets[:, None] + torch.arange(tokens, device=device)
    key = torch.arange(prefix + keys, device=device)
    distance = query[:, :, None] - key
    allowed = distance >= 0
    return allowed if window is None else allowed & (distance < window)


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: Layout | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    if layout is None:
        raise TypeError("a model with the tuneworth attention must be called with layout=...")
    unsupported = [name for name in ("softcap", "s_aux", "position_bias") if others.get(name) is not None]
    if unsupported or dropout:
        used = ", ".join(unsupported) or "dropout"
        raise InputError(f"this model's attention uses {used}, which is not supported", cure="choose another model")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    return layout.attend(module.layer_idx, query, key, value, scale, sliding_window), None  # type: ignore[arg-type]


AttentionInterface.register(ATTENTION, _attention)
