"""One spelling for all JSON answers of a task: on one line, the fields of every object in the order of its schema.

Answers that are held to a schema come in that order (grammars know no other), so what models learn from and are shown
is spelled in the same way. The value stays the same: objects are equal whatever the order of their fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
_JOINING = ("allOf", "anyOf", "oneOf")
_MOST_PARTS = 200


def spelled(value: Any, schema: Schema) -> str:
    """`value` as JSON text. Fields that `schema` does not name stand behind those it names, in the order they had."""
    text = json.dumps(_ordered(value, [schema], schema), ensure_ascii=False)
    return text.replace("\x7f", "\\u007f")  # llguidance takes DEL for a control character


def _ordered(value: Any, schemas: list[Schema], root: Schema) -> Any:
    """`value` under all of `schemas` at once; a schema that joins others counts as all of its parts."""
    if not isinstance(value, dict | list):
        return value
    parts = list(_parts(schemas, root))
    if isinstance(value, list):
        return [_ordered(item, _item_schemas(parts, place), root) for place, item in enumerate(value)]
    places = {name: place for place, name in enumerate(dict.fromkeys(name for p in parts for name in _fields(p)))}
    names = sorted(value, key=lambda name: places.get(name, len(places)))
    return {name: _ordered(value[name], _field_schemas(parts, name), root) for name in names}


def _parts(schemas: list[Schema], root: Schema) -> Iterator[Schema]:
    """`schemas`, what they refer to, and what they are joined of; each once, so that circles end."""
    waiting, seen = list(schemas), set[int]()
    while waiting and len(seen) < _MOST_PARTS:
        schema = waiting.pop(0)
        if not isinstance(schema, Mapping) or id(schema) in seen:
            continue
        seen.add(id(schema))
        yield schema
        waiting += [part for word in _JOINING for part in schema.get(word) or ()]
        if isinstance(reference := schema.get("$ref"), str):
            waiting.append(_referred(reference, root))


def _referred(reference: str, root: Any) -> Any:
    """What a reference within the schema points at (RFC 6901), or an empty schema."""
    found = root
    for step in reference.removeprefix("#").split("/")[1:] if reference.startswith("#") else ["?"]:
        key = step.replace("~1", "/").replace("~0", "~")
        found = found.get(key, {}) if isinstance(found, Mapping) else {}
    return found


def _fields(schema: Schema) -> Mapping[str, Any]:
    fields = schema.get("properties")
    return fields if isinstance(fields, Mapping) else {}


def _field_schemas(parts: list[Schema], name: str) -> list[Schema]:
    known = [_fields(part)[name] for part in parts if name in _fields(part)]
    return known or [part["additionalProperties"] for part in parts if "additionalProperties" in part]


def _item_schemas(parts: list[Schema], place: int) -> list[Schema]:
    found = []
    for part in parts:
        first = part.get("prefixItems") or ()
        found += [first[place]] if place < len(first) else [part["items"]] if "items" in part else []
    return found
