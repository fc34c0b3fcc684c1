"""Held-out rows are split off: class by class, seeded, never dividing rows that belong together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from tuneworth.data.example import Example
from tuneworth.data.findings import plural
from tuneworth.data.normalising import input_key
from tuneworth.errors import InputError


@dataclass(frozen=True, slots=True)
class Splits:
    """Rows to learn from, to choose by and to judge with, in file order. `why` says how they came about."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    why: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Unit:
    """Rows that must stay together: those with the same normalised input or the same group. `name` is that of
    the first of them, so that rows appended later do not change it."""

    name: str
    rows: tuple[int, ...]


def rows_for_test(rows: int) -> float:
    """How many of `rows` the test gets: a fifth, at least 50, at most 1000, but never more than 3 in 10."""
    return min(max(0.2 * rows, 50), 1000, 0.3 * rows)


def rows_for_validation(rows: int) -> float:
    """How many of `rows` (test taken off) validation gets: a tenth, 30 to 500, never more than a fifth."""
    return min(max(0.1 * rows, 30), 500, 0.2 * rows)


def split(examples: Sequence[Example], *, kind: str, test_given: bool, validation_given: bool, seed: int) -> Splits:
    """Split off what is not given: test, then validation from the rest. No row is copied or lost.

    Rows with the same normalised input or the same group are never divided. For classification each class is
    represented in proportion, and keeps at least one row in train. Of each class those units (rows that
    belong together) are taken whose BLAKE2b hash of seed and text is smallest, so that the choice does not
    depend on the order of the rows. When rows are appended, and the share taken stays the same (250 to 5000
    rows: a fifth), other classes keep their splits to the row; in their own class at most as many rows cross
    the border of test as were appended, and a few times as many that of validation.

    Returns empty tuples for the parts that were given. Raises InputError when nothing can be held out,
    because there are too few rows or too many belong together.
    """
    units = _units(examples)
    labels = [example.answer if kind == "classification" else "" for example in examples]
    free = _without_last_of_class(units, labels, seed)
    place = dict.fromkeys(range(len(examples)), "train")
    why = []
    wanted = [("test", rows_for_test)] * (not test_given)
    wanted += [("validation", rows_for_validation)] * (not validation_given)
    for name, rows_for in wanted:
        sizes = Counter(labels[row] for row, part in place.items() if part == "train")
        left = sizes.total()
        chosen = _take(free, labels, sizes, rows_for(left) / max(left, 1), _Order(seed, name))
        if not chosen:
            raise InputError(
                f"no {name} rows can be split off: too few rows, or too many of them belong together",
                where=examples[0].file if examples else "",
                cure=f"add rows, give a {name} file, or choose another group column",
            )
        place.update((row, name) for unit in chosen for row in unit.rows)
        free = [unit for unit in free if place[unit.rows[0]] == "train"]
        taken = sum(len(unit.rows) for unit in chosen)
        why.append(f"{plural(taken, 'row')} of {left:,} were split off for {name} (seed {seed})")
    parts = {
        name: tuple(example for row, example in enumerate(examples) if place[row] == name)
        for name in ("train", "validation", "test")
    }
    return Splits(parts["train"], parts["validation"], parts["test"], tuple(why))


def _units(examples: Sequence[Example]) -> list[_Unit]:
    """Join rows that share a normalised input or a group (connected components, by union-find)."""
    parent = list(range(len(examples)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    names = [input_key(example) for example in examples]
    first: dict[tuple[str, str], int] = {}
    for row, example in enumerate(examples):
        marks = [("input", names[row])] + ([("group", example.group)] if example.group is not None else [])
        for mark in marks:
            one, other = root(first.setdefault(mark, row)), root(row)
            parent[max(one, other)] = min(one, other)  # the root is the first row of its unit
    members: dict[int, list[int]] = defaultdict(list)
    for row in range(len(examples)):
        members[root(row)].append(row)
    return [
        _Unit(names[row] if examples[row].group is None else f"group {examples[row].group}", tuple(rows))
        for row, rows in members.items()
    ]


class _Order:
    """A seeded order of units, and a seeded number in [0, 1) for each class. Each split has its own."""

    def __init__(self, seed: int, split: str) -> None:
        self.key = f"{seed}:{split}".encode()

    def __call__(self, unit: _Unit) -> tuple[int, str]:
        return self._hash(unit.name), unit.name

    def chance(self, label: str) -> float:
        return self._hash("class " + label) / 2**64

    def _hash(self, text: str) -> int:
        return int.from_bytes(
            blake2b(text.encode("utf-8", "surrogatepass"), key=self.key, digest_size=8).digest(), "big"
        )


def _without_last_of_class(units: Sequence[_Unit], labels: Sequence[str], seed: int) -> list[_Unit]:
    """All units but those kept in train: of each class one, so that no class is unknown there."""
    order = _Order(seed, "test")
    kept: dict[str, _Unit] = {}
    for unit in sorted(units, key=order):
        for row in unit.rows:
            kept[labels[row]] = unit
    reserved = set(kept.values())
    return [unit for unit in units if unit not in reserved]


def _take(
    units: Sequence[_Unit], labels: Sequence[str], sizes: Counter[str], share: float, order: _Order
) -> list[_Unit]:
    """Units with about `share` of the rows of each class (`sizes`); at least one unit if there is any."""
    classes: dict[str, list[_Unit]] = defaultdict(list)
    for unit in units:
        classes[labels[unit.rows[0]]].append(unit)
    taken: list[_Unit] = []
    for label, members in classes.items():
        # The fraction of a row is rounded up or down by a seeded chance, class by class: always rounding the
        # same way would make small classes vanish or pile up, and evening out over classes would couple them.
        quota = int(share * sizes[label] + order.chance(label))
        taken += _fill(sorted(members, key=order), quota)
    if not taken and units:
        taken = [min(units, key=lambda unit: (len(unit.rows), order(unit)))]
    return taken


def _fill(units: Sequence[_Unit], quota: int) -> list[_Unit]:
    """The first units that fit into a quota of rows; the smallest one if none fits."""
    taken: list[_Unit] = []
    rows = 0
    for unit in units:
        if rows + len(unit.rows) <= quota:
            taken.append(unit)
            rows += len(unit.rows)
    return taken if taken or not quota else [min(units, key=lambda unit: len(unit.rows))]
