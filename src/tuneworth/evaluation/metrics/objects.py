"""Extraction: one JSON object a row, compared whole and field by field."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tuneworth.data.example import Example
from tuneworth.evaluation.metrics.jsontext import parse_json, plain_json
from tuneworth.evaluation.metrics.metric import Kit
from tuneworth.evaluation.metrics.schemas import validator, why_invalid
from tuneworth.evaluation.records import Answer, RawAnswer

_FIELDS, _REASONS = 60, 10
Leaves = Counter[tuple[str, str]]


def object_kit(schema: Mapping[str, Any] | None) -> Kit:
    """Reading and measuring JSON objects; `schema` decides what counts as valid.

    The main metric is the exact object: an application that stores the object needs all of it to be right, and a row
    that is right or wrong is compared by exact tests. `metric: field-f1` is the mean over rows of the F1 of fields, for
    tasks in which half an object is worth half.
    """

    def parse(example: Example, answer: RawAnswer) -> str | None:
        value = parse_json(answer.text)
        return plain_json(value) if isinstance(value, dict | list) else None

    def exact(example: Example, answer: RawAnswer, parsed: str | None) -> float:
        return float(parsed is not None and any(same(parse_json(parsed), wanted) for wanted in _wanted(example)))

    def fields(example: Example, answer: RawAnswer, parsed: str | None) -> float:
        return 0.0 if parsed is None else max(field_f1(parse_json(parsed), wanted) for wanted in _wanted(example))

    def totals(examples: Sequence[Example], answers: Sequence[Answer]) -> dict[str, Any]:
        return _totals(examples, answers, schema)

    return Kit(parse, {"exact-object": exact, "field-f1": fields}, totals, lambda example: example.answer)


def same(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal: objects whatever the order of their keys, lists in order, numbers by value
    (1 equals 1.0), texts after NFC and folding of white space."""
    return plain_json(_normal(a)) == plain_json(_normal(b))


def leaves(value: Any) -> Leaves:
    """Every (path, value) of a JSON value with how often it occurs; items of a list share one path, so their order does
    not count here."""
    return Counter((path, plain_json(leaf)) for path, leaf in _walk(_normal(value), ""))


def field_f1(given: Any, wanted: Any) -> float:
    """F1 of the leaves of two values; two that have none are equal."""
    a, b = leaves(given), leaves(wanted)
    total = a.total() + b.total()
    return 2 * (a & b).total() / total if total else 1.0


def _wanted(example: Example) -> list[Any]:
    return [parse_json(text) for text in (example.answer, *example.references)]


def _totals(examples: Sequence[Example], answers: Sequence[Answer], schema: Mapping[str, Any] | None) -> dict[str, Any]:
    checker = validator(schema) if schema is not None else None
    wanted_of, given_of, right_of = Counter[str](), Counter[str](), Counter[str]()
    exact = f1 = 0.0
    valid, reasons = 0, Counter[str]()
    for example, answer in zip(examples, answers, strict=True):
        wanted = parse_json(example.answer)
        given = parse_json(answer.parsed) if answer.parsed is not None else None
        why = "no JSON object" if given is None else why_invalid(given, checker) if checker else None
        valid += why is None
        if why is not None:
            reasons[why] += 1
        a, b = leaves(given) if given is not None else Counter(), leaves(wanted)
        for counter, found in ((given_of, a), (wanted_of, b), (right_of, a & b)):
            for (path, _), times in found.items():
                counter[path] += times
        if given is not None:
            exact += same(given, wanted)
            f1 += field_f1(given, wanted)
    count = len(answers)
    return {
        "exact_object": exact / count,
        "field_f1": f1 / count,
        "micro_field_f1": _f1(right_of.total(), given_of.total(), wanted_of.total()),
        "schema_valid": valid / count if schema is not None else None,
        "closed_early": sum(answer.parts.get("closed", 0.0) for answer in answers) / count,
        "why_invalid": dict(reasons.most_common(_REASONS)),
        "fields": [_field(name, wanted_of, given_of, right_of) for name, _ in wanted_of.most_common(_FIELDS)],
    }


def _field(name: str, wanted: Counter[str], given: Counter[str], right: Counter[str]) -> dict[str, Any]:
    return {
        "field": name,
        "values": wanted[name],
        "precision": right[name] / given[name] if given[name] else None,
        "recall": right[name] / wanted[name],
        "f1": _f1(right[name], given[name], wanted[name]),
    }


def _f1(right: int, given: int, wanted: int) -> float:
    return 2 * right / (given + wanted) if given + wanted else 1.0


def _walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _walk(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value:
        for inner in value:
            yield from _walk(inner, path)
    elif path or not isinstance(value, dict | list):
        yield path, value


def _normal(value: Any) -> Any:
    if isinstance(value, dict):
        return {unicodedata.normalize("NFC", name): _normal(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_normal(inner) for inner in value]
    if isinstance(value, str):
        return " ".join(unicodedata.normalize("NFC", value).split())
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
