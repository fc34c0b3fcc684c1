"""A hosted model as an arm's answerer: what it answered is kept by the content of the request, errors never are."""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any
from urllib.parse import urlsplit

import orjson

from tuneworth.data.example import Example
from tuneworth.errors import InputError, MachineError, Problem
from tuneworth.evaluation.forms import Form
from tuneworth.evaluation.local import Scoring
from tuneworth.evaluation.records import RawAnswer
from tuneworth.inference.hosted import AT_ONCE, NOT_ASKED, Endpoint, HostedChat, Reply, Request
from tuneworth.plan import Rate
from tuneworth.rendering.tools import without_tools
from tuneworth.store.replies import Replies
from tuneworth.task import Provider

_LEAST_TOKENS = 32  # its tokens are others than those that the answers were counted in
_FIRST_ASKED = 8


def check_keys(providers: Mapping[str, Provider]) -> None:
    """Raises InputError that lists every provider whose key is not in the environment."""
    problems = [
        Problem(
            f"the environment variable {provider.api_key_env} is not set, which holds its key",
            f"providers.{name}.api_key_env",
            f"export {provider.api_key_env}=..., or leave the provider out",
        )
        for name, provider in providers.items()
        if provider.api_key_env and not os.environ.get(provider.api_key_env, "").strip()
    ]
    if problems:
        raise InputError.of(problems)


def endpoint_of(name: str, provider: Provider) -> Endpoint:
    """Where `provider` is, with the key from the environment."""
    key = os.environ.get(provider.api_key_env, "").strip() if provider.api_key_env else None
    return Endpoint(name, provider.base_url, provider.model, key or None)


def told(form: Form, example: Example) -> list[dict[str, Any]]:
    """The messages that a hosted model is sent. Tools are told in plain text, as to a local model whose template knows
    none, so that all arms read the same."""
    return without_tools(form.messages(example), example.tool_definitions)


class HostedModel:
    """An `Answerer` behind an endpoint. Its answers are generated freely: labels are asked for, not enforced."""

    def __init__(self, chat: HostedChat, replies: Replies, provider: Provider) -> None:
        self._chat = chat
        self._replies = replies
        self._provider = provider
        self._counts_tokens = True

    @property
    def name(self) -> str:
        """The model's name at its endpoint."""
        return f"{self._provider.model} at {urlsplit(self._provider.base_url).netloc}"

    def answer(
        self,
        form: Form,
        examples: Sequence[Example],
        scoring: Scoring,
        on_done: Callable[[int], None] = lambda rows: None,
    ) -> list[RawAnswer]:
        """Answers in order; requests whose reply is known are not sent again, the same request is sent once."""
        requests = [Request(tuple(told(form, example)), scoring.max_new_tokens) for example in examples]
        return [
            raw_answer(reply, request) for request, reply in zip(requests, self.ask(requests, on_done), strict=True)
        ]

    def ask(self, requests: Sequence[Request], on_done: Callable[[int], None] = lambda rows: None) -> list[Reply]:
        """Replies in order, from the file or from the endpoint."""
        keys = [self._key(request) for request in requests]
        new = {key: request for key, request in zip(keys, requests, strict=True) if self._replies.get(key) is None}
        on_done(len(requests) - len(new))
        order = list(new)

        def keep(index: int, reply: Reply) -> None:
            if reply.error is None:
                self._replies.put(order[index], {k: v for k, v in asdict(reply).items() if k != "error"})
            on_done(1)

        fresh = dict(zip(order, self._chat.ask_all(list(new.values()), keep), strict=True))
        replies = [fresh[key] if key in fresh else Reply(**(self._replies.get(key) or {})) for key in keys]
        if any(reply.error is None and None in (reply.input_tokens, reply.output_tokens) for reply in replies):
            self._counts_tokens = False
        return replies

    def answer_rate(self, form: Form, examples: Sequence[Example], scoring: Scoring) -> Rate:
        """Wall seconds a row, from a few requests (kept like all others), and the first look at the endpoint.

        Raises MachineError that names an endpoint which cannot be reached, InputError when it refuses (key, model).
        """
        start = time.perf_counter()
        few = examples[:_FIRST_ASKED]
        answers = self.answer(form, few, scoring)
        wall = time.perf_counter() - start
        if all(answer.error for answer in answers):
            errors = [str(answer.error) for answer in answers]
            self._refuse(next((error for error in errors if not error.startswith(NOT_ASKED)), errors[0]))
        asked = max(wall, sum(answer.seconds for answer in answers) / AT_ONCE)  # what was kept took no time now
        return Rate(once=0.0, a_row=asked / max(1, len(few)))

    def suited(self, scoring: Scoring) -> Scoring:
        """Free generation with room for another tokenizer's tokens."""
        return replace(scoring, decoding="generate", max_new_tokens=max(_LEAST_TOKENS, 2 * scoring.max_new_tokens))

    def details(self, form: Form, examples: Sequence[Example], scoring: Scoring) -> dict[str, object]:
        """The model, its endpoint and prices; the latency is that of requests as they came, several at a time."""
        seconds = [answer.seconds for answer in self.answer(form, examples[:_FIRST_ASKED], scoring) if not answer.error]
        cuts = statistics.quantiles(seconds, n=20, method="inclusive") if len(seconds) > 1 else seconds * 19
        known = self._provider
        return {
            "model": self.name,
            "provider": {"name": self._chat.endpoint.name, "base_url": known.base_url, "model": known.model},
            "token_price": self._prices(),
            "machine_seconds_per_request": None,  # not this machine's
            **({} if self._counts_tokens else {"input_tokens": None, "output_tokens": None}),
            "latency_seconds": {"p50": statistics.median(seconds), "p95": cuts[18]} if seconds else {},
        }

    def usd(self, answers: Sequence[RawAnswer]) -> float | None:
        """Tokens at the provider's prices; None without prices, or where the endpoint counts no tokens."""
        prices = self._prices()
        if prices is None:
            return None
        read = sum(answer.input_tokens for answer in answers) * prices["usd_per_million_input"]
        written = sum(answer.output_tokens for answer in answers) * prices["usd_per_million_output"]
        return (read + written) / 1e6

    def _prices(self) -> dict[str, float] | None:
        read, written = self._provider.usd_per_million_input, self._provider.usd_per_million_output
        if read is None or written is None or not self._counts_tokens:
            return None
        return {"usd_per_million_input": read, "usd_per_million_output": written}

    def _key(self, request: Request) -> str:
        about = {"base_url": self._provider.base_url, "model": self._provider.model}
        return Replies.key({**about, "messages": list(request.messages), "max_new_tokens": request.max_new_tokens})

    def _refuse(self, error: str) -> None:
        where = f"providers.{self._chat.endpoint.name} ({self._provider.base_url})"
        cure = "check base_url, model and the key, or leave the provider out of the task"
        raise (InputError if error.startswith("HTTP 4") else MachineError)(
            f"the endpoint did not answer any of the first requests: {error}", where=where, cure=cure
        )


def raw_answer(reply: Reply, request: Request) -> RawAnswer:
    """A reply as a row of answers. Tokens that the endpoint did not count are 0, see `counted`."""
    content = orjson.dumps([dict(message) for message in request.messages])
    return RawAnswer(
        text=reply.text,
        finish_reason=reply.finish_reason,
        prompt_hash=hashlib.sha256(content).hexdigest()[:16],
        input_tokens=reply.input_tokens or 0,
        output_tokens=reply.output_tokens or 0,
        seconds=reply.seconds,
        error=reply.error,
    )
