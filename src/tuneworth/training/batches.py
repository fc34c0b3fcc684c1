"""Rows of token ids become batches of one packed sequence each: [shared prefix | row | row | ...].

The order depends only on (seed, epoch); each epoch is a permutation of the rows; the last batch may be smaller.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from tuneworth.models.rows import Tree

# Batches are cut from windows of this many, sorted by length: rows side by side leave few slots of attention empty.
_WINDOW_BATCHES = 16


class HasIds(Protocol):
    """Anything with token ids: a row, or a pair of rows."""

    @property
    def ids(self) -> Sequence[int]:
        """All token ids."""


Item = TypeVar("Item", bound=HasIds)


@dataclass(frozen=True, slots=True)
class Row:
    """One training row. `trained[i]` tells whether token i is predicted in the loss."""

    id: str
    ids: tuple[int, ...]
    trained: tuple[bool, ...]

    @property
    def trained_tokens(self) -> int:
        """Tokens that count in the loss; the first token has nothing before it and never counts."""
        return sum(self.trained[1:])


@dataclass(frozen=True, slots=True)
class Pack:
    """A packed sequence of T tokens. `source` are the N positions whose next token is trained, `target` [N] those.

    `owner` names the row of each target as an index of `row_ids`, which are in the order given to `pack`. Loss is a
    sum over the N targets. There is no padding: T tokens are T tokens of the rows, the prefix once.
    """

    ids: Tensor  # [1, T]
    positions: Tensor  # [1, T]
    layout: Tree
    source: Tensor  # [N]
    target: Tensor  # [N]
    owner: Tensor  # [N]
    row_ids: tuple[str, ...]

    @property
    def count(self) -> int:
        """What the loss is a sum over, and a step's loss is divided by: the trained tokens."""
        return len(self.target)


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Row indices of every batch of an epoch: each row once, rows of like length together, batches in random order."""
    chance = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    chance.shuffle(order)
    window = batch_size * _WINDOW_BATCHES
    batches = []
    for start in range(0, len(order), window):
        part = sorted(order[start : start + window], key=lambda index: lengths[index])
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    chance.shuffle(batches)
    return batches


def micro_batches(rows: Sequence[Item], maximum_tokens: int) -> Iterator[list[Item]]:
    """Cut a batch so that no part's attention has over `maximum_tokens` slots (a single longer row stands alone)."""
    part: list[Item] = []
    longest = 0
    for row in sorted(rows, key=lambda row: len(row.ids)):
        longest = max(longest, len(row.ids))
        if part and longest * (len(part) + 1) > maximum_tokens:
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def pack(rows: Sequence[Row], *, device: str = "cpu", share: bool = True) -> Pack:
    """Rows side by side behind the beginning that all of them share (computed once when `share`).

    At least one token before the first trained one stays with its row, since it predicts it.
    """
    prefix = _shared_tokens(rows) if share and len(rows) > 1 else 0
    ids = list(rows[0].ids[:prefix])
    positions = list(range(prefix))
    source: list[int] = []
    target: list[int] = []
    owner: list[int] = []
    for number, row in enumerate(rows):
        start = len(ids) - prefix  # the row's token i stands at start + i
        ids += row.ids[prefix:]
        positions += range(prefix, len(row.ids))
        for index in range(max(prefix, 1), len(row.ids)):
            if row.trained[index]:
                source.append(start + index - 1)
                target.append(row.ids[index])
                owner.append(number)
    return Pack(
        ids=torch.tensor([ids], device=device),
        positions=torch.tensor([positions], device=device),
        layout=Tree.of(prefix, [len(row.ids) - prefix for row in rows], device),
        source=torch.tensor(source, device=device),
        target=torch.tensor(target, device=device),
        owner=torch.tensor(owner, dtype=torch.long, device=device),
        row_ids=tuple(row.id for row in rows),
    )


def _shared_tokens(rows: Sequence[Row]) -> int:
    first, last = min(row.ids for row in rows), max(row.ids for row in rows)
    most = min(row.trained.index(True) - 1 if True in row.trained else len(row.ids) - 1 for row in rows)
    shared = 0
    while shared < min(most, len(first), len(last)) and first[shared] == last[shared]:
        shared += 1
    return shared
