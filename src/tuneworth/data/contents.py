"""What a row says, whatever its shape: the conversation, the wanted answer, tools, and a rejected answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from typing import Any

from tuneworth.data.conversations import (
    Note,
    check_calls,
    check_metadata,
    check_order,
    read_messages,
    read_tools,
)  # fmt: skip
from tuneworth.data.example import Message
from tuneworth.data.jsonrows import json_text, type_name
from tuneworth.data.sharegpt import read_sharegpt
from tuneworth.data.spans import slots_of_chunks, slots_of_tags
from tuneworth.task import Columns


@dataclass(slots=True)
class Content:
    """A row's content. `left_out` is the code of the reason for which the row is not used."""

    messages: tuple[Message, ...]
    reply: Message
    tools: str = ""
    parallel: bool | None = None
    rejected: Message | None = None
    listed: tuple[str, ...] | None = None
    """The texts of an answer cell that holds a list: labels, or answers that are equally good."""
    group: str = ""
    left_out: str = ""

    @property
    def answer(self) -> str:
        """The text of the wanted answer."""
        return self.reply.content

    def flaw(self, kind: str) -> str:
        """The code of the reason for which the row cannot be used, or nothing. No label at all is an answer."""
        if self.left_out:
            return self.left_out
        if not any(message.content.strip() for message in self.messages if message.role == "user"):
            return "empty-input"
        if self.reply.content.strip() or self.reply.calls or (kind == "multilabel" and self.listed is not None):
            return ""
        return "empty-answer"


Reader = Callable[[Mapping[str, Any], Columns, Note], Content | None]


def read_chat(cells: Mapping[str, Any], columns: Columns, note: Note) -> Content | None:
    """{"messages": [...], "tools": [...], "parallel_tool_calls": true}: OpenAI's shape."""
    messages = read_messages(cells.get("messages"), note)
    tools, names = read_tools(cells, note)
    check_metadata(cells, note)
    if messages is None:
        return None
    check_order(messages, note)
    parallel = _parallel(cells, note)
    if tools or any(message.calls or message.role == "tool" for message in messages):
        check_calls(messages, names, parallel, note)
    return Content(messages[:-1], messages[-1], tools, parallel)


def _parallel(cells: Mapping[str, Any], note: Note) -> bool | None:
    parallel = cells.get("parallel_tool_calls")
    if parallel is not None and not isinstance(parallel, bool):
        note("tools", f"'parallel_tool_calls' is {type_name(parallel)}; it is true or false")
        return None
    return parallel


def read_conversations(cells: Mapping[str, Any], columns: Columns, note: Note) -> Content | None:
    """{"conversations": [{"from": "human", "value": ...}, ...], "tools": "JSON text"}: ShareGPT's shape."""
    found = read_sharegpt(cells, note)
    if found is None:
        return None
    messages, tools, names = found
    check_order(messages, note)
    if tools or any(message.calls or message.role == "tool" for message in messages):
        check_calls(messages, names, None, note)
    return Content(messages[:-1], messages[-1], tools)


def read_prompt(cells: Mapping[str, Any], columns: Columns, note: Note) -> Content | None:
    """{"prompt": ..., "completion": ...}; both may be lists of messages."""
    prompt = _prompt(cells, "prompt", note)
    reply = _answer(cells, "completion", prompt, note)
    return None if prompt is None or reply is None else Content(*_joined(prompt, reply))


def read_table(cells: Mapping[str, Any], columns: Columns, note: Note) -> Content | None:
    """An input column and an answer column."""
    assert columns.input is not None and columns.output is not None
    text, _ = text_or_list(cells, columns.input, note)
    answer, listed = text_or_list(cells, columns.output, note)
    return Content((Message("user", text),), Message("assistant", answer), listed=listed)


def read_alpaca(cells: Mapping[str, Any], columns: Columns, note: Note) -> Content | None:
    """{"instruction": ..., "input": ..., "output": ..., "system": ...}. Instruction and input become one message."""
    instruction, input_ = cell_text(cells, "instruction", note), cells.get("input")
    if isinstance(input_, str) and input_.strip():
        instruction = f"{instruction}\n\n{input_}"
    elif input_ is not None and not isinstance(input_, str):
        note("cell-type", f"'input' is {type_name(input_)}; a text is needed")
    if cells.get("history"):
        note("unsupported", "'history' is not read", cure="write the row as messages")
    system = cells.get("system")
    opening = (Message("system", system),) if isinstance(system, str) and system.strip() else ()
    answer, listed = text_or_list(cells, columns.output or "output", note)
    return Content((*opening, Message("user", instruction)), Message("assistant", answer), listed=listed)


def read_preference(cells: Mapping[str, Any], columns: Columns, note: Note) -> Content | None:
    """{"input": {"messages": [...], "tools": [...]}, "preferred_output": [one message], "non_preferred_output": ...}:
    OpenAI's shape; `preferred_completion` and `non_preferred_completion` are the same under their other names."""
    given = cells.get("input")
    messages: tuple[Message, ...] | None = None
    tools, names, parallel = "", frozenset[str](), None
    if isinstance(given, Mapping):
        messages = read_messages(given.get("messages"), note, "input.messages")
        tools, names = read_tools(given, note)
        parallel = _parallel(given, note)
        if messages and messages[-1].role == "assistant":
            note("preference-input", "the input ends with a message of the assistant", len(messages))
    else:
        found = "missing" if "input" not in cells else type_name(given)
        note("preference-input", f"'input' is {found}; an object with 'messages' is needed")
    replies = []
    for name in ("preferred", "non_preferred"):
        key = f"{name}_output" if f"{name}_output" in cells else f"{name}_completion"
        replies.append(_one_reply(cells.get(key), key, note))
    better, worse = replies
    if not messages or better is None or worse is None:
        return None
    for reply in (better, worse):
        check_calls((*messages, reply), names, parallel, note)
    return _pair(messages, better, worse, note, tools, parallel)


def _one_reply(listed: Any, key: str, note: Note) -> Message | None:
    if isinstance(listed, list | tuple) and len(listed) == 1:
        found = read_messages(listed, Note(note.tally, note.line, f"'{key}', "), key)
        if found is None or found[0].role == "assistant":
            return found[0] if found else None
        what = f"the message of '{key}' is of role '{found[0].role}'; it must be the assistant's"
        note("preference-answer", what)
        return None
    shown = f"a list of {len(listed)}" if isinstance(listed, list | tuple) else type_name(listed)
    note("preference-answer", f"'{key}' is {shown}; a list of one assistant message is needed")
    return None


def read_pair(cells: Mapping[str, Any], columns: Columns, note: Note) -> Content | None:
    """{"prompt": ..., "chosen": ..., "rejected": ...}, texts or lists of messages; without a prompt both answers are
    conversations that differ in their last message."""
    named = columns.input or "prompt", columns.output or "chosen", columns.rejected or "rejected"
    prompt = _prompt(cells, named[0], note) if cells.get(named[0]) is not None else ()
    better = _answer(cells, named[1], prompt, note)
    worse = _answer(cells, named[2], prompt, note)
    if prompt is None or better is None or worse is None:
        return None
    messages, reply = _joined(prompt, better)
    others, rejected = _joined(prompt, worse)
    if messages != others:
        note("preference-answer", "the two answers follow different messages")
        return None
    if not messages:
        note("preference-input", f"there is no '{named[0]}'")
        return None
    return _pair(messages, reply, rejected, note)


def _pair(
    messages: tuple[Message, ...], better: Message, worse: Message, note: Note, tools: str = "",
    parallel: bool | None = None,
) -> Content:  # fmt: skip
    if (better.content, better.calls) == (worse.content, worse.calls):
        note("preference-identical", "the preferred and the rejected answer are the same")
    return Content(messages, better, tools, parallel, rejected=worse)


def read_comparison(cells: Mapping[str, Any], columns: Columns, note: Note) -> Content | None:
    """{"instruction", "input", "response1", "response2", "annotator1": 0 | 1 | 2, ...}: the majority of the
    annotators says which response is better; rows without a majority are left out. Rows of one instruction are a
    group."""
    asked = read_alpaca({**cells, "output": ""}, Columns(), note)
    votes = [vote for name, vote in cells.items() if name.startswith("annotator")]
    first, second = cell_text(cells, "response1", note), cell_text(cells, "response2", note)
    if asked is None:
        return None
    if any(vote not in (0, 1, 2) for vote in votes):
        note("cell-type", "an annotator says something else than 0 (tie), 1 or 2")
        return None
    ones, twos = votes.count(1), votes.count(2)
    group = cell_text(cells, "instruction", note)
    better, worse = (first, second) if ones > twos else (second, first)
    found = _pair(asked.messages, Message("assistant", better), Message("assistant", worse), note)
    found.group = group
    if max(ones, twos) <= len(votes) / 2:
        note("preference-tie", "most annotators see a tie, or each says something else")
        found.left_out = "preference-tie"
    return found


def read_chunks(cells: Mapping[str, Any], columns: Columns, note: Note) -> Content | None:
    """{"data": [{"text": ..., "entity": ...}, ...], "intent": ...}: chunks of a text, some named (Snips)."""
    found = slots_of_chunks(cells, note)
    return None if found is None else Content((Message("user", found[0]),), Message("assistant", found[1]))


def read_tags(cells: Mapping[str, Any], columns: Columns, note: Note) -> Content | None:
    """{"tokens": [...], "tags": ["B-name", "O", ...], "intent": ...}."""
    found = slots_of_tags(cells, note)
    return None if found is None else Content((Message("user", found[0]),), Message("assistant", found[1]))


def _prompt(cells: Mapping[str, Any], name: str, note: Note) -> tuple[Message, ...] | None:
    if isinstance(cells.get(name), list | tuple):
        return read_messages(cells[name], note, name)
    return (Message("user", cell_text(cells, name, note)),)


def _answer(
    cells: Mapping[str, Any], name: str, prompt: tuple[Message, ...] | None, note: Note
) -> tuple[Message, ...] | None:
    """The messages of an answer: a text, or a list whose last message is the assistant's."""
    if not isinstance(cells.get(name), list | tuple):
        return (Message("assistant", cell_text(cells, name, note)),)
    messages = read_messages(cells[name], note, name)
    if messages and messages[-1].role != "assistant":
        note("last-not-assistant", f"the last message of '{name}' is not the assistant's", len(messages))
        return None
    return messages


def _joined(prompt: tuple[Message, ...], reply: tuple[Message, ...]) -> tuple[tuple[Message, ...], Message]:
    """Prompt and answer as one conversation; an answer that begins with the whole prompt holds it already."""
    if len(reply) > 1 and reply[: len(prompt)] == prompt:
        return reply[:-1], reply[-1]
    return (*prompt, *reply[:-1]), reply[-1]


def cell_text(cells: Mapping[str, Any], name: str, note: Note) -> str:
    """The text of one cell; numbers and dates as they are written, nothing for a missing value."""
    value = cells.get(name)
    if isinstance(value, str):
        return value
    if value is None:
        if name not in cells:
            note("cell-missing", f"the row has no '{name}'")
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return ""  # how data frames write a missing value
    if isinstance(value, float) and abs(value) >= 2**63:
        # An integer of more digits was rounded when the line was parsed.
        note("number-too-large", f"'{name}' is a number too large to be read exactly", cure="write it as a text")
        return ""
    if isinstance(value, int | float | Decimal | date | time):
        return str(value)
    note("cell-type", f"'{name}' is {type_name(value)}; a text is needed")
    return ""


def text_or_list(cells: Mapping[str, Any], name: str, note: Note) -> tuple[str, tuple[str, ...] | None]:
    """(text, None) of a cell; of a list of texts the texts joined by blanks, and the texts; of an object its JSON."""
    value = cells.get(name)
    if isinstance(value, Mapping):
        return json_text(value), None
    if isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(item, str) for item in value):
        return " ".join(value), tuple(value)
    return cell_text(cells, name, note), None
