"""The one renderer: messages become token ids and loss mask, for audit, training, evaluation and serving.

Three promises, each a test: the trained tokens are exactly the answer and its end token (LAW 1); the tokens before
them are the prompt that evaluation and serving send (LAW 2); text of users and data never becomes a control token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tuneworth.errors import InputError
from tuneworth.rendering.template import PLAIN_TEMPLATE, ChatTemplate
from tuneworth.rendering.tools import without_tools

Messages = Sequence[Mapping[str, Any]]
"""Messages in OpenAI's shape: role, content, and tool_calls of the assistant's; tool messages answer them."""

Tools = Sequence[Mapping[str, Any]]
"""Tool definitions in OpenAI's shape."""

_PRIVATE_USE = range(0xF0000, 0xFFFFE)


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids of a conversation and, for each, whether it is trained. Both have the same length."""

    ids: tuple[int, ...]
    trained: tuple[bool, ...]

    @property
    def prompt_tokens(self) -> int:
        """The number of tokens before the first trained one."""
        return self.trained.index(True)


class Renderer:
    """A tokenizer and its chat template. Reads `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja`."""

    def __init__(self, tokenizer: Tokenizer, template: str, special: Mapping[str, str]) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self.template = ChatTemplate(template, special)
        definition = json.loads(tokenizer.to_str())
        # Runs of blanks among the added tokens (GPT-NeoX, Gemma) are text: they control and end nothing.
        self._control_ids: dict[str, int] = {
            token["content"]: token["id"] for token in definition["added_tokens"] if token["content"].strip()
        }
        self._structural = tuple(self._control_ids)
        self._eats_left = {token["content"] for token in definition["added_tokens"] if token["lstrip"]}
        self._eats_right = {token["content"] for token in definition["added_tokens"] if token["rstrip"]}
        self._structure = re.compile("|".join(map(re.escape, sorted(self._structural, key=len, reverse=True))) or "$^")
        self._plain: Tokenizer = Tokenizer.from_str(json.dumps(definition | {"added_tokens": []}))
        self.end_id = self._find_end(special.get("eos_token"))
        """The token that ends an answer."""
        self.knows_tools = self._find_tools()
        """Whether the template renders tools and calls itself; otherwise they are told in plain text (tools.py)."""

    @classmethod
    def load(cls, folder: Path) -> Renderer:
        """The renderer of a model folder; a model without a template gets our plain one.

        Raises InputError when the tokenizer files are missing or damaged.
        """
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            path = folder / "tokenizer_config.json"
            config = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        except Exception as error:  # tokenizers raises plain Exception
            raise InputError(f"the tokenizer cannot be read: {error}", where=str(folder)) from None
        own = folder / "chat_template.jinja"
        template = own.read_text("utf-8") if own.is_file() else config.get("chat_template") or PLAIN_TEMPLATE
        if isinstance(template, list):  # several named templates
            template = next((t["template"] for t in template if t.get("name") == "default"), PLAIN_TEMPLATE)
        special = {
            name: value["content"] if isinstance(value, dict) else value
            for name, value in config.items()
            if name.endswith("_token") and isinstance(value, str | dict)
        }
        return cls(tokenizer, template, special)

    @property
    def control_strings(self) -> tuple[str, ...]:
        """What the tokenizer would read as control tokens if it stood in a template."""
        return self._structural

    @property
    def tokenizer_json(self) -> str:
        """The tokenizer as in tokenizer.json."""
        return self._tokenizer.to_str()

    def prompt(self, messages: Messages, tools: Tools = ()) -> list[int]:
        """Token ids up to where the assistant starts to write its answer."""
        hidden, told, unhide = self._hide(*self._told(messages, tools))
        return self._encode(self.template.render(hidden, generate=True, tools=told), unhide)

    def training(self, messages: Messages, tools: Tools = ()) -> Rendered:
        """Token ids of a conversation whose last message is the assistant's; that answer and its end are trained.

        The ids before the answer are those of `prompt(messages[:-1])`. Raises InputError when the last message is
        not the assistant's or the template writes no end token.
        """
        if not messages or messages[-1]["role"] != "assistant":
            raise InputError("the last message is not the assistant's: there is nothing to train")
        hidden, told, unhide = self._hide(*self._told(messages, tools))
        before = self.template.render(hidden[:-1], generate=True, tools=told)
        answer = self._answer_text(hidden, before, told)
        # What the answer holds must not change how the prompt is encoded, so the prompt is encoded without it.
        prompt_ids = self.prompt(messages[:-1], tools) if unhide else self._encode(before, {})
        ids = self._encode(before + answer, unhide)
        if ids[: len(prompt_ids)] != prompt_ids:
            # A merge across the border of prompt and answer: the served model never sees it, so neither may we.
            ids = prompt_ids + self._encode(answer, unhide)
        trained = len(ids) - len(prompt_ids)
        return Rendered(tuple(ids), (False,) * len(prompt_ids) + (True,) * trained)

    def conversation(self, messages: Messages, places: Sequence[int], tools: Tools = ()) -> list[Rendered]:
        """A conversation whose assistant messages at `places` (rising) are trained, each with its end.

        One row, where each trained answer stands behind the very tokens that it is served behind. A template that
        writes earlier turns otherwise than it wrote them (it drops their thinking, say) gives further rows, one for
        each beginning, so that no answer is trained behind a prompt that is never served.
        """
        if not places:
            raise InputError("no answer of the conversation is to be learnt (all have weight 0)")
        rows: list[Rendered] = []
        for place in places:
            row = self.training(messages[: place + 1], tools)
            if rows and row.ids[: len(rows[-1].ids)] == rows[-1].ids:
                rows[-1] = Rendered(row.ids, rows[-1].trained + row.trained[len(rows[-1].ids) :])
            else:
                rows.append(row)
        return rows

    def answer_ids(self, answer: str) -> list[int]:
        """The tokens that a model writes for `answer` (a label, say), without the end token."""
        rendered = self.training([{"role": "user", "content": "x"}, {"role": "assistant", "content": answer}])
        return list(rendered.ids[rendered.prompt_tokens : -1])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids without the control tokens."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def encode_text(self, text: str) -> list[int]:
        """Token ids of plain text; nothing in it becomes a control token."""
        return self._plain.encode(text, add_special_tokens=False).ids

    def text_lengths(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each of some plain texts is, on all cores."""
        return [len(encoding) for encoding in self._plain.encode_batch_fast(list(texts), add_special_tokens=False)]

    def _answer_text(self, messages: list[dict[str, Any]], before: str, tools: Tools = ()) -> str:
        """The answer as the template writes it, through its end token."""
        content = messages[-1]["content"]
        full = self.template.render(messages, generate=False, tools=tools)
        if messages[-1].get("tool_calls"):
            return self._calls_text(full, before)
        for written in (content, content.strip()):
            if full.startswith(before + written):
                tail = full[len(before) + len(written) :]
                break
        else:
            # The template writes the prompt otherwise once the answer is there (thinking blocks, for example).
            # What is served counts: the prompt as rendered, then the answer, then the template's own ending.
            mark = chr(_PRIVATE_USE.stop - 1)
            marked = self.template.render(
                [*messages[:-1], {**messages[-1], "content": mark}], generate=False, tools=tools
            )
            head, _, tail = marked.rpartition(mark)
            written = content if full.endswith(content + tail) else content.strip()
            space = head[len(head.rstrip()) :]
            if not before.endswith(space):  # Mistral's answers begin with a space that its prompts do not end with
                written = space + written
        end = self._structure.search(tail)
        if end is None:
            raise InputError(
                "the chat template writes no end token after the answer, so a model could not learn to stop",
                where="chat template",
            )
        return f"{written}{tail[: end.end()]}"

    def _calls_text(self, full: str, before: str) -> str:
        """The answer that holds calls, as a template that knows tools writes it, through its end token."""
        end = str(self._tokenizer.id_to_token(self.end_id))
        stop = full.find(end, len(before))
        if not full.startswith(before) or stop < 0:
            raise InputError(
                "the chat template writes tool calls otherwise than its prompt ends", where="chat template"
            )
        return full[len(before) : stop + len(end)]

    def _find_tools(self) -> bool:
        """Whether the template writes a tool's name for the tool and for a call, behind its own prompt."""
        name = "probe_of_tools"
        function = {"name": name, "description": "x", "parameters": {"type": "object"}}
        tools: list[dict[str, Any]] = [{"type": "function", "function": function}]
        call = {"id": "call_0001", "type": "function", "function": {"name": name, "arguments": {"x": 1}}}
        talk: list[dict[str, Any]] = [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        try:
            before = self.template.render(talk[:1], generate=True, tools=tools)
            full = self.template.render(talk, generate=False, tools=tools)
            return name in before and name in self._calls_text(full, before)
        except InputError:
            return False

    def _told(self, messages: Messages, tools: Tools) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Messages and tools as the template takes them."""
        if not tools and not any(m.get("tool_calls") or m["role"] == "tool" for m in messages):
            return [dict(message) for message in messages], []
        if not self.knows_tools:
            return without_tools(messages, tools), []
        return [_with_objects(message) for message in messages], [dict(tool) for tool in tools]

    def _find_end(self, eos: str | None) -> int:
        probe = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
        answer = self._answer_text(probe, self.template.render(probe[:1], generate=True))
        found = self._tokenizer.token_to_id(self._structure.findall(answer)[-1])
        if found is None and eos is not None:
            found = self._tokenizer.token_to_id(eos)
        if found is None:
            raise InputError("the tokenizer has no end token", where="tokenizer.json")
        return found

    def _hide(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, str]]:
        """Messages and tools in which every control string is one private character, and the way back."""
        texts = [text for message in messages for text in _texts(message)] + [t for tool in tools for t in _texts(tool)]
        if not any(self._structure.search(text) for text in texts):
            return messages, tools, {}
        used = set().union(*texts)
        free = (chr(code) for code in _PRIVATE_USE if chr(code) not in used)
        hidden = dict(zip(self._structural, free, strict=False))
        unhide = {character: token for token, character in hidden.items()}

        def hide(text: str) -> str:
            return self._structure.sub(lambda found: hidden[found.group()], text)

        return [_changed(m, hide) for m in messages], [_changed(tool, hide) for tool in tools], unhide

    def _encode(self, text: str, unhide: Mapping[str, str]) -> list[int]:
        if not unhide:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        ids: list[int] = []
        back = str.maketrans(dict(unhide))
        position, before = 0, ""
        for found in [*self._structure.finditer(text), None]:
            piece = text[position : found.start() if found else len(text)]
            if before in self._eats_right:
                piece = piece.lstrip()
            if found and found.group() in self._eats_left:
                piece = piece.rstrip()
            if piece:
                ids += self.encode_text(piece.translate(back))
            if found:
                before = found.group()
                ids.append(self._control_ids[before])
                position = found.end()
        return ids


def _with_objects(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message whose calls have their arguments as objects, which is what templates write out."""
    calls = [
        {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
        for call in message.get("tool_calls") or ()
    ]
    return {**message, "content": message.get("content") or "", **({"tool_calls": calls} if calls else {})}


def _texts(value: Any) -> Iterator[str]:
    """Every text in a message or tool, names of arguments too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key): _changed(inner, change) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_changed(inner, change) for inner in value]
    return value
