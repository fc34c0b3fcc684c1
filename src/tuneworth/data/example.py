"""The typed records that the data stage hands on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant makes. `arguments` is JSON text, exactly as the model has to write it."""

    id: str
    name: str
    arguments: str

    def to_openai(self) -> dict[str, Any]:
        """The call as an item of "tool_calls"."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation. `role` is system, user, assistant or tool.

    `calls` are the assistant's; `call_id` names the call that a tool message answers. `weight` is 0 for an
    assistant message that must not be learnt, 1 for one that must, None where the data does not say.
    """

    role: str
    content: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None
    weight: int | None = None
    name: str | None = None

    def to_openai(self) -> dict[str, Any]:
        """The message in OpenAI's shape; null content only beside tool calls."""
        shown: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.calls:
            shown["content"] = self.content or None
            shown["tool_calls"] = [call.to_openai() for call in self.calls]
        for key, value in (("tool_call_id", self.call_id), ("weight", self.weight), ("name", self.name)):
            if value is not None:
                shown[key] = value
        return shown


@dataclass(frozen=True, slots=True)
class Example:
    """One row: the conversation up to the answer, the wanted answer, and where the row came from.

    `id` is unique in its data set and survives to the report; `line` counts from 1 as an editor shows it. The answer
    is the last assistant message: its text is `answer` (a JSON text for extraction, a JSON array of labels for
    multilabel), its tool calls are `calls`, its weight `weight`. `tools` is the JSON text of a list of tool
    definitions in OpenAI's shape, empty when there are none. `rejected` is the worse answer of a preference pair.
    `references` are further answers that are as good as `answer`.
    """

    id: str
    messages: tuple[Message, ...]
    answer: str
    file: str
    line: int
    group: str | None = None
    time: str | None = None
    calls: tuple[ToolCall, ...] = ()
    weight: int | None = None
    tools: str = ""
    parallel_tool_calls: bool | None = None
    rejected: Message | None = None
    references: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The last user message: what a classifier reads."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def reply(self) -> Message:
        """The wanted answer as a message."""
        return Message("assistant", self.answer, self.calls, weight=self.weight)

    @property
    def conversation(self) -> tuple[Message, ...]:
        """All messages, the wanted answer last."""
        return (*self.messages, self.reply)

    @property
    def tool_definitions(self) -> list[dict[str, Any]]:
        """The tools as objects, in OpenAI's shape."""
        return list(orjson.loads(self.tools)) if self.tools else []

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of a multilabel example."""
        return tuple(orjson.loads(self.answer))

    def to_json(self) -> dict[str, Any]:
        """A JSON object without what is at its default; `Example.from_json` is its inverse."""
        row = _lean(self)
        row["messages"] = [_message_json(message) for message in self.messages]
        if self.calls:
            row["calls"] = [_lean(call) for call in self.calls]
        if self.rejected is not None:
            row["rejected"] = _message_json(self.rejected)
        if self.references:
            row["references"] = list(self.references)
        return row

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Example:
        """The inverse of `to_json`."""
        found = {**row, "messages": tuple(_message(m) for m in row["messages"])}
        if "calls" in row:
            found["calls"] = tuple(ToolCall(**call) for call in row["calls"])
        if "references" in row:
            found["references"] = tuple(row["references"])
        if row.get("rejected") is not None:
            found["rejected"] = _message(row["rejected"])
        return cls(**found)


def _lean(record: Any) -> dict[str, Any]:
    """The fields of a record that are not at their default."""
    pairs = ((field, getattr(record, field.name)) for field in fields(record))
    return {field.name: value for field, value in pairs if value != field.default}


def _message_json(message: Message) -> dict[str, Any]:
    row = _lean(message)
    if message.calls:
        row["calls"] = [_lean(call) for call in message.calls]
    return row


def _message(row: dict[str, Any]) -> Message:
    calls = tuple(ToolCall(**call) for call in row.get("calls", ()))
    return Message(**{**row, "calls": calls})


def content_id(*parts: str) -> str:
    """A short stable id of some texts (first 12 hex digits of SHA-256)."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:12]
