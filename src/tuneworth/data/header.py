"""Whether a table of cells has a header line, and what its columns are called."""

from __future__ import annotations

from collections.abc import Sequence

from tuneworth.data.opening import FORMAT_NAMES, Opened
from tuneworth.data.rows import Rows
from tuneworth.data.shape import is_known, looks_like_labels
from tuneworth.data.tables import Grid, rows_of_grid
from tuneworth.errors import InputError, Problem
from tuneworth.task import Columns

_LONGEST_NAME = 80
_MOST_WORDS = 12


def name_columns(opened: Opened, grid: Grid, columns: Columns) -> Rows:
    """The rows of `grid` under the names of its header, or under numbers when `columns` gives numbers.

    Raises InputError when there is no header, or one that cannot be used, and says how to cure it.
    """
    where = str(opened.path)
    if not grid.records:
        raise InputError.of(list(grid.problems) or [Problem("the file has no rows", where)])
    line, first = grid.records[0]
    names = [cell.strip() for cell in first]
    if _by_number(columns, names):
        _check_numbers(columns, len(names), f"{where}:{line}", names)
        return rows_of_grid(opened, grid, [str(number) for number in range(1, len(names) + 1)])
    problem = _unusable(names) or _looks_like_data(grid, names, columns)
    if problem:
        raise InputError(problem, where=f"{where}:{line}", cure=_cure(grid, len(names)))
    if len(grid.records) == 1 and not grid.problems:
        raise InputError(f"the {FORMAT_NAMES[opened.format]} file has a header but no rows", where=where)
    return rows_of_grid(opened, grid, None)


def _by_number(columns: Columns, names: Sequence[str]) -> bool:
    given = [name for name in (columns.input, columns.output) if name is not None]
    return bool(given) and all(_is_number(name) and name not in names for name in given)


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _check_numbers(columns: Columns, width: int, where: str, names: Sequence[str]) -> None:
    problems = []
    if columns.input is None or columns.output is None:
        problems.append(Problem("only one column is given by number", where, "give both input and output"))
    for role, name in columns.model_dump().items():
        if name is not None and not (_is_number(name) and 1 <= int(name) <= width):
            cure = f"columns are 1 to {width}"
            problems.append(Problem(f"there is no column {name} for {role}", where, cure))
    if width > 1 and all(name and is_known(name) for name in names):
        cure = f"choose columns by name: {', '.join(names)}"
        problems.append(Problem("columns are given by number, but the first line is a header", where, cure))
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
