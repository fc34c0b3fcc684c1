"""Rows that are nearly the same get one number, so that a split keeps them together and a cleaning finds leaks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tuneworth.data.example import Example
from tuneworth.data.findings import RowRef
from tuneworth.data.near import Pairs
from tuneworth.data.normalising import input_key


def near_clusters(examples: Sequence[Example], pairs: Pairs | None) -> dict[RowRef, int]:
    """A number for every row that nearly repeats another one, the same for all rows that are tied by such pairs, and
    for rows with equal inputs. Rows without a twin are not in it. `examples` are all rows, as `pairs` numbers them."""
    if pairs is None or not len(pairs.one):
        return {}
    size = len(examples)
    ties = coo_matrix((np.ones(len(pairs.one)), (pairs.one, pairs.other)), shape=(size, size))
    _, component = connected_components(ties, directed=False)
    paired = set(pairs.one.tolist()) | set(pairs.other.tolist())
    # Of rows with equal inputs only one is in a pair; the others go with it, over all parts.
    numbers: dict[int, int] = {}
    first: dict[str, int] = {}
    for row in sorted(paired):
        number = int(component[row])
        key = input_key(examples[row])
        known = first.setdefault(key, number)
        _tie(numbers, known, number)
    return {
        RowRef.of(example): _root(numbers, first[key]) for example in examples if (key := input_key(example)) in first
    }


def _root(numbers: dict[int, int], number: int) -> int:
    while numbers.setdefault(number, number) != number:
        number = numbers[number]
    return number


def _tie(numbers: dict[int, int], one: int, other: int) -> None:
    first, second = sorted((_root(numbers, one), _root(numbers, other)))
    numbers[second] = first
