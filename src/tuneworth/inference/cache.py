"""Keys and values that are kept: of a prefix, once for all rows, and of each row as it grows.

Shapes as in models/attention: P prefix tokens, B rows, S slots a row, K key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tuneworth.models.attention import Branches, attend_rows, padded_slots
from tuneworth.models.kernels import attend_one_each, attend_one_each_of_both, kernels_compiled, rotate
from tuneworth.models.single import Slots


@dataclass(frozen=True, slots=True)
class Prefix:
    """Keys and values [K, P, D] of every layer for the first tokens of a sequence, or for a stretch of it."""

    tokens: int
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @classmethod
    def empty(cls) -> Prefix:
        """No tokens."""
        return cls(0, (), ())

    @classmethod
    def joined(cls, parts: Sequence[Prefix]) -> Prefix:
        """One behind the other."""
        filled = [part for part in parts if part.tokens]
        if len(filled) < 2:
            return filled[0] if filled else cls.empty()
        keys, values = (
            tuple(torch.cat(layer, 1) for layer in zip(*sides, strict=True))
            for sides in ([part.keys for part in filled], [part.values for part in filled])
        )
        return cls(sum(part.tokens for part in filled), keys, values)

    def cut(self, start: int, stop: int) -> Prefix:
        """The tokens from `start` to before `stop`, in memory of their own."""
        if (start, stop) == (0, self.tokens):
            return self
        keys, values = (tuple(x[:, start:stop].clone() for x in side) for side in (self.keys, self.values))
        return Prefix(stop - start, keys, values)

    @property
    def size_bytes(self) -> int:
        """Memory of all keys and values."""
        return sum(x.numel() * x.element_size() for x in (*self.keys, *self.values))


def token_bytes(config: Any, dtype: torch.dtype) -> int:
    """Memory of one token's keys and values in all layers, by a model's configuration."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return int(2 * config.num_hidden_layers * kv_heads * size * dtype.itemsize)


@dataclass(frozen=True, slots=True)
class Branch:
    """A token of a row that is a tree: it sees the row's first `stem` slots and `slots`, its own among them."""

    position: int
    stem: int
    slots: tuple[int, ...]


class RowCache:
    """The layout of rows behind a shared prefix. Rows join at the end and leave from anywhere; each pass feeds some
    tokens to neighbouring rows, which then stay in the cache."""

    def __init__(self, prefix: Prefix, device: str, *, many_passes: bool = False) -> None:
        """No rows yet. Kernels for passes of one token a row take half a second to load: `many_passes` pay for it."""
        self._many_passes = many_passes
        self.prefix = prefix
        self.device = device
        self._keys: list[Tensor] = []  # a layer's [B, K, S, D]
        self._values: list[Tensor] = []
        self._room = (0, 0)  # B, S
        self.lengths: list[int] = []  # of the rows that are here
        self._first = self._longest = 0
        self._branches: Branches | None = None
        self._fill: Tensor | None = None
        self._ones: Tensor | None = None  # the slots in use, when a pass is one token of each of several rows
        self._back = self._starts = self._row = self._place = torch.zeros(0, dtype=torch.long)

    def reserve(self, rows: int, slots: int) -> None:
        """Room for `rows` rows of `slots` tokens; what is there is kept."""
        rows, slots = max(rows, self._room[0]), max(slots, self._room[1])
        if (rows, slots) == self._room:
            return
        self._room = rows, slots
        for side in (self._keys, self._values):
            for layer, old in enumerate(side):
                side[layer] = old.new_zeros(rows, old.shape[1], slots, old.shape[3])
                side[layer][: old.shape[0], :, : old.shape[2]] = old

    def join(self, beginnings: Sequence[Prefix]) -> None:
        """New rows at the end, each with a beginning that was computed before."""
        first = len(self.lengths)
        self.lengths += [beginning.tokens for beginning in beginnings]
        for row, beginning in enumerate(beginnings, first):
            for layer, (key, value) in enumerate(zip(beginning.keys, beginning.values, strict=True)):
                self._allocate(layer, key)
                self._keys[layer][row, :, : beginning.tokens] = key
                self._values[layer][row, :, : beginning.tokens] = value

    def leave(self, row: int) -> int:
        """Forget a row; the last row takes its place. Returns which row that was."""
        last = len(self.lengths) - 1
        if row != last:
            for side in (self._keys, self._values):
                for x in side:
                    x[row, :, : self.lengths[last]] = x[last, :, : self.lengths[last]]
            self.lengths[row] = self.lengths[last]
        self.lengths.pop()
        return last

    def feed(self, counts: Sequence[int], first: int = 0) -> list[int]:
        """Announce the next pass: counts[i] tokens for row first + i. Returns the position of every token."""
        starts = self.lengths[first : first + len(counts)]
        for row, count in enumerate(counts, first):
            self.lengths[row] += count
        self._first, self._longest = first, max(self.lengths[first : first + len(counts)])
        places = [start + i for start, count in zip(starts, counts, strict=True) for i in range(count)]
        self._branches = None
        self._fill = None
        if min(counts) < max(counts):
            fill, _, back = padded_slots(counts)
            self._fill, self._back = fill.to(self.device), back.to(self.device)
        self._starts = torch.tensor(starts, device=self.device)
        rows = torch.arange(first, first + len(counts))
        self._row = torch.repeat_interleave(rows, torch.tensor(counts)).to(self.device)
        self._place = torch.tensor(places, device=self.device)
        ones = first == 0 and len(counts) > 1 and max(counts) == 1
        compiled = self._many_passes and self.device == "cpu" and kernels_compiled()
        self._ones = torch.arange(self._longest) if ones and compiled else None
        return [self.prefix.tokens + place for place in places]

    def feed_branches(self, tokens: Sequence[Sequence[Branch]], key_positions: Sequence[Sequence[int]]) -> list[int]:
        """Announce a pass that grows trees: some tokens of every row from the first one on, which fill its next slots.

        `key_positions` are those of each row's slots, the new ones included. Returns the position of every token.
        """
        self.feed([len(row) for row in tokens])
        longest = max(map(len, tokens))
        seen = torch.zeros(len(tokens), longest, self._longest, dtype=torch.bool)
        places, keys = torch.zeros(len(tokens), longest).long(), torch.zeros(len(tokens), self._longest).long()
        for row, branches in enumerate(tokens):
            keys[row, : len(key_positions[row])] = torch.tensor(key_positions[row])
            for place, branch in enumerate(branches):
                seen[row, place, list(branch.slots)] = True
                seen[row, place, : branch.stem] = True
                places[row, place] = branch.position
            seen[row, len(branches) :, 0] = True  # padding sees something, so that nothing is divided by zero
        self._ones = None
        self._branches = Branches(seen.to(self.device), places.to(self.device), keys.to(self.device))
        return [self.prefix.tokens + branch.position for row in tokens for branch in row]

    def of_row(self, row: int, start: int = 0) -> Prefix:
        """A copy of a row's own keys and values from token `start` on."""
        stop = self.lengths[row]
        keys, values = (tuple(x[row, :, start:stop].clone() for x in side) for side in (self._keys, self._values))
        return Prefix(stop - start, keys, values)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        """See models.attention.Layout."""
        self._allocate(layer, key[0])
        self._keys[layer][self._row, :, self._place] = key[0].transpose(0, 1)
        self._values[layer][self._row, :, self._place] = value[0].transpose(0, 1)
        if self.prefix.tokens:
            shared_key, shared_value = self.prefix.keys[layer], self.prefix.values[layer]
        else:
            shared_key, shared_value = key[0, :, :0], value[0, :, :0]
        tokens = query[0].transpose(0, 1)
        slots = tokens if self._fill is None else tokens.index_select(0, self._fill)
        rows = slice(self._first, self._first + len(self._starts))
        out = attend_rows(
            slots.unflatten(0, (len(self._starts), -1)),
            self._keys[layer][rows, :, : self._longest],
            self._values[layer][rows, :, : self._longest],
            shared_key,
            shared_value,
            scaling=scaling,
            window=window,
            offsets=self._starts,
            branches=self._branches,
        ).flatten(0, 1)
        return (out if self._fill is None else out.index_select(0, self._back))[None]

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
        if window is not None and self.prefix.tokens + self._longest <= window:
            window = None
        heads = wide.unflatten(1, (-1, shape[1]))
        places = self._ones if window is None and layer < len(self._keys) else None
        if places is not None and angles is not None and not self.prefix.tokens:
            return attend_one_each(heads, *angles, *self._own(layer, len(heads)), places, scaling).flatten(1)
        if angles is not None:
            heads = rotate(wide, *angles, *shape)
        if places is not None and self.prefix.tokens:
            return self._attend_one_each_of_both(layer, heads, shape[0], places, scaling)
        query, key, value = heads.transpose(0, 1)[None].split([heads.shape[1] - 2 * shape[0], shape[0], shape[0]], 1)
        return self.attend(layer, query, key, value, scaling, window)[0].flatten(1)

    def _own(self, layer: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values of the first rows, and the slots of their tokens."""
        return self._keys[layer][:rows], self._values[layer][:rows], self._starts

    def _attend_one_each_of_both(
        self, layer: int, heads: Tensor, kv_heads: int, places: Tensor, scaling: float
    ) -> Tensor:
        """Rotated heads [B, H + 2 K, D] of one token of every row -> [B, H D]; one product with what they share."""
        query = heads[:, : -2 * kv_heads].unflatten(1, (kv_heads, -1)).transpose(0, 1)  # [K, B, G, D]
        common = torch.bmm(query.flatten(1, 2), self.prefix.keys[layer].transpose(1, 2)).view(*query.shape[:3], -1)
        out, weights = attend_one_each_of_both(heads, *self._own(layer, len(heads)), places, common, scaling)
        out = torch.baddbmm(out.flatten(1, 2), weights.flatten(1, 2), self.prefix.values[layer])
        return out.view(query.shape).transpose(0, 1).flatten(1)

    def lone(self) -> list[Slots]:
        """See models.attention.Layout."""
        alone = len(self._starts) == 1 and self._branches is None and not self.prefix.tokens
        if not alone or not self._keys or self._longest < 2:
            return []
        return Slots.of([x[self._first] for x in self._keys], [x[self._first] for x in self._values], self._longest)

    def _allocate(self, layer: int, like: Tensor) -> None:
        """Room for a layer's keys and values [K, P, D], as reserved."""
        if layer == len(self._keys):
            # Zeros, since what no query sees is multiplied by zero and must not be infinite.
            shape = self._room[0], like.shape[0], self._room[1], like.shape[2]
            self._keys.append(like.new_zeros(shape))
            self._values.append(like.new_zeros(shape))
