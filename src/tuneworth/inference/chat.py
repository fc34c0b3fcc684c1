"""Talk to a local model: messages in, text out, streamed or whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tuneworth.errors import InputError
from tuneworth.inference.engine import Engine
from tuneworth.rendering import Messages, Renderer, Tools

_REPLACEMENT = "�"


class Chat:
    """A model with its renderer. The prompt is rendered as in training and evaluation (LAW 2)."""

    def __init__(self, renderer: Renderer, engine: Engine, context_tokens: int, labels: Sequence[str] = ()) -> None:
        """With `labels` every answer is one of them."""
        self._labels = tuple(labels)
        self._renderer = renderer
        self._engine = engine
        self._context_tokens = context_tokens

    def chat(
        self, messages: Messages, *, tools: Tools = (), max_new_tokens: int = 512, temperature: float = 0.0,
        seed: int = 0,
    ) -> str:  # fmt: skip
        """The whole answer; `rendering.tools.read_calls` finds the calls in it. Raises InputError when prompt and
        answer do not fit the model's context."""
        return "".join(
            self.stream(messages, tools=tools, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        )

    def stream(
        self, messages: Messages, *, tools: Tools = (), max_new_tokens: int = 512, temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[str]:  # fmt: skip
        """The answer in pieces whose concatenation is the whole answer; no piece ends inside a character (LAW 37)."""
        prompt = self._renderer.prompt(messages, tools)
        if len(prompt) >= self._context_tokens:
            raise InputError(
                f"the conversation has {len(prompt)} tokens, the model's context holds {self._context_tokens}",
                cure="shorten the messages",
            )
        if self._labels:
            choices = [self._renderer.answer_ids(label) for label in self._labels]
            chosen = self._engine.generate([prompt], max_new_tokens=max(map(len, choices)), choices=choices)
            yield self._renderer.decode(chosen[0].ids)
            return
        room = min(max_new_tokens, self._context_tokens - len(prompt))
        ids: list[int] = []
        sent = ""
        for token in self._engine.stream(prompt, max_new_tokens=room, temperature=temperature, seed=seed):
            ids.append(token)
            text = self._renderer.decode(ids)
            if text.startswith(sent) and len(text) > len(sent) and not text.endswith(_REPLACEMENT):
                yield text[len(sent) :]
                sent = text
        rest = self._renderer.decode(ids)[len(sent) :]
        if rest:
            yield rest
