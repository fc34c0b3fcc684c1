"""JSON Schemas of answers: read off training answers, described to a model, and checked by the jsonschema library."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry

from tuneworth.errors import InputError

Schema = Mapping[str, Any]
_MOST_CHOICES, _ROWS_A_CHOICE = 24, 8
"""A text that takes few values, each of them often, is a choice among them."""
_MOST_LETTERS_OF_CHOICES = 400


def derived_schema(values: Sequence[Any]) -> dict[str, Any]:
    """A schema that all of `values` fit: types, fields, which of them are always there, and choices where a text takes
    few values. What was never seen is not allowed, so an answer with a made-up field is invalid. Fields stand in the
    order that they mostly have."""
    kinds = Counter(_type(value) for value in values)
    if len(kinds) > 1:
        groups = [[value for value in values if _type(value) == kind] for kind, _ in kinds.most_common()]
        return {"anyOf": [derived_schema(group) for group in groups]}
    kind = next(iter(kinds), "null")
    if kind == "object":
        found = {name: [value[name] for value in values if name in value] for name in _usual_order(values)}
        return {
            "type": "object",
            "properties": {name: derived_schema(inner) for name, inner in found.items()},
            "required": [name for name, inner in found.items() if len(inner) == len(values)],
            "additionalProperties": False,
        }
    if kind == "array":
        items = [item for value in values for item in value]
        return {"type": "array", "items": derived_schema(items)} if items else {"type": "array"}
    choices = sorted(set(values)) if kind == "string" else []
    letters = sum(map(len, choices))
    if choices and len(values) >= _ROWS_A_CHOICE * len(choices) and len(choices) <= _MOST_CHOICES:
        return {"enum": choices} if letters <= _MOST_LETTERS_OF_CHOICES else {"type": "string"}
    return {"type": kind}


def _usual_order(values: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fields of objects in the order in which they mostly stand: by how many fields follow one less how many come
    before it, on average over the objects that have it."""
    places: dict[str, list[int]] = {}
    for value in values:
        for place, name in enumerate(value):
            places.setdefault(name, []).append(len(value) - 1 - 2 * place)
    return sorted(places, key=lambda name: -sum(places[name]) / len(places[name]))


def checked_schema(schema: Schema, where: str = "prompt.json_schema") -> dict[str, Any]:
    """`schema` if it is a JSON Schema. Raises InputError when it is none, or refers to something outside itself."""
    try:
        Draft202012Validator.check_schema(dict(schema))
    except SchemaError as error:
        path = "/".join(map(str, error.absolute_path))
        raise InputError(
            f"this is no JSON Schema{f' (at {path})' if path else ''}: {error.message:.200}", where=where
        ) from None
    outside = [name for name in _references(schema) if not name.startswith("#")]
    if outside:
        cure = "write the definitions into the schema itself, under $defs"
        raise InputError(f"the schema refers to {outside[0]!r:.80}, which is not fetched", where=where, cure=cure)
    return dict(schema)


def validator(schema: Schema) -> Draft202012Validator:
    """A validator that never fetches anything."""
    return Draft202012Validator(dict(schema), registry=Registry())


def why_invalid(value: Any, checker: Draft202012Validator) -> str | None:
    """The first reason why `value` does not fit, or None when it does."""
    try:
        error = next(checker.iter_errors(value), None)
    except Exception as failure:  # a reference that leads nowhere, a pattern that is none
        return f"the schema cannot be applied: {failure}"
    if error is None:
        return None
    path = ".".join(map(str, error.absolute_path))
    return f"{path + ': ' if path else ''}{error.message:.200}"


def described(schema: Schema) -> str:
    """A schema as a model is told of it: a line a field for plain objects (a third of the tokens), else as JSON."""
    lines = list(_lines(schema, ""))
    return "\n".join(lines) if lines and None not in lines else json.dumps(schema, ensure_ascii=False)


def _lines(schema: Schema, path: str) -> Iterator[str]:
    required = schema.get("required", ())
    for name, inner in schema.get("properties", {}).items():
        here = f"{path}{name}"
        if inner.get("type") == "object" and inner.get("properties"):
            yield from _lines(inner, f"{here}.")
        else:
            always = "" if name in required else ", if there is one"
            yield f"- {here}: {_words(inner)}{always}"


def _words(schema: Schema) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(json.dumps(choice, ensure_ascii=False) for choice in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_words(inner) for inner in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_words(schema['items'])}" if schema.get("items") else "list"
    kind = schema.get("type", "any value")
    return {"string": "text"}.get(kind, kind) if isinstance(kind, str) else " or ".join(kind)


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        for name, inner in schema.items():
            if name in ("$ref", "$dynamicRef") and isinstance(inner, str):
                yield inner
            yield from _references(inner)
    elif isinstance(schema, list | tuple):
        for inner in schema:
            yield from _references(inner)


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    for kind, name in (
        (str, "string"), (dict, "object"), (list, "array"), (int, "integer"), (float, "number"),
    ):  # fmt: skip
        if isinstance(value, kind):
            return name
    return "null"
