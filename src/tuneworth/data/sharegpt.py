"""Conversations in ShareGPT's shape, with the calls of the glaive data sets: from, value, and JSON in texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson

from tuneworth.data.conversations import Note
from tuneworth.data.example import Message, ToolCall
from tuneworth.data.jsonrows import json_text, type_name

SPEAKERS = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "bing": "assistant", "bard": "assistant", "system": "system", "function_call": "call", "observation": "tool",
    "function_response": "tool", "tool": "tool",
}  # fmt: skip
_KEYS = {"from", "value", "weight"}


def call_id(place: int) -> str:
    """The id of the call at `place` (from 1) in a row: ShareGPT's calls have none of their own."""
    return f"call_{place}"


def read_sharegpt(cells: Mapping[str, Any], note: Note) -> tuple[tuple[Message, ...], str, frozenset[str]] | None:
    """(messages, JSON text of the tools, their names), or None when the row is wrong."""
    before = note.tally.errors
    listed = cells.get("conversations")
    if not isinstance(listed, list | tuple) or not listed:
        found = "an empty list" if isinstance(listed, list | tuple) else type_name(listed)
        note("messages", f"'conversations' is {found}; a list of messages is needed")
        return None
    messages: list[Message] = []
    system = cells.get("system")
    if isinstance(system, str) and system.strip():
        messages.append(Message("system", system))
    waiting: list[str] = []
    calls = 0
    for number, item in enumerate(listed, 1):
        speaker, value = _item(number, item, note)
        if speaker == "call":
            made = _calls(number, value, calls, note)
            calls += len(made)
            waiting = [call.id for call in made]
            messages.append(Message("assistant", "", made))
        elif speaker == "tool":
            if not waiting:
                note("tool-message", "an observation that answers no function call", number)
            messages.append(Message("tool", value, call_id=waiting.pop(0) if waiting else ""))
        else:
            if not value.strip() and speaker:
                note("content-blank", "'value' is empty", number)
            weight = item.get("weight") if isinstance(item, Mapping) else None
            messages.append(Message(speaker, value, weight=weight))
    tools, names = _tools(cells.get("tools"), note)
    return (tuple(messages), tools, names) if note.tally.errors == before else None


def _item(number: int, item: Any, note: Note) -> tuple[str, str]:
    if not isinstance(item, Mapping):
        note("message-not-object", f"it is {type_name(item)}; an object with 'from' and 'value' is needed", number)
        return "", ""
    speaker, value = item.get("from"), item.get("value")
    role = SPEAKERS.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        found = "is missing" if "from" not in item else f"is {str(speaker)[:60]!r}"
        note("role", f"'from' {found}; it is one of {', '.join(SPEAKERS)}", number)
    for key in item.keys() - _KEYS:
        if item[key] is not None:
            note("unknown-key", f"unknown key '{str(key)[:60]}'", number, "remove it")
    weight = item.get("weight")
    if weight is not None and (type(weight) is not int or weight not in (0, 1) or role != "assistant"):
        note("weight", "'weight' is 0 or 1, and for what gpt says only", number)
    if not isinstance(value, str):
        found = "missing" if "value" not in item else type_name(value)
        note("content", f"'value' is {found}; a text is needed", number)
        value = ""
    return role or "", value


def _calls(number: int, value: str, before: int, note: Note) -> tuple[ToolCall, ...]:
    try:
        found = orjson.loads(value)
    except ValueError:
        note("tool-calls", "the value of a function call is not valid JSON", number)
        return ()
    listed = found if isinstance(found, list) else [found]
    calls = []
    for place, call in enumerate(listed, before + 1):
        name = call.get("name") if isinstance(call, dict) else None
        arguments = call.get("arguments") if isinstance(call, dict) else None
        if isinstance(arguments, dict):
            arguments = arguments_text(arguments)
        if not isinstance(name, str) or not isinstance(arguments, str):
            note("tool-calls", "a function call is no object with 'name' and 'arguments'", number)
            continue
        calls.append(ToolCall(call_id(place), name, arguments))
    return tuple(calls)


def arguments_text(arguments: Mapping[str, Any]) -> str:
    """Arguments as JSON text, as json.dumps writes it but with characters as they are."""
    return json.dumps(arguments, ensure_ascii=False)


def _tools(given: Any, note: Note) -> tuple[str, frozenset[str]]:
    if given is None or given == "":
        return "", frozenset()
    try:
        listed = orjson.loads(given) if isinstance(given, str) else given
    except ValueError:
        note("tools", "'tools' is no valid JSON text")
        return "", frozenset()
    if not isinstance(listed, list):
        note("tools", f"'tools' holds {type_name(listed)}; a list of tool definitions is needed")
        return "", frozenset()
    tools = [tool if _is_wrapped(tool) else {"type": "function", "function": tool} for tool in listed]
    names = [tool["function"].get("name") for tool in tools if isinstance(tool["function"], dict)]
    if len(names) < len(tools) or not all(isinstance(name, str) and name for name in names):
        note("tool-definition", "a tool is no object with a 'name'")
    if len(set(map(str, names))) < len(names):
        note("tool-definition", "a tool name stands twice")
    return (json_text(tools) if tools else ""), frozenset(map(str, names))


def _is_wrapped(tool: Any) -> bool:
    return isinstance(tool, dict) and tool.get("type") == "function" and isinstance(tool.get("function"), dict)
