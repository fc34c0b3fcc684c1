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
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from tuneworth.errors import InputError
from tuneworth.models.single import Slots

ATTENTION = "tuneworth"
# Scores that are in memory at one time: few enough for the cache, many enough for the products.
_TILE_SCORES = 1 << 21
# Up to so many keys PyTorch's fused attention is faster for a single query.
_FEW_KEYS = 1024


class Layout(Protocol):
    """What the tokens of a packed sequence are, and so which of them attend to which."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        """query [1, H, T, D], key and value [1, K, T, D] become the output [1, T, H, D]."""
        ...

    def attend_wide(
        self,
        layer: int,
        wide: Tensor,
        angles: tuple[Tensor, Tensor] | None,
        shape: tuple[int, int],
        scaling: float,
        window: int | None,
    ) -> Tensor:
        """wide [T, (H + 2 K) D], queries, keys and values of all heads side by side, becomes the output [T, H D].

        `angles` are cos and sin [T, D] by which queries and keys are still to be rotated; `shape` is (K, D).
        """
        ...

    def lone(self) -> list[Slots]:
        """Where each layer keeps the only row, if the pass is one more token of it and it sees all of them; else []."""
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


@dataclass(frozen=True, slots=True)
class Branches:
    """Rows that are trees: which of its own keys a query sees, and where queries and keys stand behind the prefix."""

    seen: Tensor  # bool [B, L, S]
    query_positions: Tensor  # [B, L]
    key_positions: Tensor  # [B, S]


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
    branches: Branches | None = None,
) -> Tensor:
    """Each row attends to the shared prefix and causally to itself.

    query [B, L, H, D]; key, value [B, K, S, D]; prefix_key, prefix_value [K, P, D]; returns [B, L, H, D].
    Query i of row b sits at key offsets[b] + i, offsets being [B]; later keys are unseen. With `branches`, rows are
    trees, and those tell instead which keys a query sees.
    """
    rows, tokens, heads, _ = query.shape
    keys, prefix = key.shape[2], prefix_key.shape[1]
    if rows == tokens == 1 and not prefix and keys <= _FEW_KEYS and branches is None and window is None:
        # One token of one row, which sees all keys: the heads of a group are as queries of one sequence.
        folded = query.view(1, key.shape[1], -1, query.shape[3])
        return scaled_dot_product_attention(folded, key, value, scale=scaling).view(query.shape)
    out = torch.empty_like(query)
    most = max(1, _TILE_SCORES // (heads * (prefix + keys)))  # queries in a tile
    row_step, token_step = max(1, most // tokens), min(tokens, most)
    last = keys if branches else int(offsets.max()) + tokens
    for row in range(0, rows, row_step):
        some = slice(row, row + row_step)
        for token in range(0, tokens, token_step):
            part = slice(token, token + token_step)
            # Causality leaves out the rest.
            seen = slice(0, keys if branches else min(keys, last - tokens + min(tokens, part.stop)))
            if branches is None:
                positions = offsets[some, None] + torch.arange(tokens, device=offsets.device)[part]
                distance = positions[:, :, None] - torch.arange(-prefix, seen.stop, device=offsets.device)
            else:
                distance = _distances(branches, some, part, prefix)
            out[some, part] = _tile(
                query[some, part] * scaling,
                (key[some, :, seen], value[some, :, seen]),
                (prefix_key, prefix_value),
                distance,
                window,
            )
    return out


def _distances(branches: Branches, rows: slice, tokens: slice, prefix: int) -> Tensor:
    """How far before each query a key stands [B, L, P + S]; negative when it is not seen."""
    query = branches.query_positions[rows, tokens, None]
    own = (query - branches.key_positions[rows, None]).masked_fill(~branches.seen[rows, tokens], -1)
    return torch.cat([query - torch.arange(-prefix, 0, device=query.device), own], -1)


def _tile(
    query: Tensor, own: tuple[Tensor, Tensor], shared: tuple[Tensor, Tensor], distance: Tensor, window: int | None
) -> Tensor:
    """`attend_rows` of few enough queries; distance [B, L, P + S] from query to key, negative for unseen keys."""
    rows, tokens, heads, size = query.shape
    kv_heads, prefix = own[0].shape[1], shared[0].shape[1]
    inside = heads // kv_heads * tokens
    q = query.view(rows, tokens, kv_heads, -1, size).transpose(1, 2).reshape(rows * kv_heads, inside, size)
    scores = torch.bmm(q, own[0].flatten(0, 1).transpose(1, 2)).view(rows, kv_heads, tokens, -1, own[0].shape[2])
    hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
    scores = scores.masked_fill_(hidden[:, None, :, None, prefix:], float("-inf"))
    if not prefix:
        weights = torch.softmax(scores, -1)
        out = torch.bmm(weights.view(rows * kv_heads, inside, -1), own[1].flatten(0, 1))
        return out.view(rows, kv_heads, tokens, -1, size).transpose(1, 2).reshape(query.shape)
    # One product for all rows: [K, B L G, D] @ [K, D, P].
    flat = q.view(rows, kv_heads, inside, size).transpose(0, 1).reshape(kv_heads, rows * inside, size)
    common = torch.bmm(flat, shared[0].transpose(1, 2)).view(kv_heads, rows, tokens, -1, prefix)
    if window is not None:
        common = common.masked_fill_(hidden[:, :, None, :prefix], float("-inf"))
    weights = torch.softmax(torch.cat([common, scores.transpose(0, 1)], -1), -1)
    out = torch.bmm(weights[..., :prefix].reshape(kv_heads, rows * inside, prefix), shared[1])
    own_weights = weights[..., prefix:].transpose(0, 1).reshape(rows * kv_heads, inside, -1)
    own_out = torch.bmm(own_weights, own[1].flatten(0, 1)).view(rows, kv_heads, inside, size)
    out = out.view(kv_heads, rows, inside, size).transpose(0, 1) + own_out
    return out.reshape(rows, kv_heads, tokens, -1, size).transpose(1, 2).reshape(query.shape)


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
