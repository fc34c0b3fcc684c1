"""Talk to a local model: messages in, text out, streamed or whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tuneworth.errors import InputError
from tuneworth.inference.batch import Constraint, Request
from tuneworth.inference.engine import Engine
from tuneworth.inference.grammars import Grammar
from tuneworth.inference.sampling import Sampling
from tuneworth.inference.text import TextStream, pieces
from tuneworth.rendering import Messages, Renderer, Tools

_GREEDY = Sampling()


class Chat:
    """A model with its renderer. The prompt is rendered as in training and evaluation (LAW 2)."""

    def __init__(
        self,
        renderer: Renderer,
        engine: Engine,
        context_tokens: int,
        labels: Sequence[str] = (),
        *,
        scored: bool = False,
        grammar: Grammar | None = None,
    ) -> None:
        """With `labels` every answer is one of them: the likeliest if `scored`, else the one that is reached by taking
        the likeliest token that still leads to a label. With `grammar` every answer keeps to it, unless a request
        brings a constraint of its own."""
        self._labels = tuple(labels)
        self._choices = [renderer.answer_ids(label) for label in labels]
        self._scored = scored
        self._grammar = grammar
        self._renderer = renderer
        self._engine = engine
        self._context_tokens = context_tokens

    def chat(
        self,
        messages: Messages,
        sampling: Sampling = _GREEDY,
        *,
        tools: Tools = (),
        max_new_tokens: int = 512,
        stop: Sequence[str] = (),
        constraint: Constraint | None = None,
    ) -> str:
        """The whole answer; `rendering.tools.read_calls` finds the calls in it. Arguments and errors as of `stream`."""
        found = self.stream(
            messages, sampling, tools=tools, max_new_tokens=max_new_tokens, stop=stop, constraint=constraint
        )
        return "".join(found)

    def stream(
        self,
        messages: Messages,
        sampling: Sampling = _GREEDY,
        *,
        tools: Tools = (),
        max_new_tokens: int = 512,
        stop: Sequence[str] = (),
        constraint: Constraint | None = None,
    ) -> Iterator[str]:
        """The answer in pieces whose concatenation is the whole answer; no piece ends inside a character (LAW 37).

        It ends before the first string of `stop`. Raises InputError when prompt and answer do not fit the model's
        context.
        """
        prompt = self._renderer.prompt(messages, tools)
        if len(prompt) >= self._context_tokens:
            raise InputError(
                f"the conversation has {len(prompt)} tokens, the model's context holds {self._context_tokens}",
                cure="shorten the messages",
            )
        if self._choices:
            yield self._label(prompt)
            return
        room = min(max_new_tokens, self._context_tokens - len(prompt))
        if constraint is None and self._grammar is not None:
            constraint = self._grammar.start(room)
        text = TextStream(self._renderer.decode, stop)
        request = Request(prompt, room, sampling, constraint, text.over if stop else None, remember=True)
        yield from pieces(text, self._engine.stream(request))

    def _label(self, prompt: list[int]) -> str:
        if self._scored:
            return self._labels[self._engine.score([prompt], self._choices)[0].best]
        most = max(map(len, self._choices))
        found = self._engine.generate([prompt], max_new_tokens=most, choices=self._choices)[0]
        return self._renderer.decode(found.ids)
