"""The rows as they are learnt and judged, and what cannot be, named row by row before any model is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tuneworth.data import Example
from tuneworth.errors import InputError, Problem
from tuneworth.evaluation.metrics.jsontext import parse_json
from tuneworth.evaluation.metrics.labels import fold
from tuneworth.evaluation.metrics.schemas import checked_schema, derived_schema, validator, why_invalid
from tuneworth.evaluation.metrics.spelling import spelled
from tuneworth.pipeline.preparing import Prepared
from tuneworth.task import Task

_LISTED = 5
Check = Callable[[Example], str | None]


def trainable(splits: Prepared, task: Task) -> Prepared:
    """The splits as they are learnt and judged.

    A conversation ends with the last answer that is to be learnt; what stands behind it teaches and asks nothing.
    Rows of kind tools are judged at every answer that calls a tool and at the last one, not only at the last: most
    calls stand in the middle. These rows share a group, since they are no independent evidence.

    Objects are spelled in one way, see `_of_one_spelling`.

    Raises InputError that names the rows which their kind cannot be learnt or judged with, and what is wrong with
    labels or the schema.
    """
    _check_labels(task)
    parts = {name: tuple(map(_to_last_learnt, getattr(splits, name))) for name in ("train", "validation", "test")}
    _check_rows(parts, _check_of(splits.kind, splits.labels, task))
    if splits.kind == "tools":
        for name in ("validation", "test"):
            parts[name] = tuple(turn for example in parts[name] for turn in _turns(example))
    found = replace(splits, train=parts["train"], validation=parts["validation"], test=parts["test"])
    return _of_one_spelling(found, task.prompt.json_schema) if splits.kind == "extraction" else found


def _of_one_spelling(splits: Prepared, given: Mapping[str, Any] | None) -> Prepared:
    """Objects that are learnt from and shown, spelled in one way: that of the schema which answers are held to, `given`
    or what these objects have in common. Test rows stay as they are, since their order does not count."""
    shown = [*splits.train, *splits.validation]
    schema = given if given is not None else derived_schema([parse_json(example.answer) for example in shown])
    train, validation = (
        tuple(replace(example, answer=spelled(parse_json(example.answer), schema)) for example in rows)
        for rows in (splits.train, splits.validation)
    )
    return replace(splits, train=train, validation=validation, schema=schema)


def _to_last_learnt(example: Example) -> Example:
    if example.weight != 0:
        return example
    places = [n for n, message in enumerate(example.messages) if message.role == "assistant" and message.weight != 0]
    return _ending_at(example, places[-1]) if places else example


def _turns(example: Example) -> Iterator[Example]:
    """The example at each of its answers that calls a tool, and as it is."""
    group = example.group or example.id
    for place, message in enumerate(example.messages):
        if message.role == "assistant" and message.calls and message.weight != 0:
            yield replace(_ending_at(example, place), id=f"{example.id}/message-{place + 1}", group=group)
    yield replace(example, group=group)


def _ending_at(example: Example, place: int) -> Example:
    """The conversation up to the assistant message at `place`, which becomes the answer."""
    reply = example.messages[place]
    return replace(
        example, messages=example.messages[:place], answer=reply.content, calls=reply.calls, weight=reply.weight,
        references=(),
    )  # fmt: skip


def _check_labels(task: Task) -> None:
    """Labels that a model could not tell apart, or not write."""
    if task.prompt.labels == "auto":
        return
    problems = []
    for label, times in Counter(task.prompt.labels).items():
        if times > 1:
            problems.append(Problem(f"'{label}' stands {times} times", "prompt.labels", "name each label once"))
    alike: dict[str, list[str]] = {}
    for label in dict.fromkeys(task.prompt.labels):
        alike.setdefault(fold(label), []).append(label)
        if label != label.strip() or not label:
            problems.append(Problem(f"'{label}' is empty or has blanks around it", "prompt.labels", "take them off"))
    for labels in alike.values():
        if len(labels) > 1:
            shown = " and ".join(f"'{label}'" for label in labels)
            problems.append(Problem(f"{shown} differ only in letter case or quotes", "prompt.labels", "rename one"))
    if problems:
        raise InputError.of(problems)


def _check_of(kind: str, labels: Sequence[str], task: Task) -> Check:
    """What can be wrong with a row of this kind."""
    known = frozenset(labels)
    schema = task.prompt.json_schema
    checker = validator(checked_schema(schema)) if schema is not None and kind == "extraction" else None

    def check(example: Example) -> str | None:
        if kind != "tools" and example.calls:
            return f"the answer is a tool call, which the kind {kind} cannot judge; choose kind: tools"
        if kind in ("classification", "multilabel") and task.prompt.labels != "auto":
            answered = example.labels if kind == "multilabel" else (example.answer,)
            unknown = [label for label in answered if label not in known]
            return f"'{unknown[0]:.80}' is none of prompt.labels" if unknown else None
        if kind == "preference":
            return _wrong_pair(example)
        return _wrong_object(example, checker) if kind == "extraction" else None

    return check


def _wrong_pair(example: Example) -> str | None:
    if example.rejected is None:
        return "there is no rejected answer"
    return "the better and the worse answer are the same" if example.rejected.content == example.answer else None


def _wrong_object(example: Example, checker: Any) -> str | None:
    value = parse_json(example.answer)
    if not isinstance(value, dict | list):
        return "the answer is no JSON object"
    why = why_invalid(value, checker) if checker is not None else None
    return f"the answer does not fit prompt.json_schema: {why}" if why else None


def _check_rows(parts: dict[str, tuple[Example, ...]], check: Check) -> None:
    """All rows; the first few are named."""
    problems = []
    for example in (row for rows in parts.values() for row in rows):
        what = check(example)
        if what is not None:
            problems.append(Problem(what, f"{example.file}:{example.line}", "correct the row, or leave it out"))
    if problems:
        more = [Problem(f"{len(problems):,} such rows in all; the first {_LISTED} are listed")]
        raise InputError.of([*problems[:_LISTED], *(more if len(problems) > _LISTED else [])])
