"""Rows that are nearly the same: numbered, so that a split keeps them together, and across splits, to be cleaned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tuneworth.data.example import Example
from tuneworth.data.findings import RowRef, Split
from tuneworth.data.near import Pairs
from tuneworth.data.normalising import input_key

TEMPLATE_SHARE = 0.05
"""A chain of near duplicates with more than this share of all rows is a template that the rows are written by."""

Twins = Mapping[str, Sequence[tuple[Split, Example]]]
"""By input (in normal form): the rows of other splits that are nearly the same."""


def near_twins(train: Sequence[Example], validation: Sequence[Example], test: Sequence[Example], pairs: Pairs) -> Twins:
    """For every input of train and validation the held-out rows that nearly repeat it, as `pairs` of all rows say."""
    splits: tuple[tuple[Split, Sequence[Example]], ...] = (("train", train), ("validation", validation), ("test", test))
    rows = [(split, example) for split, examples in splits for example in examples]
    twins: dict[str, list[tuple[Split, Example]]] = {}
    for one, other in zip(pairs.one.tolist(), pairs.other.tolist(), strict=True):
        if rows[one][0] != rows[other][0]:
            twins.setdefault(input_key(rows[one][1]), []).append(rows[other])
    return twins


def near_clusters(examples: Sequence[Example], pairs: Pairs | None) -> dict[RowRef, int]:
    """A number for every row that nearly repeats another one, the same for all rows that are tied by such pairs, and
    for rows with equal inputs. Rows without a twin are not in it, nor those of chains so long that they are a
    template. `examples` are all rows, as `pairs` numbers them."""
    if pairs is None or not len(pairs.one):
        return {}
    tied: dict[int, int] = {}
    for one, other in zip(pairs.one.tolist(), pairs.other.tolist(), strict=True):
        _tie(tied, one, other)
    # Of rows with equal inputs only one is in a pair; the others go with it, over all parts.
    first: dict[str, int] = {}
    for row in sorted(tied):
        _tie(tied, first.setdefault(input_key(examples[row]), row), row)
    return {RowRef.of(example): _root(tied, first[key]) for example in examples if (key := input_key(example)) in first}


def _root(tied: dict[int, int], row: int) -> int:
    while tied.setdefault(row, row) != row:
        row = tied[row]
    return row


def _tie(tied: dict[int, int], one: int, other: int) -> None:
    first, second = sorted((_root(tied, one), _root(tied, other)))
    tied[second] = first
