"""The tree of errors. Each says what happened, where, and the cure, and knows its exit code and HTTP status.

TuneworthError                 1  500   a fault of ours, or of the machine below us
├── InputError                 2  400   the user's data, task file or settings are wrong; lists every problem
├── MachineError               3  507   this machine cannot do it (memory, disk, a missing part)
├── RunBusyError               4  423   another process works on this run
└── Interrupted              130  499   Ctrl-C (130) or SIGTERM (143); the run can be continued
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in the user's input: what, where (file, line or key), and how to cure it.

    `code` names the kind of mistake for programs (kebab-case, listed in docs/reference.md); empty where it has none.
    """

    what: str
    where: str = ""
    cure: str = ""
    code: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        cure = f" Cure: {self.cure}" if self.cure else ""
        return f"{place}{self.what}{cure}"


class TuneworthError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1
    http_status = 500

    def __init__(self, what: str, *, where: str = "", cure: str = "", code: str = "") -> None:
        self.problems: tuple[Problem, ...] = (Problem(what, where, cure, code),)
        super().__init__(str(self.problems[0]))


class InputError(TuneworthError):
    """The user's input is wrong. Holds every problem found, so that all can be cured in one go."""

    exit_code = 2
    http_status = 400

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> InputError:
        """An error that lists all of `problems` (at least one)."""
        first = problems[0]
        error = cls(first.what, where=first.where, cure=first.cure)
        error.problems = tuple(problems)
        error.args = ("\n".join(map(str, problems)),)
        return error


class MachineError(TuneworthError):
    """This machine cannot do what was asked: memory, disk, network or a missing part."""

    exit_code = 3
    http_status = 507


class RunBusyError(TuneworthError):
    """Another process is working on the same run folder."""

    exit_code = 4
    http_status = 423


class Interrupted(TuneworthError):
    """The user (SIGINT, 130) or the machine (SIGTERM, 143) stopped the run; it can be continued."""

    http_status = 499

    def __init__(self, signal_number: int, *, cure: str = "run the same command again to continue") -> None:
        self.exit_code = 128 + signal_number
        super().__init__("interrupted", cure=cure)


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint `did you mean 'x'?` for the known word nearest to `word`, or the list of known words."""
    names = sorted(known)
    close = get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    return "known: " + ", ".join(names)
