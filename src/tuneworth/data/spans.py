"""Marked parts of texts (chunks with entities, or a tag for each token) become extraction: a text and its JSON.

The JSON is {"intent": ..., "slots": {name: value}}; a slot that occurs several times holds the list of its values,
and a row without an intent has slots only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from tuneworth.data.conversations import Note
from tuneworth.data.jsonrows import type_name

_TAG_NAMES = ("tags", "ner_tags", "labels", "slots")


def tags_column(cells: Mapping[str, Any]) -> str | None:
    """The column that holds a row's tags, beside "tokens"; None when there is none."""
    return next((name for name in _TAG_NAMES if isinstance(cells.get(name), list | tuple)), None)


def slots_of_chunks(cells: Mapping[str, Any], note: Note) -> tuple[str, str] | None:
    """(text, JSON) of {"data": [{"text": ..., "entity": ...}]}, or None when a chunk is wrong."""
    chunks = cells.get("data")
    if not isinstance(chunks, list | tuple):
        note("chunks", f"'data' is {type_name(chunks)}; a list of chunks is needed")
        return None
    found: list[tuple[str, str]] = []
    texts: list[str] = []
    for place, chunk in enumerate(chunks, 1):
        text = chunk.get("text") if isinstance(chunk, Mapping) else None
        entity = chunk.get("entity", chunk.get("slot_name")) if isinstance(chunk, Mapping) else None
        if not isinstance(text, str) or not isinstance(entity, str | None):
            note("chunks", f"chunk {place} is no object with a 'text' and perhaps an 'entity'")
            return None
        texts.append(text)
        if entity is not None:
            found.append((entity, text))
    return "".join(texts), _json(cells.get("intent"), found)


def slots_of_tags(cells: Mapping[str, Any], note: Note) -> tuple[str, str] | None:
    """(tokens joined by blanks, JSON) of tokens and their tags, or None when they do not fit together.

    Tags are O, and B-, I- (E-, L-, S-, U-) with the name of the slot; an I- without its B- begins a slot.
    """
    name = tags_column(cells) or "tags"
    tokens, tags = cells.get("tokens"), cells.get(name)
    if not isinstance(tokens, list | tuple) or not isinstance(tags, list | tuple) or len(tokens) != len(tags):
        sizes = f"{len(tokens)} tokens, {len(tags)} tags" if isinstance(tags, list) and tokens else "no lists"
        note("tags", f"'tokens' and '{name}' are not two lists of one length ({sizes})")
        return None
    if not all(isinstance(part, str) for part in (*tokens, *tags)):
        cure = "write the tags by name, as in B-city" if all(isinstance(tag, int) for tag in tags) else ""
        note("tags", f"'tokens' and '{name}' hold something else than texts", cure=cure)
        return None
    return " ".join(tokens), _json(cells.get("intent"), _spans(tokens, tags))


def _spans(tokens: Sequence[str], tags: Sequence[str]) -> Iterable[tuple[str, str]]:
    name, words = "", list[str]()
    for token, tag in zip((*tokens, ""), (*tags, "O"), strict=True):
        mark, _, slot = tag.partition("-")
        begins = mark in ("B", "S", "U") or slot != name
        if words and (begins or mark == "O"):
            yield name, " ".join(words)
            name, words = "", []
        if slot and mark != "O":
            name, words = slot, [*words, token]
        if mark in ("E", "L", "S", "U") and words:
            yield name, " ".join(words)
            name, words = "", []


def _json(intent: Any, found: Iterable[tuple[str, str]]) -> str:
    slots: dict[str, Any] = {}
    for name, value in found:
        if name not in slots:
            slots[name] = value
        elif isinstance(slots[name], list):
            slots[name].append(value)
        else:
            slots[name] = [slots[name], value]
    row = {"intent": intent, "slots": slots} if isinstance(intent, str) else {"slots": slots}
    return orjson.dumps(row).decode()
