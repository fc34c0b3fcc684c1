"""The repairs that an audit announces: nothing is taken from test, every row taken is listed, and what is clean stays.

Rows are conserved: every row that goes in is either left or listed as removed. Cleaning again finds nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tuneworth.data.audit import Audit
from tuneworth.data.example import Example
from tuneworth.data.findings import RowRef, Split, plural
from tuneworth.data.normalising import input_key
from tuneworth.errors import InputError, Problem, nearest

REPAIRS: Mapping[str, str] = {
    "empty-input": "rows without an input leave",
    "empty-answer": "rows without an answer leave",
    "leak-exact": "rows of train that are also in validation or test leave train, those of validation in test too",
    "leak-near": "rows of train (validation) that are nearly the same as a held-out row leave",
    "too-long": "rows that do not fit into the model's context leave train and validation",
    "contradiction": "rows of train with one input and several answers, by the policy: keep, majority or drop",
    "duplicate-exact": "of rows of train that agree in input and answer the first stays",
}
"""Code of each repair: what it does. Any of them can be switched off."""

ContradictionPolicy = Literal["keep", "majority", "drop"]


@dataclass(frozen=True, slots=True)
class Repairs:
    """Which repairs are done. `contradictions`: keep all rows of an input with several answers, keep those with the
    answer that most of them have (all where there is no such answer), or drop them all."""

    skip: frozenset[str] = frozenset()
    contradictions: ContradictionPolicy = "keep"

    @classmethod
    def chosen(cls, skip: Collection[str], contradictions: str) -> Repairs:
        """Checked choices of a user. Raises InputError that names every unknown one and the nearest known."""
        problems = [Problem(f"there is no repair '{code}'", "--skip", nearest(code, REPAIRS)) for code in skip]
        problems = [problem for problem, code in zip(problems, skip, strict=True) if code not in REPAIRS]
        policies = get_args(ContradictionPolicy)
        if contradictions not in policies:
            what, cure = f"there is no policy '{contradictions}'", nearest(contradictions, policies)
            problems.append(Problem(what, "--contradictions", cure))
        if problems:
            raise InputError.of(problems)
        return cls(frozenset(skip), contradictions)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Removal:
    """One row that was taken out of `split`, and why."""

    split: Split
    example: Example
    code: str
    reason: str

    @property
    def id(self) -> str:
        """The row's id."""
        return self.example.id

    @property
    def line(self) -> int:
        """The row's line in its file."""
        return self.example.line

    def to_json(self) -> dict[str, Any]:
        """An entry of the change list: where, why, the row before, and nothing after."""
        place = {"split": self.split, "id": self.id, "file": self.example.file, "line": self.line}
        return {**place, "code": self.code, "reason": self.reason, "before": self.example.to_json(), "after": None}


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The rows that are left, in order, and those that were removed. `notes` says what was left alone."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    removed: tuple[Removal, ...]
    notes: tuple[str, ...]


def wanted(example: Example) -> Hashable:
    """What an example teaches: two rows with one input are repeats when this is the same, else contradictory."""
    return example.answer.strip(), example.calls, example.rejected, example.tools


def clean(
    train: Sequence[Example],
    validation: Sequence[Example],
    test: Sequence[Example],
    audit: Audit,
    *,
    repairs: Repairs = Repairs(),
    clusters: Mapping[RowRef, int] | None = None,
    teaches: Callable[[Example], Hashable] = wanted,
) -> Cleaned:
    """Do the repairs, in the order of `REPAIRS`; a row is listed under the first that takes it. Test stays whole.

    `clusters` gives rows that are nearly the same one number; `teaches` what has to agree in a repeat. Rows too long
    are those that `audit` found. Raises InputError when nothing is left of train or validation, or one class only of
    train.
    """
    border = _Border(repairs, audit.rows_of("too-long"), clusters or {})
    removed: list[Removal] = []
    border.guard("test", test)
    kept_validation = _without(border, "validation", validation, removed)
    border.guard("validation", validation)
    kept_train = _without(border, "train", train, removed)
    kept_train, undecided = _of_one_mind(kept_train, repairs, removed)
    # Where a majority was asked for and there is none, repeats stay too: they are votes.
    asked = repairs.contradictions == "majority" and "contradiction" not in repairs.skip
    votes = undecided if asked else frozenset[str]()
    if "duplicate-exact" not in repairs.skip:
        kept_train = _without_repeats(kept_train, votes, teaches, removed)
    _check_left("validation", validation, kept_validation)
    _check_left("train", train, kept_train)
    if audit.classes and len({example.answer for example in kept_train}) < 2:
        raise InputError(
            "only one class is left in train after rows that are also in held-out files were removed",
            where=train[0].file if train else "",
            cure="give train rows of other classes that are not in the test file",
        )
    notes = []
    if undecided:
        inputs = plural(len(undecided), "input has", "inputs have")
        notes.append(f"{inputs} several answers; their rows stay: which answer is right is yours to say")
    place = {id(example): number for number, example in enumerate((*validation, *train))}
    removed.sort(key=lambda removal: place[id(removal.example)])
    return Cleaned(tuple(kept_train), tuple(kept_validation), tuple(test), tuple(removed), tuple(notes))


class _Border:
    """What must not be learnt or chosen from: rows of held-out splits, their likes, and rows too long."""

    def __init__(self, repairs: Repairs, long: frozenset[RowRef], clusters: Mapping[RowRef, int]) -> None:
        self.skip, self.long, self.clusters = repairs.skip, long, clusters
        self.places: dict[str, tuple[str, Example]] = {}
        self.near: dict[int, tuple[str, Example]] = {}

    def guard(self, split: str, examples: Iterable[Example]) -> None:
        """From now on rows like these are leaks."""
        for example in examples:
            self.places.setdefault(input_key(example), (split, example))
            cluster = self.clusters.get(RowRef.of(example))
            if cluster is not None:
                self.near.setdefault(cluster, (split, example))

    def reason(self, example: Example) -> tuple[str, str] | None:
        """(code, reason) for which an example has to leave."""
        there = self.places.get(input_key(example))
        if there and "leak-exact" not in self.skip:
            return "leak-exact", f"also in {there[0]}: line {there[1].line} of {there[1].file}"
        near = self.near.get(self.clusters.get(RowRef.of(example), -1))
        if near and not there and "leak-near" not in self.skip:
            return "leak-near", f"nearly the same as in {near[0]}: line {near[1].line} of {near[1].file}"
        if RowRef.of(example) in self.long and "too-long" not in self.skip:
            return "too-long", "does not fit into the model's context"
        return None


def _without(border: _Border, split: Split, examples: Sequence[Example], removed: list[Removal]) -> list[Example]:
    kept = []
    for example in examples:
        reason = border.reason(example)
        if reason:
            removed.append(Removal(split, example, *reason))
        else:
            kept.append(example)
    return kept


def _of_one_mind(
    examples: Sequence[Example], repairs: Repairs, removed: list[Removal]
) -> tuple[list[Example], frozenset[str]]:
    """(rows without those that the policy on contradictions takes, inputs that keep several answers)."""
    rows: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        rows[input_key(example)].append(example)
    policy = "keep" if "contradiction" in repairs.skip else repairs.contradictions
    undecided, taken = set[str](), dict[int, str]()
    for key, same in rows.items():
        votes = Counter(map(wanted, same)).most_common()
        if len(votes) < 2:
            continue
        if policy == "drop":
            taken.update((id(example), f"its input has {len(votes)} different answers") for example in same)
        elif policy == "majority" and votes[0][1] > votes[1][1]:
            why = f"{votes[0][1]} of {len(same)} rows with this input have another answer"
            taken.update((id(example), why) for example in same if wanted(example) != votes[0][0])
        else:
            undecided.add(key)
    kept = [example for example in examples if id(example) not in taken]
    removed += [Removal("train", e, "contradiction", taken[id(e)]) for e in examples if id(e) in taken]
    return kept, frozenset(undecided)


def _without_repeats(
    examples: Sequence[Example],
    votes: frozenset[str],
    teaches: Callable[[Example], Hashable],
    removed: list[Removal],
) -> list[Example]:
    """The first of all rows that agree; all rows whose inputs are in `votes`."""
    first: dict[tuple[str, Hashable], Example] = {}
    kept = []
    for example in examples:
        key = input_key(example)
        earlier = first.setdefault((key, teaches(example)), example)
        if earlier is example or key in votes:
            kept.append(example)
        else:
            reason = f"repeats line {earlier.line} of {earlier.file}"
            removed.append(Removal("train", example, "duplicate-exact", reason))
    return kept


def _check_left(split: str, before: Sequence[Example], after: Sequence[Example]) -> None:
    if before and not after:
        raise InputError(
            f"no row of {split} is left: all of them are also in held-out files or too long for the model",
            where=before[0].file,
            cure="check that the same file was not given twice",
        )
