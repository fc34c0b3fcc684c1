"""Tools as text, for chat templates that know none, and calls read back from what a model wrote.

Our form is the one that Hermes and Qwen models are trained on: the tools stand as JSON lines in the system message, a
call is `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, a result comes back as a user message in
`<tool_response>`. It is plain text, no new tokens, and the same in training, evaluation and serving.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, Any]
_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_BLOCK = re.compile(rf"{_OPEN}(?P<inside>.*?)(?:{_CLOSE}|\Z)", re.DOTALL)
_INTRODUCTION = f"""You can call these tools:
<tools>
{{tools}}
</tools>
To call one, answer with
{_OPEN}
{{{{"name": "the tool", "arguments": {{{{"name of the argument": "its value"}}}}}}}}
{_CLOSE}
once for each call. When no tool is needed, answer in words."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call as a model wrote it."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CallsRead:
    """What stands in an answer: the calls, the words beside them, and what in it tries to be a call and is none."""

    calls: tuple[Call, ...]
    words: str
    broken: tuple[str, ...] = ()


def without_tools(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same conversation in plain messages: tools told in the system message, calls and results as text."""
    plain: list[dict[str, Any]] = []
    results: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            results.append(f"<tool_response>\n{message['content']}\n</tool_response>")
            continue
        if results:
            plain.append({"role": "user", "content": "\n".join(results)})
            results = []
        content = reply_text(message) if message.get("tool_calls") else message["content"]
        plain.append({"role": message["role"], "content": content})
    if results:
        plain.append({"role": "user", "content": "\n".join(results)})
    if tools:
        told = _INTRODUCTION.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))
        if plain and plain[0]["role"] == "system":
            plain[0] = {"role": "system", "content": f"{plain[0]['content']}\n\n{told}"}
        else:
            plain.insert(0, {"role": "system", "content": told})
    return plain


def reply_text(message: Message) -> str:
    """An assistant message in OpenAI's shape as text, its calls in our form."""
    calls = [
        f'{_OPEN}\n{{"name": {json.dumps(call["function"]["name"], ensure_ascii=False)}, '
        f'"arguments": {call["function"]["arguments"]}}}\n{_CLOSE}'
        for call in message.get("tool_calls") or ()
    ]
    words = str(message.get("content") or "")
    return "\n".join([*([words] if words else []), *calls])


def read_calls(text: str) -> CallsRead:
    """The calls in an answer, in our form or as bare JSON (an object, or a list of objects, with a name and arguments
    or parameters, as Llama and Mistral write them)."""
    blocks = list(_BLOCK.finditer(text))
    if blocks:
        parts = [part for block in blocks for part in _items(block["inside"])]
        words = _BLOCK.sub("", text).strip()
    else:
        bare = text.strip()
        looks = bare.startswith(("{", "[{")) and '"name"' in bare
        parts, words = (_items(bare), "") if looks else ([], bare)
    calls = tuple(part for part in parts if isinstance(part, Call))
    return CallsRead(calls, words, tuple(part for part in parts if isinstance(part, str)))


def _items(text: str) -> list[Call | str]:
    """The calls that a JSON text holds; what is none as it stands."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return [text.strip()]
    return [_call(item) or json.dumps(item) for item in (found if isinstance(found, list) else [found])]


def _call(item: Any) -> Call | None:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        return None
    arguments = item.get("arguments", item.get("parameters", {}))
    if isinstance(arguments, str):  # some models write the arguments as OpenAI's API does
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None
    return Call(item["name"], arguments) if isinstance(arguments, dict) else None
