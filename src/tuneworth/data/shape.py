"""What the columns of a file mean and what kind of task it is: recognised, explained, or asked back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from tuneworth.data.opening import Format
from tuneworth.data.rows import Row
from tuneworth.data.spans import tags_column
from tuneworth.errors import InputError, Problem, nearest
from tuneworth.task import Columns

Kind = Literal["classification", "multilabel", "extraction", "generation", "reasoning", "chat", "tools", "preference"]
RowShape = Literal[
    "table", "chat", "prompt-completion", "alpaca", "sharegpt", "preference", "chosen-rejected", "comparison",
    "chunks", "tags",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
SHAPES: tuple[RowShape, ...] = get_args(RowShape)

SHAPE_NAMES: Mapping[RowShape, str] = {
    "table": "an input and an answer column",
    "chat": "conversations in OpenAI's shape; the last answer of each is the wanted one",
    "prompt-completion": "prompts with their completions",
    "alpaca": "instructions with their outputs (Alpaca); instruction and input become one message",
    "sharegpt": "conversations in ShareGPT's shape; the last answer of each is the wanted one",
    "preference": "preference pairs in OpenAI's shape",
    "chosen-rejected": "preference pairs of a chosen and a rejected answer",
    "comparison": "two responses and the annotators' votes; the majority says which is better",
    "chunks": "texts in chunks with entities; the answer is the JSON of intent and slots",
    "tags": "tokens with tags; the answer is the JSON of the slots",
}

_INPUTS = """text input question message prompt utterance query sentence review content body instruction
    request source document ticket comment tweet email sms article user user_message customer_message
    input_text"""
_LABELS = """label labels category intent class sentiment topic tag label_text label_name class_name
    intent_name"""
_ANSWERS = """output answer completion target response summary reply expected expected_output gold
    ground_truth output_text assistant target_text"""
_PLURALS = frozenset(["labels", "tags", "categories", "classes", "topics", "intents"])
_SEPARATORS = ("|", ";", ",")
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

    `input` and `output` are None where the shape itself says where they are. In files without a header columns are
    "1", "2", ...
    """

    format: Format
    rows: RowShape
    input: str | None
    output: str | None
    group: str | None
    id: str | None
    kind: Kind
    why: tuple[str, ...]
    time: str | None = None
    rejected: str | None = None

    @property
    def columns(self) -> Columns:
        """What to give for the other files of the same data set, so that they are read the same way."""
        return Columns(
            input=self.input, output=self.output, rejected=self.rejected, group=self.group, time=self.time, id=self.id
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


def is_id_name(name: str) -> bool:
    """Whether a column of this name numbers or names rows, so that it says nothing about their content."""
    return _plain(name) in _ID_NAMES


def is_known(name: str) -> bool:
    """Whether a column of this name is recognised by its name alone."""
    return _plain(name) in INPUT_NAMES | OUTPUT_NAMES | _ID_NAMES


def is_input_name(name: str) -> bool:
    """Whether a column of this name is an input by its name alone."""
    return _plain(name) in INPUT_NAMES


def most_labels(rows: int) -> int:
    """How many different values a column of labels may have among `rows` values."""
    return max(2, min(_MOST_LABELS, rows // 5))


def looks_like_labels(values: Sequence[str]) -> bool:
    """Few different, short values."""
    distinct = set(values)
    return 0 < len(distinct) <= most_labels(len(values)) and all(map(is_short, distinct))


def is_short(value: str) -> bool:
    """Whether a text is short enough for a label."""
    return len(value) <= _LONGEST_LABEL and "\n" not in value.strip()


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


@dataclass(frozen=True, slots=True)
class Sample:
    """The rows from which a file is understood: all of a small file, the first eight megabytes or so of a large one.

    `header` is False when columns are named by number ("1", "2", ...) because the file names none.
    """

    format: Format
    columns: tuple[str, ...]
    rows: Sequence[Row]
    where: str
    header: bool = True


def shape_of(cells: Mapping[str, Any]) -> RowShape:
    """The shape of one row, by the names of its columns and what is in them."""
    names = cells.keys()
    if "messages" in names:
        return "chat"
    if "preferred_output" in names or "preferred_completion" in names:
        return "preference"
    if {"chosen", "rejected"} <= names:
        return "chosen-rejected"
    if "conversations" in names:
        return "sharegpt"
    if {"instruction", "response1", "response2"} <= names:
        return "comparison"
    if isinstance(cells.get("data"), list) and ("intent" in names or len(names) == 1):
        return "chunks"
    if isinstance(cells.get("tokens"), list) and tags_column(cells):
        return "tags"
    if {"instruction", "output"} <= names:
        return "alpaca"
    return "prompt-completion" if {"prompt", "completion"} <= names else "table"


def choose_shape(sample: Sample, columns: Columns) -> RowShape:
    """The shape that most rows have. Columns that the user chose decide: a rejected answer makes pairs, input and
    output a table."""
    if columns.rejected is not None:
        return "chosen-rejected"
    counts: dict[RowShape, int] = {}
    for row in sample.rows:
        found = shape_of(row.cells)
        counts[found] = counts.get(found, 0) + 1
    shape = max(counts, key=lambda name: counts[name])
    own_output = shape == "alpaca" and columns.input is None
    return "table" if columns.input is not None or (columns.output is not None and not own_output) else shape


def choose_columns(sample: Sample, columns: Columns, shape: RowShape) -> tuple[Columns, list[str]]:
    """(columns with everything that was chosen or recognised, why).

    Raises InputError when a given column does not exist, or when names and contents leave it open; then the
    message lists the columns and how to choose.
    """
    _check_given(sample, columns)
    chooser = _Chooser(sample, columns)
    if shape == "alpaca":
        others = [n for n in chooser.open if _plain(n) in OUTPUT_NAMES and n != "output"]
        if others and columns.output is None:
            raise chooser.unclear(f"which column is the output? {_or(['output', *others])} could be it")
        chosen = columns.output or "output"
        why = [f"the rows are {SHAPE_NAMES[shape]}", f"the answer is column '{chosen}'"]
        return columns.model_copy(update={"output": chosen}), why
    if shape != "table":
        return columns, [f"the rows are {SHAPE_NAMES[shape]}"]
    output, why_output = chooser.choose("output", columns.output, OUTPUT_NAMES, columns.input)
    input_, why_input = chooser.choose("input", columns.input, INPUT_NAMES, output)
    if input_ == output:
        what = f"'{input_}' cannot be both input and output"
        raise InputError(what, where=sample.where, cure=chooser.cure(), code="columns")
    why = [f"the input is column '{input_}': {why_input}", f"the answer is column '{output}': {why_output}"]
    used = {input_, output, columns.group, columns.time, columns.id}
    unused = [name for name in sample.columns if name not in used]
    if unused:
        why.append("columns that are not used: " + ", ".join(f"'{name}'" for name in unused))
    return columns.model_copy(update={"input": input_, "output": output}), why


def _check_given(sample: Sample, columns: Columns) -> None:
    """Raise InputError that names every chosen column that the file lacks, with the nearest it has."""
    problems = [
        Problem(f"there is no column '{name}' for {role}", sample.where, nearest(name, sample.columns), "columns")
        for role, name in columns.model_dump().items()
        if name is not None and name not in sample.columns
    ]
    if problems:
        raise InputError.of(problems)


_COLUMNS_SHOWN = 12


class _Chooser:
    """Looks for the input and the output column among those that can be one."""

    def __init__(self, sample: Sample, columns: Columns) -> None:
        self.sample = sample
        special = {columns.group, columns.id, columns.time}
        self.values = {name: self._texts(name) for name in sample.columns if name not in special}
        filled = [name for name, values in self.values.items() if any(values)]
        self.open = [name for name in filled if _plain(name) not in _ID_NAMES]

    def _texts(self, name: str) -> list[str]:
        return [_text(row.cells.get(name)) for row in self.sample.rows]

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
            distinct, total = len(set(self.values[fitting[0]])), len(self.sample.rows)
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
        return InputError(what, where=self.sample.where, cure=self.cure(), code="columns")

    def cure(self) -> str:
        names = list(self.values)
        shown = ", ".join(f"'{name}' ({self._sample(name)})" for name in names[:_COLUMNS_SHOWN]) or "none"
        if len(names) > _COLUMNS_SHOWN:
            shown += f" and {len(names) - _COLUMNS_SHOWN:,} more"
        numbers = ""
        if self.sample.format in ("csv", "tsv") and self.sample.header:
            numbers = "; if the first line is a row, not a header, choose by number: --input 1 --output 2"
        return f"choose with {_FLAGS}; the columns are: {shown}{numbers}"

    def _sample(self, name: str) -> str:
        first = next((value for value in self.values[name] if value.strip()), None)
        if first is None:
            return "empty"
        line = " ".join(first.split())
        return f"for example {line[:40]}{'...' if len(line) > 40 else ''}"


def _or(names: Sequence[str]) -> str:
    shown = " or ".join(f"'{name}'" for name in names[:_COLUMNS_SHOWN])
    more = len(names) - _COLUMNS_SHOWN
    return f"{shown} or one of {more:,} more" if more > 0 else shown


def _text(cell: Any) -> str:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, list) and all(isinstance(item, str) for item in cell):
        return " ".join(cell)
    return "" if cell is None else str(cell)


def is_label_name(name: str | None) -> bool:
    """Whether a column of this name holds labels."""
    return name is not None and _plain(name) in LABEL_NAMES


def label_separator(name: str | None, answers: Sequence[str]) -> str | None:
    """What stands between the labels of one cell, as in `sport|politics`; None when cells hold one label each.

    Looked for only in columns whose name is a plural, and only if what is between are labels.
    """
    if name is None or _plain(name) not in _PLURALS:
        return None
    separator = any_separator(answers)
    if separator is None:
        return None
    parts = [part.strip() for answer in answers for part in answer.split(separator)]
    return separator if looks_like_labels(parts) else None


def any_separator(answers: Sequence[str]) -> str | None:
    """The first of `|`, `;` and `,` that any answer holds."""
    return next((mark for mark in _SEPARATORS if any(mark in answer for answer in answers)), None)
