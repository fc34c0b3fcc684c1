"""What is read and audited but not trained yet is refused here, by name, before any model is loaded."""

from __future__ import annotations

from dataclasses import replace

from tuneworth.data import Example
from tuneworth.errors import InputError, Problem
from tuneworth.pipeline.preparing import Prepared

TRAINED_AS = {
    "classification": "classification",
    "generation": "generation",
    "reasoning": "generation",
    "chat": "generation",
    "extraction": "generation",
}
"""The kinds that are trained, and as what: the last answer of a conversation is one answer like any other."""

_LISTED = 5


def trainable(splits: Prepared) -> Prepared:
    """The splits under the kind as which they are trained. Raises InputError when they cannot be trained yet."""
    if splits.kind not in TRAINED_AS:
        where = splits.train[0].file if splits.train else ""
        raise InputError(
            f"the kind is {splits.kind}, which is read, audited and converted but not trained yet",
            where=where,
            cure=f"give rows of one of the kinds {', '.join(TRAINED_AS)}, or choose one of them with --kind",
        )
    problems = []
    for example in (*splits.train, *splits.validation, *splits.test):
        what = _ignored(example)
        if what:
            problems.append(Problem(f"{what} not trained yet", f"{example.file}:{example.line}", "leave the row out"))
    if problems:
        more = [Problem(f"{len(problems):,} such rows in all; the first {_LISTED} are listed")]
        raise InputError.of([*problems[:_LISTED], *(more if len(problems) > _LISTED else [])])
    return replace(splits, kind=TRAINED_AS[splits.kind])


def _ignored(example: Example) -> str:
    """What training would have to ignore in a row, or nothing."""
    if example.tools or any(message.calls or message.role == "tool" for message in example.conversation):
        return "tools and tool calls are"
    if example.rejected is not None:
        return "a rejected answer is"
    if example.weight == 0:
        return "answers before a last one of weight 0 are"
    if any(message.role == "system" for message in example.messages[1:]):
        return "a system message after the first message is"
    return ""
