"""What the columns of a file mean and what kind of task it is: recognised, explained, or asked back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tuneworth.data.opening import Format
from tuneworth.data.rows import Rows
from tuneworth.errors import InputError, Problem, nearest
from tuneworth.task import Columns

Kind = Literal["classification", "generation"]
RowShape = Literal["table", "chat", "prompt-completion"]

_INPUTS = """text input question message prompt utterance query sentence review content body instruction
    request source document ticket comment tweet email sms article user user_message customer_message
    input_text"""
_LABELS = """label labels category intent class sentiment topic tag label_text label_name class_name
    intent_name"""
_ANSWERS = """output answer completion target response summary reply expected expected_output gold
    ground_truth output_text assistant target_text"""
INPUT_NAMES = frozenset(_INPUTS.split())
LABEL_NAMES = frozenset(_LABELS.split())
OUTPUT_NAMES = LABEL_NAMES | frozenset(_ANSWERS.split())
_ID_NAMES = frozenset(["id", "idx", "index", "row", "row_id", "uuid", "guid", "no", "nr", "", "unnamed:_0"])
_LONGEST_LABEL = 80
_MOST_LABELS = 200
_FLAGS = "--input NAME --output NAME"


@dataclass(frozen=True, slots=True)
class Shape:
    """How a file was understood. `why` holds sentences for people, one for each thing that was recognised.

    In chat rows `input` and `output` are None. In files without a header columns are "1", "2", ...
    """

    format: Format
    rows: RowShape
    input: str | None
    output: str | None
    group: str | None
    id: str | None
    kind: Kind
    why: tuple[str, ...]

    @property
    def columns(self) -> Columns:
        """What to give for the other files of the same data set, so that they are read the same way."""
        return Columns(input=self.input, output=self.output, group=self.group, id=self.id)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


def is_known(name: str) -> bool:
    """Whether a column of this name is recognised by its name alone."""
    return _plain(name) in INPUT_NAMES | OUTPUT_NAMES | _ID_NAMES


def most_labels(rows: int) -> int:
    """How many different values a column of labels may have among `rows` values."""
    return max(2, min(_MOST_LABELS, rows // 5))


def looks_like_labels(values: Sequence[str]) -> bool:
    """Few different, short values."""
    distinct = set(values)
    return 0 < len(distinct) <= most_labels(len(values)) and all(map(_is_short, distinct))


def _is_short(value: str) -> bool:
    return len(value) <= _LONGEST_LABEL and "\n" not in value.strip()


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def choose_columns(rows: Rows, columns: Columns, where: str) -> tuple[str, str, list[str]]:
    """(input column, output column, why) of a table.

    Raises InputError when a given column does not exist, or when names and contents leave it open; then the
    message lists the columns and how to choose.
    """
    check_given(rows, columns, where)
    chooser = _Chooser(rows, columns, where)
    output, why_output = chooser.choose("output", columns.output, OUTPUT_NAMES, columns.input)
    input_, why_input = chooser.choose("input", columns.input, INPUT_NAMES, output)
    if input_ == output:
        raise InputError(f"'{input_}' cannot be both input and output", where=where, cure=chooser.cure())
    why = [f"the input is column '{input_}': {why_input}", f"the answer is column '{output}': {why_output}"]
    unused = [name for name in rows.columns if name not in {input_, output, columns.group, columns.id}]
    if unused:
        why.append("columns that are not used: " + ", ".join(f"'{name}'" for name in unused))
    return input_, output, why


def check_given(rows: Rows, columns: Columns, where: str) -> None:
    """Raise InputError that names every chosen column that the file lacks, with the nearest it has."""
    problems = [
        Problem(f"there is no column '{name}' for {role}", where, nearest(name, rows.columns))
        for role, name in columns.model_dump().items()
        if name is not None and name not in rows.columns
    ]
    if problems:
        raise InputError.of(problems)


class _Chooser:
    """Looks for the input and the output column among those that can be one."""

    def __init__(self, rows: Rows, columns: Columns, where: str) -> None:
        self.rows = rows
        self.where = where
        special = {columns.group, columns.id}
        self.values = {name: self._texts(name) for name in rows.columns if name not in special}
        filled = [name for name, values in self.values.items() if any(values)]
        self.open = [name for name in filled if _plain(name) not in _ID_NAMES]

    def _texts(self, name: str) -> list[str]:
        cells = (row.cells.get(name) for row in self.rows.rows)
        return [cell if isinstance(cell, str) else "" if cell is None else str(cell) for cell in cells]

    def choose(self, role: str, given: str | None, known: frozenset[str], other: str | None) -> tuple[str, str]:
        """The column for `role` and why; `other` is taken by the other role."""
        if given is not None:
            return given, "you chose it"
        left = [name for name in self.open if name != other]
        named = [name for name in left if _plain(name) in known]
        if len(named) == 1:
            return named[0], "its name says so"
        if len(named) > 1:
            raise self.unclear(f"which column is the {role}? {_or(named)} could be it")
        # Names of the other role are not fair game: a lone column 'label' is no input.
        left = [name for name in left if not is_known(name)]
        fits = self.is_label if role == "output" else self.is_text
        fitting = [name for name in left if fits(name)]
        if len(fitting) == 1:
            distinct, total = len(set(self.values[fitting[0]])), len(self.rows.rows)
            return fitting[0], f"it has {distinct:,} different values in {total:,} rows"
        if len(left) == 1:
            return left[0], "no other column is left"
        if fitting:
            raise self.unclear(f"which column is the {role}? {_or(fitting)} could be it")
        raise self.unclear(f"no column can be recognised as the {role}")

    def is_label(self, name: str) -> bool:
        return looks_like_labels([value for value in self.values[name] if value])

    def is_text(self, name: str) -> bool:
        values = [value for value in self.values[name] if value]
        return len(set(values)) > len(values) / 2 and sum(map(len, values)) >= 10 * len(values)

    def unclear(self, what: str) -> InputError:
        return InputError(what, where=self.where, cure=self.cure())

    def cure(self) -> str:
        shown = ", ".join(f"'{name}' ({self._sample(name)})" for name in self.values) or "none"
        numbers = ""
        if self.rows.format in ("csv", "tsv") and self.rows.header:
            numbers = "; if the first line is a row, not a header, choose by number: --input 1 --output 2"
        return f"choose with {_FLAGS}; the columns are: {shown}{numbers}"

    def _sample(self, name: str) -> str:
        first = next((value for value in self.values[name] if value.strip()), None)
        if first is None:
            return "empty"
        line = " ".join(first.split())
        return f"for example {line[:40]}{'...' if len(line) > 40 else ''}"


def _or(names: Sequence[str]) -> str:
    return " or ".join(f"'{name}'" for name in names)


def recognise_kind(answers: Sequence[str], output: str | None, wanted: str) -> tuple[Kind, str]:
    """(kind, why). `wanted` is "auto" or a kind; `output` is the answer's column.

    Answers are classes when they are short and few: at most a fifth as many as rows and at most 200; under a
    column name such as 'label' half as many as rows will do.
    """
    counts = Counter(answer.strip() for answer in answers)
    many = f"{len(counts):,} different answers in {len(answers):,} rows"
    if wanted == "classification":
        return "classification", "you chose classification"
    if wanted == "generation":
        return "generation", "you chose generation"
    if not all(map(_is_short, counts)):
        return "generation", f"the kind is generation: there are long answers ({many})"
    named = output is not None and _plain(output) in LABEL_NAMES
    if len(counts) <= most_labels(len(answers)) or (named and len(counts) <= len(answers) / 2):
        return "classification", f"the kind is classification: {many}, all short"
    return "generation", f"the kind is generation: {many}, too many to be classes"
