"""Keys and values that are kept: of a prefix, once for all rows, and of each row as it grows.

Shapes as in models/attention: P prefix tokens, B rows, S slots a row, K key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tuneworth.models.attention import attend_prefix, attend_rows, padded_slots


@dataclass(frozen=True, slots=True)
class Prefix:
    """Keys and values [K, P, D] of every layer for the beginning that all rows share."""

    tokens: int
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @classmethod
    def empty(cls) -> Prefix:
        """No shared beginning."""
        return cls(0, (), ())


class Recorder:
    """The layout of one plain sequence that keeps its keys and values."""

    def __init__(self) -> None:
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        """See models.attention.Layout."""
        if layer != len(self._keys):
            raise ValueError("layers must attend in order")
        self._keys.append(key[0].contiguous())
        self._values.append(value[0].contiguous())
        return attend_prefix(query, key, value, scaling, window)

    def prefix(self) -> Prefix:
        """What was recorded."""
        return Prefix(self._keys[0].shape[1], tuple(self._keys), tuple(self._values))


class RowCache:
    """The layout of B rows behind a prefix. Each pass feeds every row some tokens, which then stay in the cache."""

    def __init__(self, prefix: Prefix, rows: int, slots: int, device: str) -> None:
        """Room for `slots` tokens in each of `rows` rows."""
        self._prefix = prefix
        self._device = device
        self._slots = slots
        self._keys: list[Tensor] = []  # a layer's [B, K, S, D]
        self._values: list[Tensor] = []
        self.lengths = [0] * rows
        self._starts = self._row = self._place = self._fill = self._back = torch.zeros(0, dtype=torch.long)
        self._longest = 0

    def feed(self, counts: Sequence[int], starts: Sequence[int] | None = None) -> list[int]:
        """Announce the next pass: `counts[b]` tokens for row b, after its first `starts[b]` ones (what it holds).

        Tokens behind `starts[b]` are forgotten. Returns the position of every token of the pass.
        """
        starts = self.lengths if starts is None else starts
        self.lengths = [start + count for start, count in zip(starts, counts, strict=True)]
        self._longest = max(self.lengths)
        places = [start + i for start, count in zip(starts, counts, strict=True) for i in range(count)]
        fill, _, back = padded_slots(counts)
        self._fill, self._back = fill.to(self._device), back.to(self._device)
        self._starts = torch.tensor(starts, device=self._device)
        self._row = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(self._device)
        self._place = torch.tensor(places, device=self._device)
        return [self._prefix.tokens + place for place in places]

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all rows but these."""
        index = torch.tensor(rows, device=self._device)
        self.lengths = [self.lengths[row] for row in rows]
        self._keys = [key.index_select(0, index) for key in self._keys]
        self._values = [value.index_select(0, index) for value in self._values]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        """See models.attention.Layout."""
        rows = len(self.lengths)
        if layer == len(self._keys):
            room = key.new_zeros(rows, key.shape[1], self._slots, key.shape[3])
            self._keys.append(room)
            self._values.append(torch.zeros_like(room))
        self._keys[layer][self._row, :, self._place] = key[0].transpose(0, 1)
        self._values[layer][self._row, :, self._place] = value[0].transpose(0, 1)
        if self._prefix.tokens:
            shared_key, shared_value = self._prefix.keys[layer], self._prefix.values[layer]
        else:
            shared_key, shared_value = key[0, :, :0], value[0, :, :0]
        out = attend_rows(
            query[0].index_select(1, self._fill).unflatten(1, (rows, -1)).transpose(0, 1),
            self._keys[layer][:, :, : self._longest],
            self._values[layer][:, :, : self._longest],
            shared_key,
            shared_value,
            scaling=scaling,
            window=window,
            offsets=self._starts,
        )
        return out.index_select(1, self._back)
