"""A hosted model behind an OpenAI-compatible endpoint: a conversation goes out, a reply or a named error comes back.

Retries (408, 409, 429, 5xx, broken connections, timeouts; `Retry-After` is honoured) are the official SDK's. Bodies are
read strictly here, since the SDK takes any JSON for an answer. The key goes into one header and nowhere else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Literal

import openai
import orjson

Message = Mapping[str, Any]
AT_ONCE = 8
"""Requests that are under way at one time."""

_TIMEOUT_SECONDS = 60.0
_RETRIES = 4
_PATIENCE_SECONDS = 2.0
NOT_ASKED = "not asked, since: "
"""Begins the error of a request that was not sent because of what became of others."""
_HOPELESS = 2 * AT_ONCE  # so many failures in a row, and the rest is not asked
_REFUSALS = (401, 403, 404)  # a wrong key, address or model name fails every request alike


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a hosted model is. `key` is never shown; None where the endpoint wants none."""

    name: str
    base_url: str
    model: str
    key: str | None = field(default=None, repr=False)

    def client(self, timeout_seconds: float, retries: int) -> openai.OpenAI:
        """The SDK's client: everything is named, so that nothing meant for another endpoint is read from OPENAI_*.
        Every request takes `left_out` as its extra headers."""
        return openai.OpenAI(
            base_url=self.base_url, api_key=self.key or "none", timeout=timeout_seconds, max_retries=retries
        )

    @property
    def left_out(self) -> Any:
        """Headers that are not sent, though the environment or the SDK would."""
        without = ["OpenAI-Organization", "OpenAI-Project", *([] if self.key else ["Authorization"])]
        return dict.fromkeys(without, openai.omit)

    def clean(self, text: str) -> str:
        """`text` without the key."""
        return text.replace(self.key, "[key]") if self.key else text


@dataclass(frozen=True, slots=True)
class Request:
    """A conversation and how long the answer may get. Answers are greedy: temperature 0."""

    messages: tuple[Message, ...]
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `error` says why there is no answer; token counts are None where the endpoint tells none;
    `seconds` is wall time with all retries."""

    text: str
    finish_reason: Literal["stop", "length", "error"]
    input_tokens: int | None
    output_tokens: int | None
    seconds: float
    error: str | None = None


class HostedChat:
    """Asks one endpoint."""

    def __init__(
        self, endpoint: Endpoint, *, timeout_seconds: float = _TIMEOUT_SECONDS, retries: int = _RETRIES
    ) -> None:
        self.endpoint = endpoint
        self._timeout = timeout_seconds
        self._retries = retries
        self._limit_name = "max_tokens"
        self._greedy = True

    def _ask(self, client: openai.OpenAI, request: Request) -> Reply:
        """One reply; never raises for what the endpoint does."""
        start = time.perf_counter()
        try:
            body = self._post(client, request)
            return read_reply(body, time.perf_counter() - start, self.endpoint.clean)
        except openai.APIError as error:
            return self._failed(error_text(error, self._timeout), start)
        except Exception as error:  # the transport's own errors are not all the SDK's
            return self._failed(f"{type(error).__name__}: {error}", start)

    def ask_all(self, requests: Sequence[Request], on_done: Callable[[int, Reply], None]) -> list[Reply]:
        """Replies in order, `AT_ONCE` under way at one time; `on_done` is told each as it comes, on this thread.

        After a refusal that all requests would meet, or too many failures in a row, the rest is not asked.
        """
        replies: list[Reply | None] = [None] * len(requests)
        failures, hopeless = 0, ""
        with (
            self.endpoint.client(self._timeout, self._retries) as client,
            _Workers(lambda index: self._ask(client, requests[index]), len(requests)) as workers,
        ):
            for _ in requests:
                index, reply = workers.next()
                replies[index] = reply
                on_done(index, reply)
                failures = failures + 1 if reply.error else 0
                if reply.error and (_is_refusal(reply.error) or failures >= _HOPELESS):
                    hopeless = reply.error
                    break
        return [reply or Reply("", "error", None, None, 0.0, f"{NOT_ASKED}{hopeless}") for reply in replies]

    def _post(self, client: openai.OpenAI, request: Request) -> bytes:
        for _ in range(3):
            options: dict[str, Any] = {self._limit_name: request.max_new_tokens}
            if self._greedy:
                options["temperature"] = 0
            try:
                raw = client.chat.completions.with_raw_response.create(
                    model=self.endpoint.model,
                    messages=[dict(message) for message in request.messages],  # type: ignore[misc]
                    extra_headers=self.endpoint.left_out,
                    **options,
                )
                return bytes(raw.http_response.content)
            except openai.BadRequestError as error:
                if not self._adapted(options, str(error.message)):
                    raise
        raise AssertionError("both wordings were tried")

    def _adapted(self, asked: Mapping[str, Any], complaint: str) -> bool:
        """Newer models refuse `max_tokens`, some any temperature: ask them as they want to be asked, from now on."""
        if "max_completion_tokens" in complaint and "max_tokens" in asked:
            self._limit_name = "max_completion_tokens"
            return True
        if "temperature" in complaint and "temperature" in asked:
            self._greedy = False
            return True
        return False

    def _failed(self, why: str, start: float) -> Reply:
        return Reply("", "error", None, None, time.perf_counter() - start, self.endpoint.clean(why))


def read_reply(body: bytes, seconds: float, clean: Callable[[str], str] = str) -> Reply:
    """The reply in a chat.completion; whatever is no answer becomes an error that says what it is instead."""

    def failed(why: str) -> Reply:
        return Reply("", "error", read, wrote, seconds, clean(why))

    read = wrote = None
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return failed(f"the reply is no JSON: {body[:80].decode('utf-8', 'replace')!r}")
    if not isinstance(content, dict):
        return failed("the reply is no JSON object")
    usage = content.get("usage")
    read, wrote = (_count(usage, name) for name in ("prompt_tokens", "completion_tokens"))
    if isinstance(content.get("error"), dict):
        return failed(f"the endpoint reports: {content['error'].get('message')}")
    choices = content.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return failed("the reply has no choices")
    message, finish = choices[0].get("message"), choices[0].get("finish_reason")
    if not isinstance(message, dict):
        return failed("the reply has no message")
    if finish == "content_filter" or message.get("refusal"):
        return failed(f"refused by the endpoint: {message.get('refusal') or finish}")
    text = message.get("content")
    if finish == "length":  # a thinking model may have no room left for an answer
        return Reply(clean(text) if isinstance(text, str) else "", "length", read, wrote, seconds)
    if not isinstance(text, str):
        return failed(f"the reply has no text (its content is {_kind(text)}, its finish_reason {finish!r})")
    return Reply(clean(text), "stop", read, wrote, seconds)


def error_text(error: openai.APIError, timeout_seconds: float) -> str:
    """What went wrong, for people; begins with the HTTP status where there is one."""
    if isinstance(error, openai.APITimeoutError):
        return f"no answer within {timeout_seconds:g} s"
    if isinstance(error, openai.APIConnectionError):
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        return f"no connection: {cause}"
    if isinstance(error, openai.APIStatusError):
        return f"HTTP {error.status_code}: {' '.join(str(error.message).split())[:300]}"
    return f"{type(error).__name__}: {error}"


def _is_refusal(error: str) -> bool:
    return any(error.startswith(f"HTTP {status}:") for status in _REFUSALS)


def _count(usage: object, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _kind(value: object) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


class _Workers:
    """Threads that work off the numbers 0 to `count` - 1. They never keep the process alive: an interrupt is heeded
    at once, not after the last retry."""

    def __init__(self, work: Callable[[int], Reply], count: int) -> None:
        self._work = work
        self._count = count
        self._todo: SimpleQueue[int] = SimpleQueue()
        self._done: SimpleQueue[tuple[int, Reply]] = SimpleQueue()
        self._stopped = threading.Event()

    def __enter__(self) -> _Workers:
        for index in range(self._count):
            self._todo.put(index)
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(min(AT_ONCE, self._count))]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stopped.set()
        if kind is None:  # what is under way ends before its connection is closed under it, if that does not take long
            end = time.monotonic() + _PATIENCE_SECONDS
            for thread in self._threads:
                thread.join(max(0.0, end - time.monotonic()))

    def next(self) -> tuple[int, Reply]:
        return self._done.get()

    def _run(self) -> None:
        while not self._stopped.is_set() and not self._todo.empty():
            try:
                index = self._todo.get_nowait()
            except Exception:  # another thread was quicker
                return
            self._done.put((index, self._work(index)))
