"""A local HTTP server that speaks enough of the OpenAI API to be wrong in every way a real one is."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Said:
    """A response: a status, a body (JSON, or bytes as they are), headers."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def completion(text: str | None, finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    """A chat.completion that says `text`."""
    return {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
    }  # fmt: skip


def failure(status: int, message: str, **headers: str) -> Said:
    """An error as the API reports it."""
    body = {"error": {"message": message, "type": "x", "param": None, "code": None}}
    return Said(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


Speak = Callable[[str, str, Any], Said | dict[str, Any]]
"""(method, path, parsed body or raw bytes) becomes a response; a dict is a body with status 200."""


@dataclass
class Endpoint:
    """A running server: its base_url, and every request that it got."""

    base_url: str
    requests: list[tuple[str, str, Any, dict[str, str]]]

    def bodies(self) -> list[Any]:
        """The parsed bodies, in order of arrival."""
        return [body for _, _, body, _ in self.requests]


@contextmanager
def serving(speak: Speak) -> Iterator[Endpoint]:
    """A server on a free loopback port, for as long as the block runs."""
    got: list[tuple[str, str, Any, dict[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length") or 0))
            is_json = self.headers.get("content-type", "").startswith("application/json")
            body = json.loads(content) if content and is_json else content
            got.append((self.command, self.path, body, {k.lower(): v for k, v in self.headers.items()}))
            said = speak(self.command, self.path, body)
            said = said if isinstance(said, Said) else Said(said)
            sent = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
            try:
                self.send_response(said.status)
                for name, value in {"content-type": "application/json", **said.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)
            except (BrokenPipeError, ConnectionResetError):  # the client gave up, as it should on slow answers
                self.close_connection = True

        do_GET = do_POST = do_DELETE = _handle  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield Endpoint(f"http://127.0.0.1:{server.server_address[1]}/v1", got)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
