"""Whether a table of cells has a header line, and what its columns are called."""

from __future__ import annotations

from collections.abc import Sequence

from tuneworth.data.opening import FORMAT_NAMES, Format
from tuneworth.data.problems import Tally
from tuneworth.data.shape import is_known, looks_like_labels
from tuneworth.data.tables import Grid
from tuneworth.errors import InputError, Problem
from tuneworth.task import Columns

_LONGEST_NAME = 80
_MOST_WORDS = 12


def find_names(grid: Grid, columns: Columns, format_: Format, tally: Tally) -> tuple[tuple[str, ...], bool]:
    """(column names, whether the first record holds them). Without a header they are numbers, and `columns` too.

    `grid` is the beginning of the table. Raises InputError when there is no header, or one that cannot be used, and
    says how to cure it.
    """
    where = tally.file
    if not grid.records:
        raise InputError("the file has no rows", where=where, code="too-few-rows")
    line, first = grid.records[0]
    names = [cell.strip() for cell in first]
    if _by_number(columns, names):
        _check_numbers(columns, len(names), f"{where}:{line}", names)
        return tuple(str(number) for number in range(1, len(names) + 1)), False
    problem = _unusable(names) or _looks_like_data(grid, names, columns)
    if problem:
        raise InputError(problem, where=f"{where}:{line}", cure=_cure(grid, len(names)), code="header")
    if len(grid.records) == 1 and not tally.counts:
        what = f"the {FORMAT_NAMES[format_]} file has a header but no rows"
        raise InputError(what, where=where, code="too-few-rows")
    return tuple(names), True


def _by_number(columns: Columns, names: Sequence[str]) -> bool:
    given = [name for name in (columns.input, columns.output) if name is not None]
    return bool(given) and all(_is_number(name) and name not in names for name in given)


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _check_numbers(columns: Columns, width: int, where: str, names: Sequence[str]) -> None:
    problems = []
    if columns.input is None or columns.output is None:
        problems.append(Problem("only one column is given by number", where, "give both input and output", "columns"))
    for role, name in columns.model_dump().items():
        if name is not None and not (_is_number(name) and 1 <= int(name) <= width):
            cure = f"columns are 1 to {width}"
            problems.append(Problem(f"there is no column {name} for {role}", where, cure, "columns"))
    if width > 1 and all(name and is_known(name) for name in names):
        cure = f"choose columns by name: {', '.join(names)}"
        problems.append(Problem("columns are given by number, but the first line is a header", where, cure, "columns"))
    if problems:
        raise InputError.of(problems)


def _unusable(names: Sequence[str]) -> str | None:
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        return f"the first line is no usable header: '{_short(twice)}' stands in it twice"
    # One nameless column in front is what pandas writes for its index.
    if any(not name for name in names[1:]) or names == [""]:
        return "the first line is no usable header: a column in it has no name"
    return None


def _looks_like_data(grid: Grid, names: Sequence[str], columns: Columns) -> str | None:
    """Why the first line seems to be a row. Columns that the user names by hand prove that it is a header."""
    if columns.input in names or columns.output in names:
        return None
    start = "there is no header: the first line looks like a row"
    for index, name in enumerate(names):
        if is_known(name):
            continue
        if len(name) > _LONGEST_NAME or "\n" in name or len(name.split()) > _MOST_WORDS:
            return f"{start} ('{_short(name)}' is a text, not a column name)"
        values = _values(grid, index, len(names))
        if name in values and looks_like_labels(values):
            return f"{start} ('{_short(name)}' is also a value in {values.count(name):,} rows of that column)"
    if not any(map(is_known, names)):
        sentence = next((name for name in names if len(name.split()) > 3), None)
        if sentence is not None:
            return f"{start} ('{_short(sentence)}'); name the columns if it is a header"
    return None


def _cure(grid: Grid, width: int) -> str:
    labels = [number for number in range(1, width + 1) if looks_like_labels(_values(grid, number - 1, width))]
    output = labels[0] if labels else width
    input_ = 2 if output == 1 and width > 1 else 1
    return (
        "add a first line with column names such as text and label, or say which column is which by number "
        f"(counted from 1), for example --input {input_} --output {output}"
    )


def _values(grid: Grid, index: int, width: int) -> list[str]:
    """The cells of a column without those of the first line."""
    return [cells[index].strip() for _, cells in grid.records[1:] if len(cells) == width]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 40 else line[:40] + "..."
