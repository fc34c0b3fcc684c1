"""Rows in OpenAI's chat shape: {"messages": [{"role": ..., "content": ...}, ...]}, the last answer is wanted.

The rules: a system (or developer) message may only come first; at least one user message; the last message is
the assistant's and is what is learnt; in between, users and assistants may follow each other in any order.
Contents are text or lists of text parts. Tools, images and audio are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneworth.data.example import Message
from tuneworth.data.jsonrows import type_name

_ROLES = ("system", "developer", "user", "assistant")
_KEYS = {"role", "content", "name", "weight"}
_UNSUPPORTED = {
    "tool_calls": "tool calls",
    "function_call": "function calls",
    "audio": "audio",
    "refusal": "refusals",
}


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation up to the wanted answer, or in `wrong` what is the matter with it."""

    messages: tuple[Message, ...] = ()
    answer: str = ""
    wrong: tuple[str, ...] = ()


def read_conversation(cells: Mapping[str, Any]) -> Conversation:
    """The conversation in the "messages" cell of a row."""
    listed = cells.get("messages")
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        found = "an empty list" if isinstance(listed, Sequence) and not listed else type_name(listed)
        return Conversation(wrong=(f"'messages' is {found}; a list of messages is needed",))
    unread = [key for key in ("tools", "functions") if cells.get(key)]
    wrong = [f"'{key}' is given, but rows with tools are not read" for key in unread]
    messages = [_message(number, item, wrong) for number, item in enumerate(listed, 1)]
    if not wrong:
        _check_order(messages, wrong)
    if not wrong and listed[-1].get("weight") == 0:
        wrong.append(f"message {len(listed)}: the last answer has weight 0, so the row teaches nothing")
    if wrong:
        return Conversation(wrong=tuple(wrong))
    return Conversation(tuple(messages[:-1]), messages[-1].content)


def _message(number: int, item: Any, wrong: list[str]) -> Message:
    here = f"message {number}"
    if not isinstance(item, Mapping):
        wrong.append(f"{here} is {type_name(item)}; an object with 'role' and 'content' is needed")
        return Message("", "")
    role = item.get("role")
    if role in ("tool", "function"):
        wrong.append(f"{here}: messages of role '{role}' are not read")
    elif role not in _ROLES:
        found = "is missing" if "role" not in item else f"is {role!r}"
        wrong.append(f"{here}: 'role' {found}; it is one of {', '.join(_ROLES)}")
    for key in item.keys() - _KEYS:
        if key not in _UNSUPPORTED:
            wrong.append(f"{here}: unknown key '{key}'")
        elif item[key]:
            wrong.append(f"{here}: {_UNSUPPORTED[key]} are not read")
    _check_weight(here, item, wrong)
    # A system message by its newer name; chat templates know the older one.
    return Message("system" if role == "developer" else str(role), _content(here, item, wrong))


def _content(here: str, item: Mapping[str, Any], wrong: list[str]) -> str:
    content = item.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and content:
        texts = [_part_text(part) for part in content]
        if None not in texts:
            return "".join(map(str, texts))
        kinds = {str(part.get("type")) if isinstance(part, Mapping) else type_name(part) for part in content}
        found = ", ".join(sorted(kinds))
        wrong.append(f"{here}: content parts are of type {found}; only text parts are read")
    else:
        found = "missing" if "content" not in item else type_name(content)
        wrong.append(f"{here}: 'content' is {found}; a text is needed")
    return ""


def _part_text(part: Any) -> str | None:
    if not isinstance(part, Mapping) or part.get("type") != "text":
        return None
    text = part.get("text")
    return text if isinstance(text, str) else None


def _check_weight(here: str, item: Mapping[str, Any], wrong: list[str]) -> None:
    weight = item.get("weight")
    if weight is None:
        return
    if isinstance(weight, bool) or weight not in (0, 1) or not isinstance(weight, int):
        wrong.append(f"{here}: 'weight' is {weight!r}; it is 0 or 1")
    elif item.get("role") != "assistant":
        wrong.append(f"{here}: 'weight' is for assistant messages only")


def _check_order(messages: Sequence[Message], wrong: list[str]) -> None:
    for number, message in enumerate(messages, 1):
        if message.role == "system" and number > 1:
            wrong.append(f"message {number}: a system message may only come first")
    if messages[-1].role != "assistant":
        wrong.append(f"the last message is the {messages[-1].role}'s; it must be the assistant's answer")
    elif not any(message.role == "user" for message in messages):
        wrong.append("there is no user message")
