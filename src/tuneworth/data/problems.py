"""What can be wrong with the rows of a file: codes, places, and how much of it is told.

A file may hold a million bad rows. Every one is counted; of each code the first five are kept, and at most a hundred
are listed, so that reading stays small in memory and the list stays readable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tuneworth.data.findings import LISTED, plural
from tuneworth.errors import Problem

KEPT = 5
"""How many rows of each code are named."""

CODES: Mapping[str, str] = {
    # the file
    "file-missing": "there is no such file, or it cannot be read",
    "file-empty": "the file holds nothing, or nothing but blank lines",
    "file-kind": "the file is of a kind that is not read (archive, workbook, PDF, HTML page, ...)",
    "file-encoding": "the file is UTF-16 or UTF-32",
    "file-too-large": "the file cannot be read piece by piece and is too large to be read at once",
    "unpacking": "a compressed file is damaged, or unpacks to more than is allowed",
    "line-ends": "lines end with carriage returns only",
    "format-unknown": "neither the name nor the content tells the format",
    "format-mismatch": "the content is not what the name says",
    "mixed-formats": "the files of a folder are of several formats",
    "header": "a table has no header, or one that cannot be used",
    "columns": "the columns cannot be recognised, or chosen ones do not exist",
    "mixed-shapes": "rows are of several shapes",
    "too-few-rows": "there are fewer usable rows than needed",
    "one-class": "every row has the same answer, or all answers differ, although they should be classes",
    # one row as text
    "invalid-utf8": "bytes that are not UTF-8",
    "nul-character": "a NUL character",
    "control-character": "another control character in a text (warning)",
    "line-too-long": "a row of more than 64 MiB",
    "invalid-json": "not valid JSON",
    "lone-surrogate": "half a character, as a \\ud800 that stands alone",
    "too-deep": "lists and objects nested too deeply",
    "number-too-large": "a number that no double holds, or an integer of more than 300 digits",
    "not-a-number": "NaN or Infinity, which JSON does not know",
    "duplicate-key": "a key that stands twice in one object",
    "row-not-object": "a row that is a list, a text, a number or null",
    "cell-count": "a row with more or fewer cells than the table has columns",
    "quoting": "quotes of a table row that do not enclose a cell",
    # one row as a table row
    "cell-missing": "a row without a needed column",
    "cell-type": "a list or an object where a text is needed",
    "id-empty": "a row without an id",
    "id-duplicate": "an id that an earlier row has",
    # one row as a conversation
    "messages": "'messages' is missing, no list, or empty",
    "message-not-object": "a message that is no object",
    "role": "a role that is missing or unknown",
    "unknown-key": "a key that messages do not have",
    "content": "content that is missing, null without tool calls, or no text",
    "content-part": "a content part that is no text (image, audio, refusal)",
    "content-blank": "a message without text (warning)",
    "name": "a name of a message that is no text of 1 to 64 letters, digits, _ or -",
    "metadata": "more than 16 metadata keys, or keys over 64 or values over 512 characters (warning)",
    "weight": "a weight other than 0 or 1, or on a message that is not the assistant's",
    "weight-all-zero": "every assistant message has weight 0, so the row teaches nothing",
    "no-assistant-message": "no message to learn from",
    "last-not-assistant": "the last message is not the assistant's",
    "no-user-message": "no message of the user; the row is left out (warning)",
    "assistant-first": "the assistant speaks before the user (warning)",
    "role-repeated": "the same role twice in a row (warning)",
    "system-not-first": "a system message after the first message (warning)",
    "unsupported": "audio, refusals, and other parts of a message that are not read",
    # tools
    "tools": "'tools' is no list of tool definitions (a JSON text is none)",
    "tool-definition": "a tool definition that is not well-formed, or a name that stands twice",
    "functions": "the former 'functions' and 'function_call'",
    "tool-calls": "tool calls that are no list of well-formed calls, or not the assistant's",
    "tool-call-id": "a tool call without an id, or with one that is used twice",
    "tool-arguments": "arguments that are not the JSON text of an object",
    "tool-name": "a call of a tool that is not among the row's tools",
    "tool-message": "a tool message without a call that it answers",
    "tool-call-unanswered": "a call that no tool message answers before the talk goes on (warning)",
    "parallel-calls": "several calls at once although parallel_tool_calls is false",
    # preference pairs
    "preference-input": "a preference pair without an input",
    "preference-answer": "a preferred or rejected answer that is not exactly one assistant message",
    "preference-identical": "a preference pair whose two answers are the same (warning)",
    "preference-tie": "a comparison without a winner; the row is left out (warning)",
    "cannot-hold": "a row that the shape or format to convert to cannot hold",
    # extraction and tags
    "chunks": "a row that is no list of text chunks",
    "tags": "tokens and tags that do not match, or tags that are no texts",
}
"""Every code and what it means. The names are an API: programs may rely on them."""

WARNINGS = frozenset(code for code, meaning in CODES.items() if meaning.endswith("(warning)"))


@dataclass(frozen=True, slots=True)
class RowProblem:
    """What is wrong with one row.

    `line` counts from 1; `column` (characters, from 1) is a place in the line, `byte` (from 0) one in the file,
    `message` (from 1) one in the conversation, each None where it says nothing.
    """

    code: str
    what: str
    file: str
    line: int
    column: int | None = None
    byte: int | None = None
    message: int | None = None
    cure: str = ""

    @property
    def severity(self) -> str:
        """`warn` when the row is used, or left out and counted; `error` when the file is refused."""
        return "warn" if self.code in WARNINGS else "error"

    @property
    def problem(self) -> Problem:
        """The same for people."""
        return Problem(self.what, f"{self.file}:{self.line}", self.cure, self.code)

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the code, the places that are known, and the texts."""
        row = {"code": self.code, "severity": self.severity, "file": self.file, "line": self.line}
        places = {"column": self.column, "byte": self.byte, "message": self.message}
        row |= {name: place for name, place in places.items() if place is not None}
        return row | {"what": self.what, "cure": self.cure}


class Tally:
    """Counts the problems of a piece of a file, and keeps the first five of each code."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.counts: Counter[str] = Counter()
        self.kept: dict[str, list[RowProblem]] = {}
        self.errors = 0
        """How many problems so far refuse the file."""

    def add(
        self, line: int, code: str, what: str, *,
        message: int | None = None, column: int | None = None, byte: int | None = None, cure: str = "",
    ) -> None:  # fmt: skip
        """Note a problem of the row at `line`; `code` is one of CODES."""
        self.counts[code] += 1
        self.errors += code not in WARNINGS
        kept = self.kept.setdefault(code, [])
        if len(kept) < KEPT:
            kept.append(RowProblem(code, what, self.file, line, column, byte, message, cure))

    def problems(self) -> tuple[RowProblem, ...]:
        """What was kept, in the order of lines."""
        return tuple(sorted((p for kept in self.kept.values() for p in kept), key=lambda p: p.line))


def first_of_each(problems: Iterable[RowProblem]) -> list[RowProblem]:
    """The first five of each code, in the order given."""
    seen: Counter[str] = Counter()
    kept = []
    for problem in problems:
        seen[problem.code] += 1
        if seen[problem.code] <= KEPT:
            kept.append(problem)
    return kept


def listed(problems: Iterable[RowProblem], counts: Mapping[str, int], where: str) -> list[Problem]:
    """The problems for people: at most a hundred, and where more were found a last one with the counts by code."""
    shown = first_of_each(problems)[:LISTED]
    found = [problem.problem for problem in shown]
    total = sum(counts.values())
    if total > len(shown):
        by_code = ", ".join(f"{count:,} {code}" for code, count in Counter(counts).most_common())
        about = f"{plural(total, 'problem')} in all: {by_code}; the first {KEPT} of each code are listed"
        found.append(Problem(about, where))
    return found
