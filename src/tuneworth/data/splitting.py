"""Held-out rows are split off: class by class, seeded, never dividing rows that belong together.

What is promised, for one seed and one share, when rows are appended to a file:

- a row that is in test stays in test (but for sets of so few rows that chance takes none; `why` says so then);
- a row that is not in test stays out of it, unless an appended row ties it to a test row (the same group or cluster as
  one and the same input, group or cluster as the other); then both are in test.

Which rows of train are held out for validation may change a little as rows are appended. A split by time is by its
nature another one when newer rows come.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tuneworth.data.example import Example
from tuneworth.data.findings import RowRef, plural
from tuneworth.data.units import Balance, Chance, Units
from tuneworth.errors import InputError, Problem

TEST_SHARE = 0.2
SO_FEW = "with so few rows, others may be the test when rows are appended"
_LISTED = 5


@dataclass(frozen=True, slots=True)
class Splits:
    """Rows to learn from, to choose by and to judge with, in file order. `why` says how they came about."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    why: tuple[str, ...] = ()


def rows_for_validation(rows: int) -> float:
    """How many of `rows` (test taken off) validation gets: a tenth, 30 to 500, never more than a fifth."""
    return min(max(0.1 * rows, 30), 500, 0.2 * rows)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows to be split, their units, and the label of each (empty when the kind is not classification)."""

    examples: Sequence[Example]
    units: Units
    labels: Sequence[str]

    def of(self, units: Iterable[int], members: Mapping[int, Sequence[int]]) -> set[int]:
        """All rows of some units."""
        return {row for unit in units for row in members[unit]}


def split(
    examples: Sequence[Example],
    *,
    kind: str,
    test_given: bool,
    validation_given: bool,
    seed: int,
    test_share: float = TEST_SHARE,
    clusters: Mapping[RowRef, int] | None = None,
) -> Splits:
    """Split off what is not given: test, then validation from the rest. No row is copied or lost.

    Rows with the same normalised input, group or cluster (`clusters`: a number for rows that are nearly the same) are
    never divided. Where the rows carry times, the newest are the test, and the newest of the rest validation.
    Otherwise a unit of such rows goes to test by the hash of its group or input and the seed, and so that each class
    has about its share there (within a quarter of it, give or take a unit), and something in train; validation takes
    each class in proportion.

    Returns empty tuples for the parts that were given. Raises InputError when nothing can be held out, because there
    are too few rows or too many belong together, or when a time cannot be read.
    """
    labels = [example.answer if kind == "classification" else "" for example in examples]
    rows = _Rows(examples, Units(examples, clusters), labels)
    times = _times(examples)
    test, why = set[int](), list[str]()
    tested = _deal(rows, Chance(seed, "test"), test_share)
    members = rows.units.members()
    left = set(range(len(examples)))
    if not test_given:
        if times:
            test, told = _newest(members, times, left, test_share * len(left), "test")
        else:
            test = rows.of(tested, members) or _one_unit(rows, members, Chance(seed, "test"))
            told = f"{plural(len(test), 'row')} of {len(left):,} were split off for test (seed {seed})"
            told += "" if tested else f"; {SO_FEW}"
        _check_found(test, left, "test", examples)
        why += [told, *_told_of_ties(members, test)]
        left -= test
    validation = set[int]()
    if not validation_given:
        wanted = rows_for_validation(len(left))
        if times:
            validation, told = _newest(members, times, left, wanted, "validation")
        else:
            validation = _in_proportion(rows, members, left, wanted, Chance(seed, "validation"))
            told = f"{plural(len(validation), 'row')} of {len(left):,} were split off for validation (seed {seed})"
        _check_found(validation, left, "validation", examples)
        why.append(told)
        left -= validation
    train, chosen, judged = (
        tuple(example for row, example in enumerate(examples) if row in part) for part in (left, validation, test)
    )
    return Splits(train, chosen, judged, tuple(why))


def _deal(rows: _Rows, chance: Chance, share: float) -> set[int]:
    """The units that are test. Rows come one by one, and what is decided never depends on later ones, but that a unit
    which is tied to a test unit is test from then on."""
    balance = Balance(share)
    tested: set[int] = set()
    content: dict[int, Counter[str]] = {}
    for row, label in enumerate(rows.labels):
        unit, merged = rows.units.join(row)
        balance.rows[label] += 1
        if not merged:
            content[unit] = Counter([label])
            if balance.wants(label, chance(rows.units.name(row))):
                tested.add(unit)
                balance.tested[label] += 1
            continue
        is_test = bool(merged & tested)
        for other in merged:
            if is_test and other not in tested:
                balance.tested += content[other]
            if other != unit:
                content[unit] += content.pop(other)
        content[unit][label] += 1
        balance.tested[label] += is_test
        tested -= merged
        if is_test:
            tested.add(unit)
    return tested


def _one_unit(rows: _Rows, members: Mapping[int, Sequence[int]], chance: Chance) -> set[int]:
    """The rows of one unit without which every class is still in train; none when there is no such unit. For sets so
    small that chance took nothing."""
    totals = Counter(rows.labels)
    usable = []
    for unit, found in members.items():
        own = Counter(rows.labels[row] for row in found)
        if all(own[label] < totals[label] for label in own):
            usable.append(unit)
    best = min(usable, key=lambda unit: (len(members[unit]), chance(rows.units.name(unit))), default=None)
    return set(members[best]) if best is not None else set()


def _in_proportion(
    rows: _Rows, members: Mapping[int, Sequence[int]], left: set[int], wanted: float, chance: Chance
) -> set[int]:
    """Units with about `wanted` of the rows that are left, each class in proportion and with one unit kept back."""
    place = {unit: (chance(rows.units.name(unit)), unit) for unit in members if unit in left}
    order = sorted(place, key=place.__getitem__)
    kept: dict[str, int] = {}
    for unit in order:
        kept.update((rows.labels[row], unit) for row in members[unit])
    classes: dict[str, list[int]] = defaultdict(list)
    for unit in order:
        if unit not in kept.values():
            classes[rows.labels[unit]].append(unit)
    sizes = Counter(rows.labels[row] for row in left)
    taken: list[int] = []
    for label, units in classes.items():
        # The fraction of a row is rounded up or down by a seeded chance, class by class: always rounding the
        # same way would make small classes vanish or pile up, and evening out over classes would couple them.
        quota = int(wanted / len(left) * sizes[label] + chance("class " + label))
        taken += _fill(units, members, quota)
    if not taken and classes:
        free = [unit for units in classes.values() for unit in units]
        taken = [min(free, key=lambda unit: (len(members[unit]), place[unit]))]
    return rows.of(taken, members)


def _fill(units: Sequence[int], members: Mapping[int, Sequence[int]], quota: int) -> list[int]:
    """The first units that fit into a quota of rows; the smallest one if none fits."""
    taken: list[int] = []
    rows = 0
    for unit in units:
        if rows + len(members[unit]) <= quota:
            taken.append(unit)
            rows += len(members[unit])
    return taken if taken or not quota else [min(units, key=lambda unit: len(members[unit]))]


def _newest(
    members: Mapping[int, Sequence[int]], times: Sequence[float], left: set[int], wanted: float, split: str
) -> tuple[set[int], str]:
    """(about `wanted` of the newest rows that are left, and whatever belongs to them; how it was done). Rows of the
    same moment stay together."""
    newest = sorted((times[row] for row in left), reverse=True)
    cut = newest[min(len(newest), max(1, round(wanted))) - 1]
    fresh = {row for row in left if times[row] >= cut}
    taken = {row for found in members.values() if fresh.intersection(found) for row in found if row in left}
    told = f"the newest {plural(len(fresh), 'row')} of {len(left):,} are {split}"
    if len(taken) > len(fresh):
        told += f", with {plural(len(taken) - len(fresh), 'older row')} that belong to them"
    return taken, told


def _times(examples: Sequence[Example]) -> list[float]:
    """Seconds since 1970 of every row; empty when no row has a time. Raises InputError for a time that is none."""
    if not any(example.time for example in examples):
        return []
    found: list[float] = []
    problems: list[Problem] = []
    for example in examples:
        seconds = _seconds(example.time or "")
        if seconds is None:
            problems.append(
                Problem(f"'{(example.time or '')[:40]}' is no time", f"{example.file}:{example.line}", _TIME)
            )
        else:
            found.append(seconds)
    if problems:
        more = [Problem(f"{len(problems):,} times cannot be read", examples[0].file, _TIME)]
        raise InputError.of(problems[:_LISTED] + (more if len(problems) > _LISTED else []))
    return found


_TIME = "write times as 2026-11-24, 2026-11-24T10:30:00Z, or seconds since 1970"


def _seconds(text: str) -> float | None:
    try:
        number = float(text)
        return number if abs(number) < float("inf") else None
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _told_of_ties(members: Mapping[int, Sequence[int]], test: set[int]) -> list[str]:
    """A sentence when one unit makes up most of the test."""
    largest = max((len(rows) for rows in members.values() if rows[0] in test), default=0)
    if len(test) < 10 or largest <= len(test) / 2:
        return []
    return [f"{largest:,} of the {len(test):,} test rows belong together, so the test says little about others"]


def _check_found(found: set[int], left: set[int], split: str, examples: Sequence[Example]) -> None:
    if not found or len(found) == len(left):
        raise InputError(
            f"no {split} rows can be split off: too few rows, or too many of them belong together",
            where=examples[0].file if examples else "",
            cure=f"add rows, give a {split} file, or choose another group column",
        )
