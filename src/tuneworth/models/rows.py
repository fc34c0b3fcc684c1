"""The layout of training and scoring: rows packed into one sequence, their shared beginnings computed once.

A pack is a tree of *segments*: the beginning that all rows share is its root, beginnings that some rows share hang
below it, and what a row has for itself is a leaf. A token attends to the segments above its own, and causally to its
own. Segments of equal depth form a *band*, or two where few are much longer than the rest: B segments behind one
another in R tokens, which attention sees as B x L slots, L being the longest segment.

Shapes: P tokens of the root, S keys of a segment (those of its ancestors below the root, then its own), N = B x L
slots, H query heads, K key/value heads, G = H / K, D head size.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tuneworth.models.attention import padded_slots
from tuneworth.models.kernels import (
    rotate_from_slots,
    rotate_to_slots,
    slots_of,
    softmax_backward_of_both,
    softmax_backward_of_own,
    softmax_of_both,
    softmax_of_own,
    tokens_of,
)
from tuneworth.models.single import Slots

# On processors plain matrix products beat PyTorch's fused attention up to some length, most of all backward: 27 ms a
# layer against 10 ms at 650 tokens (docs/log.md). Long segments are taken in blocks, so that causality halves the work;
# beyond the second bound the weights kept for backward would take too much memory.
_BLOCK_TOKENS, _PLAIN_TOKENS = 256, 1024
# Scores of a head that are saved where a band is cut in two: another band's own operations cost about as much.
_WORTH_A_BAND = 1 << 17


@dataclass(frozen=True, slots=True)
class Segment:
    """`tokens` consecutive tokens; `parent` is the index of the segment before them, None for the root."""

    tokens: int
    parent: int | None = None


@dataclass(frozen=True, slots=True)
class Band:
    """B segments of equal depth. `slots` [N] names the token (of the band) in each slot, padding repeats token 0;
    `back` [R] the slot of each token. `above` [B * A] names slots of the earlier bands: the keys of the ancestors
    below the root, A at most. `allowed` [B, L, S] tells which keys a query sees. Positions are counted in the row.
    """

    lengths: tuple[int, ...]
    slots: Tensor
    filled: Tensor
    back: Tensor
    above: Tensor | None
    allowed: Tensor
    query_positions: Tensor  # [B, L]
    key_positions: Tensor  # [B, S]

    @property
    def rows(self) -> int:
        """B."""
        return len(self.lengths)

    @property
    def longest(self) -> int:
        """L."""
        return self.allowed.shape[1]


@dataclass(frozen=True, slots=True)
class Tree:
    """The layout (see models.attention) of packed rows: the root's P tokens, then band after band."""

    prefix_tokens: int
    bands: tuple[Band, ...]  # the root's own comes first, if there is a root
    longest_row: int

    @classmethod
    def of(cls, prefix_tokens: int, lengths: Sequence[int], device: str = "cpu") -> Tree:
        """Rows of these lengths in tokens behind one shared prefix."""
        return cls.of_segments(prefix_tokens, [Segment(length) for length in lengths], device)

    @classmethod
    def of_segments(cls, prefix_tokens: int, segments: Sequence[Segment], device: str = "cpu") -> Tree:
        """Segments behind a root of `prefix_tokens`; parents before children, equal depths side by side."""
        depths: list[int] = []
        for segment in segments:
            depths.append(0 if segment.parent is None else depths[segment.parent] + 1)
        if depths != sorted(depths):
            raise ValueError("segments must come in order of depth")
        bands = [_band([Segment(prefix_tokens)], [0], _Places(), 0)] if prefix_tokens else []
        places = _Places()
        for depth in sorted(set(depths)):
            members = [index for index, found in enumerate(depths) if found == depth]
            for part in _of_like_length(segments, members, prefix_tokens):
                bands.append(_band(segments, part, places, prefix_tokens))
        ends = [place[-1] for place in places.positions]
        longest = max(ends, default=prefix_tokens - 1) + 1
        return cls(prefix_tokens, tuple(_moved(band, device) for band in bands), longest)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        """See models.attention.Layout."""
        size, kv_heads = query.shape[-1], key.shape[1]
        wide = torch.cat([query[0], key[0], value[0]]).transpose(0, 1).flatten(1)
        out = self.attend_wide(layer, wide, None, (kv_heads, size), scaling, window)
        return out.view(1, len(wide), -1, size)

    def lone(self) -> list[Slots]:
        """See models.attention.Layout."""
        return []

    def attend_wide(
        self,
        layer: int,
        wide: Tensor,
        angles: tuple[Tensor, Tensor] | None,
        shape: tuple[int, int],
        scaling: float,
        window: int | None,
    ) -> Tensor:
        """See models.attention.Layout."""
        if window is not None and self.longest_row <= window:
            window = None
        counts = [len(band.back) for band in self.bands]
        parts = wide.split(counts)
        turns = [None] * len(parts) if angles is None else zip(*(angle.split(counts) for angle in angles), strict=True)
        out: list[Tensor] = []
        keys: list[Tensor] = []
        values: list[Tensor] = []
        root: tuple[Tensor, Tensor] | None = None
        for index, (band, part, turn) in enumerate(zip(self.bands, parts, turns, strict=True)):
            cos, sin = turn if turn is not None else (None, None)
            q, k, v = _ToSlots.apply(part, cos, sin, band, shape)  # type: ignore[no-untyped-call]
            is_root = index == 0 and self.prefix_tokens > 0
            own = (k, v)
            if band.above is not None:
                own = _with_ancestors(band, k, v, torch.cat(keys, 1), torch.cat(values, 1))
            out.append(_attend_band(band, q, own, root, scaling, window))
            if is_root:
                root = (k, v)
            else:
                keys.append(k)
                values.append(v)
        return torch.cat(out) if len(out) > 1 else out[0]


class _Places:
    """Where the tokens of every segment stand: slots among those of all bands, and positions in the row."""

    def __init__(self) -> None:
        self.slots: list[list[int]] = []
        self.positions: list[list[int]] = []
        self.used = 0


def _of_like_length(segments: Sequence[Segment], members: list[int], prefix: int) -> list[list[int]]:
    """`members` as they are, or cut in two where that saves many scores of slots that hold nothing."""

    def scores(count: int, longest: int) -> int:
        return count * longest * (prefix + longest)

    lengths, count = [segments[index].tokens for index in members], len(members)
    before, behind = list(accumulate(lengths, max)), list(accumulate(reversed(lengths), max))[::-1]
    cuts = {at: scores(at, before[at - 1]) + scores(count - at, behind[at]) for at in range(1, count)}
    best = min(cuts, key=lambda at: cuts[at], default=0)
    if not best or scores(count, behind[0]) - cuts[best] < _WORTH_A_BAND:
        return [members]
    return [members[:best], members[best:]]


def _band(segments: Sequence[Segment], members: Sequence[int], places: _Places, prefix: int) -> Band:
    longest = max(segments[index].tokens for index in members)
    chains: list[list[int]] = []  # the ancestors of each member, from the top
    for index in members:
        chain: list[int] = []
        parent = segments[index].parent
        while parent is not None:
            chain.insert(0, parent)
            parent = segments[parent].parent
        chains.append(chain)
    above = [[slot for i in chain for slot in places.slots[i]] for chain in chains]
    before = [[place for i in chain for place in places.positions[i]] for chain in chains]
    deepest = max(map(len, above))
    starts = [prefix + len(slots) for slots in above]
    lengths = tuple(segments[index].tokens for index in members)
    slots, filled, back = padded_slots(lengths)
    query_positions = torch.tensor(starts)[:, None] + torch.arange(longest)[None, :]
    # A key that is padding lies behind every query.
    far = int(query_positions.max()) + 1
    key_positions = torch.full((len(members), deepest + longest), far)
    for row, positions in enumerate(before):
        key_positions[row, : len(positions)] = torch.tensor(positions, dtype=torch.long)
    key_positions[:, deepest:] = torch.where(filled.view(len(members), longest), query_positions, far)
    for row, index in enumerate(members):
        first = places.used + row * longest
        places.slots.append(list(range(first, first + segments[index].tokens)))
        places.positions.append(list(range(starts[row], starts[row] + segments[index].tokens)))
    places.used += len(members) * longest
    padded = [part + [0] * (deepest - len(part)) for part in above]
    # A query in padding sees its segment's first key at least: no row of the softmax is empty.
    allowed = key_positions[:, None, :] <= query_positions[:, :, None]
    names = torch.tensor(padded, dtype=torch.long).flatten() if deepest else None
    return Band(lengths, slots, filled, back, names, allowed, query_positions, key_positions)


def _moved(band: Band, device: str) -> Band:
    def to(x: Tensor) -> Tensor:
        return x.to(device)

    above = None if band.above is None else to(band.above)
    return Band(
        band.lengths, to(band.slots), to(band.filled), to(band.back), above, to(band.allowed),
        to(band.query_positions), to(band.key_positions),
    )  # fmt: skip


def _with_ancestors(band: Band, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values [K, B S, D] of each segment: its ancestors' before its own."""
    assert band.above is not None
    found = []
    for own, all_above in ((k, keys), (v, values)):
        heads, _, size = own.shape
        upper = all_above.index_select(1, band.above).view(heads, band.rows, -1, size)
        both = torch.cat([upper, own.view(heads, band.rows, -1, size)], 2)
        found.append(both.view(heads, -1, size))
    return found[0], found[1]


def _attend_band(
    band: Band,
    query: Tensor,
    own: tuple[Tensor, Tensor],
    root: tuple[Tensor, Tensor] | None,
    scaling: float,
    window: int | None,
) -> Tensor:
    """query [K, N, G, D], own keys and values [K, B S, D], the root's [K, P, D] -> [R, H D]."""
    if band.longest > _PLAIN_TOKENS or window is not None:
        return _attend_fused(band, query, own, root, scaling, window)
    if band.longest > _BLOCK_TOKENS and band.above is None:
        return _attend_in_blocks(band, query, own, root, scaling)
    key, value = root if root is not None else (None, None)
    out: Tensor = _Plain.apply(query, *own, key, value, band, scaling)  # type: ignore[no-untyped-call]
    return out


def _attend_in_blocks(
    band: Band,
    query: Tensor,
    own: tuple[Tensor, Tensor],
    root: tuple[Tensor, Tensor] | None,
    scaling: float,
) -> Tensor:
    """`_attend_band` a block of queries at a time: keys before the block are shared by its queries, as a root's are."""
    out: list[Tensor] = []
    for row, length in enumerate(band.lengths):
        tokens = slice(row * band.longest, row * band.longest + length)
        q, (keys, values) = query[:, tokens], (x[:, tokens] for x in own)
        before = 0
        if root is not None:
            before = root[0].shape[1]
            keys, values = torch.cat([root[0], keys], 1), torch.cat([root[1], values], 1)
        for start in range(0, length, _BLOCK_TOKENS):
            stop = min(start + _BLOCK_TOKENS, length)
            seen, inside = slice(before + start), slice(before + start, before + stop)
            earlier = (keys[:, seen], values[:, seen]) if seen.stop else (None, None)
            block = _causal_block(stop - start, str(q.device))
            out.append(
                _Plain.apply(q[:, start:stop], keys[:, inside], values[:, inside], *earlier, block, scaling)  # type: ignore[no-untyped-call]
            )
    return torch.cat(out)


@functools.lru_cache(maxsize=64)
def _causal_block(tokens: int, device: str) -> Band:
    """The band of one segment that nothing precedes."""
    return _moved(_band([Segment(tokens)], [0], _Places(), 0), device)


def _attend_fused(
    band: Band,
    query: Tensor,
    own: tuple[Tensor, Tensor],
    root: tuple[Tensor, Tensor] | None,
    scaling: float,
    window: int | None,
) -> Tensor:
    """`_attend_band` by PyTorch's own attention."""
    kv_heads, _, group, size = query.shape
    rows, longest = band.rows, band.longest
    q = query.view(kv_heads, rows, longest, group, size).permute(1, 0, 3, 2, 4).reshape(rows, -1, longest, size)
    k, v = (x.view(kv_heads, rows, -1, size).transpose(0, 1) for x in own)
    allowed, positions = band.allowed, band.key_positions
    if root is not None:
        k, v = (torch.cat([shared.expand(rows, -1, -1, -1), x], 2) for shared, x in zip(root, (k, v), strict=True))
        places = torch.arange(root[0].shape[1], device=q.device).expand(rows, -1)
        allowed = torch.cat([allowed.new_ones(rows, longest, places.shape[1]), allowed], 2)
        positions = torch.cat([places, positions], 1)
    if window is not None:
        allowed = allowed & (band.query_positions[:, :, None] - positions[:, None, :] < window)
    if rows == 1 and root is None and window is None and band.above is None:
        out = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
    else:
        out = scaled_dot_product_attention(q, k, v, allowed[:, None], scale=scaling, enable_gqa=True)
    return out.transpose(1, 2).flatten(0, 1).index_select(0, band.back).flatten(1)


class _ToSlots(torch.autograd.Function):
    """See `rotate_to_slots`."""

    @staticmethod
    def forward(
        ctx: Any, wide: Tensor, cos: Tensor | None, sin: Tensor | None, band: Band, shape: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.turn, ctx.band = (cos, sin), band
        return rotate_to_slots(wide, cos, sin, band.slots, *shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = gradients
        cos, sin = ctx.turn
        return rotate_from_slots(query, key, value, cos, sin, ctx.band.back), None, None, None, None


class _Plain(torch.autograd.Function):
    """Attention of a band by plain products: one product for all rows where keys are shared."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        root_key: Tensor | None,
        root_value: Tensor | None,
        band: Band,
        scaling: float,
    ) -> Tensor:
        kv_heads, slots, group, size = query.shape
        rows, longest = band.rows, band.longest
        q, k, v = (x.view(kv_heads * rows, -1, size) for x in (query, key, value))
        # Segments and their queries lie in one dimension, N: a length of 1, of a root's, would not run compiled.
        scores = torch.bmm(q, k.transpose(1, 2)).view(kv_heads, slots, group, -1)
        allowed = band.allowed.flatten(0, 1)
        shared = None
        if root_key is None or root_value is None:
            weights = softmax_of_own(scores, allowed, scaling)
            out = torch.bmm(weights.view(kv_heads * rows, longest * group, -1), v)
        else:
            flat = query.view(kv_heads, slots * group, size)
            common = torch.bmm(flat, root_key.transpose(1, 2)).view(kv_heads, slots, group, -1)
            weights, shared = softmax_of_both(scores, common, allowed, scaling)
            out = torch.bmm(weights.view(kv_heads * rows, longest * group, -1), v).view(flat.shape)
            out.baddbmm_(shared.view(kv_heads, slots * group, -1), root_value)
        ctx.save_for_backward(query, key, value, root_key, root_value, weights, shared)
        ctx.band, ctx.scaling = band, scaling
        return tokens_of(out.view(query.shape), band.back)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, root_key, root_value, weights, shared = ctx.saved_tensors
        kv_heads, slots, group, size = query.shape
        band: Band = ctx.band
        blocks, inside = kv_heads * band.rows, band.longest * group
        out = slots_of(gradients[0].contiguous(), band.slots, band.filled, kv_heads, size)
        q, k, v, o = (x.view(blocks, -1, size) for x in (query, key, value, out))
        to_weights = torch.bmm(o, v.transpose(1, 2)).view(weights.shape)
        to_root: tuple[Tensor | None, Tensor | None] = (None, None)
        if shared is None:
            scores = softmax_backward_of_own(weights, to_weights, ctx.scaling)
            to_query = torch.bmm(scores.view(blocks, inside, -1), k).view(query.shape)
        else:
            flat_out, flat_query = (x.view(kv_heads, slots * group, size) for x in (out, query))
            to_shared = torch.bmm(flat_out, root_value.transpose(1, 2)).view(shared.shape)
            scores, common = softmax_backward_of_both(weights, to_weights, shared, to_shared, ctx.scaling)
            flat_common = common.view(kv_heads, slots * group, -1)
            to_query = torch.bmm(scores.view(blocks, inside, -1), k).view(flat_query.shape)
            to_query = to_query.baddbmm_(flat_common, root_key).view(query.shape)
            flat_shared = shared.view(kv_heads, slots * group, -1)
            to_root = (
                torch.bmm(flat_common.transpose(1, 2), flat_query),
                torch.bmm(flat_shared.transpose(1, 2), flat_out),
            )
        to_key = torch.bmm(scores.view(blocks, inside, -1).transpose(1, 2), q).view(key.shape)
        to_value = torch.bmm(weights.view(blocks, inside, -1).transpose(1, 2), o).view(value.shape)
        return to_query, to_key, to_value, *to_root, None, None
