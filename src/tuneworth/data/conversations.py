"""Rows in OpenAI's chat shape: {"messages": [{"role": ..., "content": ...}, ...], "tools": [...]}, checked strictly.

The rules: the last message is the assistant's and is what is learnt. A system (or developer) message comes first;
elsewhere it is noted, as are an assistant who speaks first and a role twice in a row, because some chat templates
refuse them. Contents are text or lists of text parts. Each tool call has an id of its own, names a tool of the row,
and its arguments are the JSON text of an object; each tool message answers a call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from tuneworth.data.example import Message, ToolCall
from tuneworth.data.jsonrows import type_name
from tuneworth.data.problems import Tally

ROLES = ("system", "developer", "user", "assistant", "tool")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PLAIN = {"role", "content"}
_KEYS = _PLAIN | {"name", "weight", "tool_calls", "tool_call_id"}
_UNSUPPORTED = {"audio": "audio", "refusal": "refusals"}
_FUNCTIONS = "write functions as tools, and function_call as tool_calls"


@dataclass(slots=True)
class Note:
    """Where what is wrong with one row is noted."""

    tally: Tally
    line: int
    prefix: str = ""
    """What is put before a message's number, as the name of the list that holds it."""

    def __call__(self, code: str, what: str, message: int | None = None, cure: str = "") -> None:
        here = self.prefix if message is None else f"{self.prefix}message {message}: "
        self.tally.add(self.line, code, here + what, message=message, cure=cure)


def read_messages(listed: Any, note: Note, name: str = "messages") -> tuple[Message, ...] | None:
    """The messages of a list, or None when one of them is wrong; `note` is told what."""
    before = note.tally.errors
    if not isinstance(listed, list | tuple) or not listed:
        found = "an empty list" if isinstance(listed, list | tuple) else type_name(listed)
        note("messages", f"'{name}' is {found}; a list of messages is needed")
        return None
    messages = tuple(_message(number, item, note) for number, item in enumerate(listed, 1))
    return messages if note.tally.errors == before else None


def _message(number: int, item: Any, note: Note) -> Message:
    if type(item) is dict and item.keys() == _PLAIN:
        role, content = item["role"], item["content"]
        if type(content) is str and type(role) is str and role in ("user", "assistant", "system"):
            if not content or content.isspace():
                note("content-blank", "'content' is empty", number)
            return Message(role, content)
    if not isinstance(item, Mapping):
        found = type_name(item)
        what = f"message {number} is {found}; an object with 'role' and 'content' is needed"
        note.tally.add(note.line, "message-not-object", note.prefix + what, message=number)
        return Message("", "")
    role = item.get("role")
    if role == "function":
        note("functions", "messages of role 'function' are not read", number, _FUNCTIONS)
    elif not isinstance(role, str) or role not in ROLES:
        found = "is missing" if "role" not in item else f"is {_shown(role)}"
        note("role", f"'role' {found}; it is one of {', '.join(ROLES)}", number)
        role = ""
    _check_keys(number, item, note)
    calls = _calls(number, item, str(role), note)
    return Message(
        # A developer message is a system message by its newer name; chat templates know the older one.
        role="system" if role == "developer" else str(role),
        content=_content(number, item, note),
        calls=calls,
        call_id=_call_id(number, item, str(role), note),
        weight=_weight(number, item, str(role), note),
        name=_name(number, item, note),
    )


def _check_keys(number: int, item: Mapping[str, Any], note: Note) -> None:
    for key in item.keys() - _KEYS:
        if key == "function_call":
            if item[key] is not None:
                note("functions", "'function_call' is not read", number, _FUNCTIONS)
        elif key not in _UNSUPPORTED:
            note("unknown-key", f"unknown key '{_short(str(key))}'", number, "remove it")
        elif item[key]:
            note("unsupported", f"{_UNSUPPORTED[key]} are not read", number)


def _content(number: int, item: Mapping[str, Any], note: Note) -> str:
    content = item.get("content")
    has_calls = item.get("tool_calls") is not None or item.get("function_call") is not None
    if content is None and has_calls:
        return ""
    if isinstance(content, str):
        text = content
    elif isinstance(content, list | tuple) and content:
        texts = [_part_text(part) for part in content]
        if None in texts:
            kinds = {str(part.get("type")) if isinstance(part, Mapping) else type_name(part) for part in content}
            found = ", ".join(sorted(kinds))
            note("content-part", f"content parts are of type {_short(found)}; only text parts are read", number)
            return ""
        text = "".join(map(str, texts))
    else:
        found = "missing" if "content" not in item else type_name(content)
        note("content", f"'content' is {found}; a text is needed", number)
        return ""
    if not text.strip() and not has_calls and item.get("role") != "tool":
        note("content-blank", "'content' is empty", number)
    return text


def _part_text(part: Any) -> str | None:
    if not isinstance(part, Mapping) or part.get("type") != "text":
        return None
    text = part.get("text")
    return text if isinstance(text, str) else None


def _weight(number: int, item: Mapping[str, Any], role: str, note: Note) -> int | None:
    weight = item.get("weight")
    if weight is None:
        return None
    if type(weight) is not int or weight not in (0, 1):
        note("weight", f"'weight' is {_shown(weight)}; it is 0 or 1", number)
    elif role != "assistant":
        note("weight", "'weight' is for assistant messages only", number, "remove it")
    else:
        return weight
    return None


def _name(number: int, item: Mapping[str, Any], note: Note) -> str | None:
    name = item.get("name")
    if name is None:
        return None
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    note("name", f"'name' is {_shown(name)}; it has 1 to 64 letters, digits, _ or -", number)
    return None


def _call_id(number: int, item: Mapping[str, Any], role: str, note: Note) -> str | None:
    found = item.get("tool_call_id")
    if role == "tool":
        if isinstance(found, str) and found:
            return found
        note("tool-message", "'tool_call_id' is missing; it names the call that is answered", number)
    elif found is not None:
        note("tool-message", "'tool_call_id' is for tool messages only", number, "remove it")
    return None


def _calls(number: int, item: Mapping[str, Any], role: str, note: Note) -> tuple[ToolCall, ...]:
    listed = item.get("tool_calls")
    if listed is None:
        return ()
    if role != "assistant":
        note("tool-calls", "'tool_calls' are for assistant messages only", number, "remove them")
        return ()
    if not isinstance(listed, list | tuple) or not listed:
        found = "an empty list" if isinstance(listed, list | tuple) else type_name(listed)
        note("tool-calls", f"'tool_calls' is {found}; a list of calls is needed", number)
        return ()
    return tuple(_call(number, place, call, note) for place, call in enumerate(listed, 1))


def _call(number: int, place: int, call: Any, note: Note) -> ToolCall:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping) or call.get("type", "function") != "function":
        cure = 'write {"id": "...", "type": "function", "function": {"name": "...", "arguments": "{...}"}}'
        note("tool-calls", f"tool call {place} is no call of a function", number, cure)
        return ToolCall("", "", "")
    id_, name, arguments = call.get("id"), function.get("name"), function.get("arguments")
    if not isinstance(id_, str) or not id_:
        note("tool-call-id", f"tool call {place} has no 'id'", number)
    if not isinstance(name, str) or not name:
        note("tool-calls", f"tool call {place} has no function 'name'", number)
    if not isinstance(arguments, str):
        found = "missing" if "arguments" not in function else type_name(arguments)
        cure = "write the arguments as the text of a JSON object"
        note("tool-arguments", f"the 'arguments' of tool call {place} are {found}; a text is needed", number, cure)
    elif not _is_object(arguments):
        what = f"the 'arguments' of tool call {place} are not the JSON text of an object: {_shown(arguments)}"
        note("tool-arguments", what, number)
    return ToolCall(str(id_), str(name), str(arguments))


def _is_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except ValueError:
        return False


def check_order(messages: Sequence[Message], note: Note) -> None:
    """Who speaks when, and which weights there are: see the rules above."""
    before = ""
    learnt = assistants = users = 0
    for number, message in enumerate(messages, 1):
        role = message.role
        if role == "assistant":
            assistants += 1
            learnt += message.weight != 0
            if before in ("", "system") and not users:
                note("assistant-first", "the assistant speaks before the user", number)
        elif role == "user":
            users += 1
        elif role == "system" and number > 1:
            note("system-not-first", "a system message after the first message", number)
        if role == before and role in ("user", "assistant"):
            note("role-repeated", f"the second message of the {role} in a row", number)
        before = role
    if not assistants:
        note("no-assistant-message", "no message is the assistant's, so there is nothing to learn")
    elif before != "assistant":
        note("last-not-assistant", f"the last message is the {before}'s; it must be the assistant's answer")
    elif not learnt:
        note("weight-all-zero", "every assistant message has weight 0, so the row teaches nothing")
    if not users:
        note("no-user-message", "there is no user message")


def read_tools(cells: Mapping[str, Any], note: Note) -> tuple[str, frozenset[str]]:
    """(JSON text of the row's tools, their names)."""
    if cells.get("functions"):
        both = "both 'tools' and 'functions' are given" if cells.get("tools") else "'functions' is given"
        note("functions", both, cure=_FUNCTIONS)
    listed = cells.get("tools")
    if listed is None:
        return "", frozenset()
    if not isinstance(listed, list | tuple):
        found = type_name(listed)
        cure = "write the list itself instead of its JSON text" if isinstance(listed, str) else ""
        note("tools", f"'tools' is {found}; a list of tool definitions is needed", cure=cure)
        return "", frozenset()
    names: set[str] = set()
    for place, tool in enumerate(listed, 1):
        function = tool.get("function") if isinstance(tool, Mapping) and tool.get("type") == "function" else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(name, str) or not name:
            cure = 'write {"type": "function", "function": {"name": "...", "parameters": {...}}}'
            note("tool-definition", f"tool {place} is no definition of a function", cure=cure)
            continue
        if not isinstance(function.get("parameters", {}), Mapping | None):
            note("tool-definition", f"the 'parameters' of tool {place} are no object (a JSON Schema)")
        if name in names:
            note("tool-definition", f"the tool name '{_short(name)}' stands twice")
        names.add(name)
    return (orjson.dumps(listed).decode() if listed else ""), frozenset(names)


def check_calls(messages: Sequence[Message], names: frozenset[str], parallel: bool | None, note: Note) -> None:
    """That each call is of a known tool and has an id of its own, and each tool message answers one."""
    seen: set[str] = set()
    open_: dict[str, int] = {}
    for number, message in enumerate(messages, 1):
        if message.role == "tool":
            if message.call_id is not None and open_.pop(message.call_id, None) is None:
                what = f"'tool_call_id' is '{_short(message.call_id)}', which no unanswered call before it has"
                note("tool-message", what, number)
            continue
        for id_, asked in open_.items():
            note("tool-call-unanswered", f"the call '{_short(id_)}' has no tool message", asked)
        open_ = {}
        if parallel is False and len(message.calls) > 1:
            note("parallel-calls", f"{len(message.calls)} calls at once, but parallel_tool_calls is false", number)
        for call in message.calls:
            if call.id in seen:
                note("tool-call-id", f"the id '{_short(call.id)}' is used twice", number)
            seen.add(call.id)
            open_[call.id] = number
            if call.name not in names:
                known = f"they are {', '.join(sorted(names))}" if names else "the row has no 'tools'"
                note("tool-name", f"'{_short(call.name)}' is none of the row's tools", number, _short(known, 200))


def check_metadata(cells: Mapping[str, Any], note: Note) -> None:
    """OpenAI's limits: 16 pairs of texts, keys of 64 and values of 512 characters."""
    metadata = cells.get("metadata")
    if not isinstance(metadata, Mapping):
        return
    long = any(len(str(key)) > 64 or len(str(value)) > 512 for key, value in metadata.items())
    if len(metadata) > 16 or long:
        note("metadata", "'metadata' has more than 16 keys, or a key over 64 or a value over 512 characters")


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | bool) or value is None else type_name(value)
    return _short(text)


def _short(text: str, longest: int = 60) -> str:
    return text if len(text) <= longest else text[:longest] + "..."
