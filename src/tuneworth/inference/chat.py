"""Talk to a local model: messages in, text out, streamed or whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tuneworth.errors import InputError
from tuneworth.inference.batch import Constraint, Request
from tuneworth.inference.choosing import ChoiceTree
from tuneworth.inference.engine import Engine
from tuneworth.inference.sampling import Sampling
from tuneworth.inference.text import TextStream, pieces
from tuneworth.rendering import Messages, Renderer, Tools


class Chat:
    """A model with its renderer. The prompt is rendered as in training and evaluation (LAW 2)."""

    def __init__(self, renderer: Renderer, engine: Engine, context_tokens: int, labels: Sequence[str] = ()) -> None:
        """With `labels` every answer is one of them."""
        choices = [renderer.answer_ids(label) for label in labels]
        self._tree = ChoiceTree.of(choices, renderer.end_id) if choices else None
        self._renderer = renderer
        self._engine = engine
        self._context_tokens = context_tokens

    def chat(
        self,
        messages: Messages,
        *,
        tools: Tools = (),
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        stop: Sequence[str] = (),
        constraint: Constraint | None = None,
    ) -> str:
        """The whole answer; `rendering.tools.read_calls` finds the calls in it.

        Raises InputError when prompt and answer do not fit the model's context.
        """
        sampling = Sampling(temperature=temperature, seed=seed)
        return "".join(
            self.answer(
                messages, sampling, tools=tools, max_new_tokens=max_new_tokens, stop=stop, constraint=constraint
            )
        )

    def stream(
        self,
        messages: Messages,
        *,
        tools: Tools = (),
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        stop: Sequence[str] = (),
        constraint: Constraint | None = None,
    ) -> Iterator[str]:
        """The answer in pieces whose concatenation is the whole answer; no piece ends inside a character (LAW 37)."""
        sampling = Sampling(temperature=temperature, seed=seed)
        return self.answer(
            messages, sampling, tools=tools, max_new_tokens=max_new_tokens, stop=stop, constraint=constraint
        )

    def answer(
        self,
        messages: Messages,
        sampling: Sampling,
        *,
        tools: Tools = (),
        max_new_tokens: int = 512,
        stop: Sequence[str] = (),
        constraint: Constraint | None = None,
    ) -> Iterator[str]:
        """`stream` with every way of sampling. The answer ends before the first string of `stop`."""
        prompt = self._renderer.prompt(messages, tools)
        if len(prompt) >= self._context_tokens:
            raise InputError(
                f"the conversation has {len(prompt)} tokens, the model's context holds {self._context_tokens}",
                cure="shorten the messages",
            )
        if self._tree is not None:
            request = Request(prompt, max(map(len, self._tree.choices)))
            yield self._renderer.decode(self._engine.answer([request], tree=self._tree)[0].ids)
            return
        room = min(max_new_tokens, self._context_tokens - len(prompt))
        text = TextStream(self._renderer.decode, stop)
        request = Request(prompt, room, sampling, constraint, text.over if stop else None, remember=True)
        yield from pieces(text, self._engine.stream(request))
