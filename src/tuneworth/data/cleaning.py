"""The repairs that an audit announces: nothing is taken from test, and every row taken is listed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tuneworth.data.audit import Audit
from tuneworth.data.example import Example
from tuneworth.data.findings import RowRef, Split
from tuneworth.data.normalising import input_key
from tuneworth.errors import InputError


@dataclass(frozen=True, slots=True)
class Removal:
    """One row that was taken out of `split`, and why."""

    split: Split
    id: str
    file: str
    line: int
    code: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The rows that are left, in order, and those that were removed. `notes` says what was left alone."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    removed: tuple[Removal, ...]
    notes: tuple[str, ...]


def clean(train: Sequence[Example], validation: Sequence[Example], test: Sequence[Example], audit: Audit) -> Cleaned:
    """Remove from train what is also in validation or test, from validation what is also in test, and from
    train repeated rows whose answers agree; rows that `audit` found too long leave train and validation.

    Contradictory rows stay in train, since nobody can tell which answer is right; `notes` says so.
    Raises InputError when nothing is left of train or validation, or one class only of train.
    """
    long = audit.rows_of("too-long")
    in_test = {"test": _first_places(test)}
    in_held_out = {**in_test, "validation": _first_places(validation)}
    removed: list[Removal] = []
    kept_validation = []
    for example in validation:
        reason = _leak(input_key(example), in_test) or _too_long(example, long)
        if reason:
            removed.append(_removal("validation", example, *reason))
        else:
            kept_validation.append(example)
    kept_train = []
    first: dict[tuple[str, str], Example] = {}
    for example in train:
        key = input_key(example)
        reason = _leak(key, in_held_out) or _too_long(example, long)
        earlier = first.get((key, example.answer.strip()))
        if reason is None and earlier is not None:
            reason = "duplicate-exact", f"repeats line {earlier.line} of {earlier.file}"
        if reason:
            removed.append(_removal("train", example, *reason))
        else:
            kept_train.append(example)
            first[key, example.answer.strip()] = example
    _check_left("validation", validation, kept_validation)
    _check_left("train", train, kept_train)
    if audit.classes and len({example.answer for example in kept_train}) < 2:
        raise InputError(
            "only one class is left in train after rows that are also in held-out files were removed",
            where=train[0].file if train else "",
            cure="give train rows of other classes that are not in the test file",
        )
    notes = []
    if audit.count("contradiction"):
        notes.append("rows whose inputs have several answers stay: which answer is right is yours to say")
    return Cleaned(tuple(kept_train), tuple(kept_validation), tuple(test), tuple(removed), tuple(notes))


def _first_places(examples: Iterable[Example]) -> dict[str, Example]:
    places: dict[str, Example] = {}
    for example in examples:
        places.setdefault(input_key(example), example)
    return places


def _leak(key: str, held_out: Mapping[str, Mapping[str, Example]]) -> tuple[str, str] | None:
    for split, places in held_out.items():
        if key in places:
            there = places[key]
            return "leak-exact", f"also in {split}: line {there.line} of {there.file}"
    return None


def _too_long(example: Example, long: frozenset[RowRef]) -> tuple[str, str] | None:
    return ("too-long", "does not fit into the model's context") if RowRef.of(example) in long else None


def _removal(split: Split, example: Example, code: str, reason: str) -> Removal:
    return Removal(split, example.id, example.file, example.line, code, reason)


def _check_left(split: str, before: Sequence[Example], after: Sequence[Example]) -> None:
    if before and not after:
        raise InputError(
            f"no row of {split} is left: all of them are also in held-out files or too long for the model",
            where=before[0].file,
            cure="check that the same file was not given twice",
        )
