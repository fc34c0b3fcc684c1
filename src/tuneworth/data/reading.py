"""A data file becomes Examples: `read_examples` is the one way in for whatever fits into memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tuneworth.data.example import Example
from tuneworth.data.findings import Finding, RowRef, Split, plural
from tuneworth.data.folders import find_files, is_folder
from tuneworth.data.problems import CODES, WARNINGS, RowProblem, first_of_each, listed
from tuneworth.data.shape import RowShape, Shape
from tuneworth.data.streaming import Batch, Source, open_source
from tuneworth.errors import InputError, Problem
from tuneworth.task import Columns

TRAIN_ROWS_NEEDED = 20
"""Fewer rows than this cannot be split into parts that show anything."""


_LEFT_OUT_FOR = frozenset(["preference-tie", "no-user-message"])
# What teaches nothing, or what some chat templates refuse.
_GRAVE = frozenset(
    ["assistant-first", "role-repeated", "system-not-first", "tool-call-unanswered", "preference-identical"]
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read: the examples in file order, how the file was understood, the rows left out, what is odd about
    rows that were used (`noted`), and the first five places of each oddity (`warnings`)."""

    examples: tuple[Example, ...]
    shape: Shape
    dropped: tuple[Finding, ...]
    warnings: tuple[RowProblem, ...] = ()
    noted: tuple[Finding, ...] = ()


def read_examples(
    path: Path | Sequence[Path], columns: Columns, kind: str, role: Split = "train", *, rows_needed: int | None = None
) -> Reading:
    """Read a file, or several of one data set, or those of a folder that are `role`'s.

    What `columns` leaves open, and a `kind` "auto", is recognised and explained.

    `columns` may give input and output by number ("1" is the first) for a table without a header. Read the
    validation and test files of a data set with the `shape.columns` and `shape.kind` of its train file and
    their `role`: they may be small and hold one class. `rows_needed` is 20 for train and 1 for the others.

    Rows with an empty input or answer are left out and reported in `dropped`. Raises InputError when the file
    cannot be used; every malformed row is a problem in it (the first five of each code, at most 100 listed, with
    the counts by code).
    """
    notes: tuple[str, ...] = ()
    if isinstance(path, Path) and is_folder(path):
        found, where = find_files(path), str(path)
        path, notes = found.of(role), found.notes
        if not path:
            raise InputError(f"the folder has no {role} files", where=where, code="file-missing")
    source = open_source(path, columns, kind, notes)
    return collect(source, source.batches(), role, rows_needed=rows_needed)


def collect(
    source: Source, batches: Iterable[Batch], role: Split = "train", *, rows_needed: int | None = None
) -> Reading:
    """All batches of a source, in the order of its jobs, as one Reading. Raises InputError as `read_examples` does."""
    examples: list[Example] = []
    left_out: list[tuple[str, RowRef]] = []
    verdicts = Verdicts(source.file)
    for batch in batches:
        examples += batch.examples
        left_out += batch.left_out
        verdicts.add(batch)
    if source.shape.id:
        verdicts.add_repeated_ids(examples)
    warnings = verdicts.raise_errors()
    dropped = left_out_findings(left_out, role)
    needed = rows_needed if rows_needed is not None else TRAIN_ROWS_NEEDED if role == "train" else 1
    _check_enough(examples, dropped, source, role, needed)
    kept = tuple(examples) if source.shape.id else _unique(examples)
    return Reading(kept, source.shape, dropped, warnings, verdicts.noted(role))


class Verdicts:
    """What the batches of a source say about its rows, all of them together."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._problems: list[RowProblem] = []
        self._counts: Counter[str] = Counter()
        self._shapes: Counter[RowShape] = Counter()

    def add(self, batch: Batch) -> None:
        """Take note of one batch."""
        self._problems += batch.problems
        self._counts.update(batch.counts)
        self._shapes.update(batch.shapes)

    def add_repeated_ids(self, examples: Sequence[Example]) -> None:
        """Take note of the ids that two rows have."""
        first: dict[str, Example] = {}
        for example in examples:
            earlier = first.setdefault(example.id, example)
            if earlier is not example and example.id.strip():
                place = f"line {earlier.line}" if earlier.file == example.file else f"{earlier.file}:{earlier.line}"
                what = f"the id '{example.id}' is already that of {place}"
                problem = RowProblem("id-duplicate", what, example.file, example.line, cure="ids must be unique")
                self._problems.append(problem)
                self._counts["id-duplicate"] += 1

    def raise_errors(self) -> tuple[RowProblem, ...]:
        """Raise InputError with everything for which the source is refused; else the warnings, five of each code."""
        self._problems.sort(key=lambda problem: (problem.file, problem.line))
        errors = [problem for problem in self._problems if problem.severity == "error"]
        if errors:
            counts = {code: count for code, count in self._counts.items() if code not in WARNINGS}
            raise InputError.of([*_mixed(self._shapes, self.file), *listed(errors, counts, self.file)])
        return tuple(first_of_each(self._problems))

    def noted(self, role: Split) -> tuple[Finding, ...]:
        """The warnings as findings of the audit: counts of all, and the first five places of each code.

        Rows that are left out for it are told by `left_out_findings`.
        """
        findings = []
        for code in sorted(self._counts.keys() & WARNINGS - _LEFT_OUT_FOR):
            count = self._counts[code]
            places = [p for p in first_of_each(self._problems) if p.code == code]
            message = f"{plural(count, 'time', 'times')} in {role}: {CODES[code].removesuffix(' (warning)')}"
            refs = tuple(RowRef(place.file, place.line) for place in places)
            findings.append(Finding(code, "warn" if code in _GRAVE else "info", count, message, refs, None, role))
        return tuple(findings)


def _mixed(shapes: Counter[RowShape], where: str) -> list[Problem]:
    if len(shapes) < 2:
        return []
    found = ", ".join(f"{plural(count, 'row')} of shape {name}" for name, count in shapes.most_common())
    cure = "keep one shape in a file, or choose columns that all rows have (--input NAME --output NAME)"
    return [Problem(f"rows have different shapes: {found}", where, cure, "mixed-shapes")]


def _check_enough(
    examples: Sequence[Example], dropped: Sequence[Finding], source: Source, role: Split, needed: int
) -> None:
    where = source.file
    if len(examples) < needed:
        left_out = "".join(f"; {finding.message}" for finding in dropped)
        what = f"{plural(len(examples), 'usable row')}; at least {needed} needed{left_out}"
        cure = "add rows; a few hundred make a useful measurement" if role == "train" else "add rows"
        raise InputError(what, where=where, cure=cure, code="too-few-rows")
    if source.shape.kind != "classification" or role != "train":
        return
    classes = {example.answer for example in examples}
    if len(classes) == 1:
        what = f"every row has the same answer, '{examples[0].answer[:80]}'; there is nothing to tell apart"
        cure = "give rows of at least two classes, or choose another answer column with --output NAME"
        raise InputError(what, where=where, cure=cure, code="one-class")
    if len(classes) == len(examples):
        what = f"all {len(examples):,} answers differ, so they are no classes"
        cure = "choose the kind generation, or another column with --output NAME"
        raise InputError(what, where=where, cure=cure, code="one-class")


def _unique(examples: Sequence[Example]) -> tuple[Example, ...]:
    """The same row again gets a suffix to its id, so that ids stay when rows are appended."""
    seen: Counter[str] = Counter()
    kept = []
    for example in examples:
        seen[example.id] += 1
        count = seen[example.id]
        kept.append(example if count == 1 else replace(example, id=f"{example.id}-{count}"))
    return tuple(kept)


_LEFT_OUT = {
    "empty-input": "with an empty input",
    "empty-answer": "with an empty answer",
    "preference-tie": "without a winner",
}


def left_out_findings(left_out: Sequence[tuple[str, RowRef]], role: Split) -> tuple[Finding, ...]:
    """The rows that were not used, as findings of the audit."""
    findings = []
    for code, how in _LEFT_OUT.items():
        rows = tuple(row for reason, row in left_out if reason == code)
        if rows:
            message = f"{plural(len(rows), 'row')} of {role} {how}"
            findings.append(Finding(code, "warn", len(rows), message, rows, "left out", role))
    return tuple(findings)
