"""Rows of token ids become batches of one packed sequence each: shared beginnings, then what each row has for itself.

The order depends only on (seed, epoch); each epoch is a permutation of the rows; the last batch may be smaller.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from tuneworth.models.rows import Segment, Tree

# Batches are cut from windows of this many, sorted by length: rows side by side leave few slots of attention empty.
_WINDOW_BATCHES = 16
# Training packs are filled up to a multiple of so many tokens. Matrix libraries make a kernel for every new length,
# which took a seventh of a step where no two packs were of one length (docs/results.md).
FILLED_TO = 32
# A beginning that only some rows of a batch share is computed once from so many tokens on: another band of attention
# costs about as much as these.
_WORTH_SHARING = 32


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
    sum over the N targets. The T tokens are those of the rows, the prefix once, and `filler` tokens behind the ends of
    rows, which nothing is computed from.
    """

    ids: Tensor  # [1, T]
    positions: Tensor  # [1, T]
    layout: Tree
    source: Tensor  # [N]
    target: Tensor  # [N]
    owner: Tensor  # [N]
    row_ids: tuple[str, ...]
    filler: int

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
    """Cut a batch so that no part has over `maximum_tokens` slots of attention (a single longer row stands alone).

    The beginning that all rows share counts once, since it is computed once.
    """
    shared = _common(rows, min((len(row.ids) for row in rows), default=0))
    part: list[Item] = []
    longest = 0
    for row in sorted(rows, key=lambda row: len(row.ids)):
        longest = max(longest, len(row.ids) - shared)
        if part and shared + longest * (len(part) + 1) > maximum_tokens:
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def pack(rows: Sequence[Row], *, device: str = "cpu", share: bool = True, filled_to: int = 1) -> Pack:
    """Rows behind the beginnings that they share, each of which is computed once when `share`.

    At least one token before the first trained one stays with its row, since it predicts it; tokens behind the last
    one that predicts are left out, since nothing is computed from them. Where T is no multiple of `filled_to`, rows
    that are shorter than others are made longer at their end, by tokens that nothing attends to.
    """
    ends = [_last_needed(row) + 1 for row in rows]
    limits = [row.trained.index(True, 1) - 1 if row.trained_tokens else len(row.ids) - 1 for row in rows]
    root = _common(rows, min(limits)) if share and len(rows) > 1 else 0
    parts = _parts(rows, limits, ends, root) if share else [_Part((n,), 0, end, None) for n, end in enumerate(ends)]
    fillers = _fillers(parts, root, filled_to)
    ids = list(rows[0].ids[:root])
    positions = list(range(root))
    source: list[int] = []
    target: list[int] = []
    owner: list[int] = []
    for part, filler in zip(parts, fillers, strict=True):
        row = rows[part.rows[0]]
        start = len(ids) - part.start  # the row's token i stands at start + i
        ids += [*row.ids[part.start : part.stop], *(row.ids[0] for _ in range(filler))]
        positions += [*range(part.start, part.stop), *(part.stop - 1 for _ in range(filler))]
        if len(part.rows) > 1:
            continue
        for index in range(max(part.start, 1), part.stop + 1):
            if index < len(row.ids) and row.trained[index]:
                source.append(start + index - 1)
                target.append(row.ids[index])
                owner.append(part.rows[0])
    segments = [
        Segment(part.stop - part.start + filler, part.parent) for part, filler in zip(parts, fillers, strict=True)
    ]
    return Pack(
        ids=torch.tensor([ids], device=device),
        positions=torch.tensor([positions], device=device),
        layout=Tree.of_segments(root, segments, device),
        source=torch.tensor(source, device=device),
        target=torch.tensor(target, device=device),
        owner=torch.tensor(owner, dtype=torch.long, device=device),
        row_ids=tuple(row.id for row in rows),
        filler=sum(fillers),
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """Tokens start to stop of `rows`: of one row its last ones, of several a beginning that they share."""

    rows: tuple[int, ...]
    start: int
    stop: int
    parent: int | None


def _parts(rows: Sequence[Row], limits: Sequence[int], ends: Sequence[int], root: int) -> list[_Part]:
    """What rows share behind the root, and what each has for itself: parents first, one depth after the other."""
    parts: list[_Part] = []
    level: list[tuple[int | None, list[int], int]] = [(None, list(range(len(rows))), root)]
    while level:
        below: list[tuple[int | None, list[int], int]] = []
        for parent, members, start in level:
            groups: dict[tuple[int, ...], list[int]] = {}
            for row in members:
                head = rows[row].ids[start : start + _WORTH_SHARING]
                alone = limits[row] - start < _WORTH_SHARING
                groups.setdefault((-1, row) if alone else head, []).append(row)
            for group in groups.values():
                if len(group) == 1:
                    parts.append(_Part((group[0],), start, ends[group[0]], parent))
                    continue
                stop = _common([rows[row] for row in group], min(limits[row] for row in group))
                below.append((len(parts), group, stop))
                parts.append(_Part(tuple(group), start, stop, parent))
        level = below
    return parts


def _fillers(parts: Sequence[_Part], root: int, filled_to: int) -> list[int]:
    """How many tokens to put behind each part, so that all are a multiple of `filled_to`.

    Only behind rows of the last depth, which nothing follows; up to the longest row the slots are there anyway, since
    attention sees all rows as long as the longest.
    """
    found = [0] * len(parts)
    lengths = [part.stop - part.start for part in parts]
    missing = -(root + sum(lengths)) % filled_to
    last = [n for n, part in enumerate(parts) if len(part.rows) == 1 and part.parent == parts[-1].parent]
    longest = -(-max(lengths[n] for n in last) // 8) * 8
    for n in last:
        found[n] = min(missing, longest - lengths[n])
        missing -= found[n]
    found[last[-1]] += missing
    return found


def _common(rows: Sequence[HasIds], most: int) -> int:
    """Tokens, `most` at most, with which all rows begin."""
    if not rows:
        return 0
    ordered = [tuple(row.ids) for row in rows]
    first, last = min(ordered), max(ordered)
    shared = 0
    while shared < most and first[shared] == last[shared]:
        shared += 1
    return shared


def _last_needed(row: Row) -> int:
    """The last token from which something is predicted; of a row that trains nothing, its last token."""
    if not row.trained_tokens:
        return len(row.ids) - 1
    return len(row.ids) - 2 - row.trained[::-1].index(True)
