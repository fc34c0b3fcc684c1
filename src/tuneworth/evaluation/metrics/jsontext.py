"""JSON as a model writes it, read strictly."""

from __future__ import annotations

import json
import re
from typing import Any

_FENCE = re.compile(r"\A\s*```[A-Za-z0-9]*\s*\n(?P<inside>.*?)\n?\s*```\s*\Z", re.DOTALL)


class _Broken(ValueError):
    """The text is not JSON as the standard knows it."""


def parse_json(text: str) -> Any:
    """The value that `text` is, or None when it is no JSON (null is no answer either).

    A code fence around it is forgiven, as applications take it off too; words around it are not. NaN, Infinity and a
    key that stands twice are refused, since readers do not agree on them.
    """
    inside = _FENCE.match(text)
    try:
        return json.loads(inside["inside"] if inside else text, object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def plain_json(value: Any) -> str:
    """A value as compact JSON with sorted keys: equal values give equal texts."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Broken("a key stands twice")
    return found


def _refuse(name: str) -> Any:
    raise _Broken(f"{name} is no JSON")
