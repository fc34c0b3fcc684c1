"""Fine-tuning at an OpenAI-compatible endpoint: files go up, a job is begun once, and is looked at until it has ended.

Whatever may cost money is done at most once. The SDK would send a request to begin a job again when its reply was lost,
and the job would be paid for twice; here the endpoint's jobs are looked through first, for one on the same file.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import openai
import orjson

from tuneworth.inference.hosted import Endpoint, error_text

_TIMEOUT_SECONDS, _UPLOAD_SECONDS = 60.0, 600.0
_RETRIES = 4
_PAUSES = (1.0, 2.0, 4.0, 8.0)
_LONGEST_PAUSE = 30.0
_PAGES, _A_PAGE = 10, 100  # the newest jobs, among which one of ours is looked for
UNOFFERED = (404, 405, 501)
"""What an endpoint without fine-tuning answers."""

SUCCEEDED = "succeeded"
ENDED = (SUCCEEDED, "failed", "cancelled")
"""Statuses of jobs that go on no more."""


@dataclass(frozen=True, slots=True)
class HostedJob:
    """A job as its endpoint tells it. `model`, `trained_tokens` and `seconds` (from its creation to its end) are known
    once it has succeeded, if at all."""

    id: str
    status: str
    training_file: str
    model: str | None = None
    trained_tokens: int | None = None
    seconds: float | None = None
    error: str | None = None


class JobsError(Exception):
    """What an endpoint did not do. `status` is that of its answer, None where none came or it was not to be read."""

    def __init__(self, what: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(what)
        self.status = status
        self.retry_after = retry_after

    @property
    def passing(self) -> bool:
        """Whether the same request may go well later."""
        return self.unclear or self.status == 429

    @property
    def unclear(self) -> bool:
        """Whether the request may have been done all the same: no answer came, or one that blames the endpoint."""
        status = self.status
        return status is None or status in (408, 409) or (status >= 500 and status not in UNOFFERED)


class HostedJobs:
    """The files and the fine-tuning jobs of one endpoint. Every method raises JobsError."""

    def __init__(
        self, endpoint: Endpoint, *, timeout_seconds: float = _TIMEOUT_SECONDS, retries: int = _RETRIES
    ) -> None:
        self.endpoint = endpoint
        self._timeout = timeout_seconds
        self._retries = retries

    def upload(self, name: str, content: bytes) -> str:
        """The id of a file for training, uploaded as `name`."""
        found = self._asked(
            lambda client: client.files.with_raw_response.create(
                file=(name, content), purpose="fine-tune", extra_headers=self.endpoint.left_out
            ),
            timeout=max(self._timeout, _UPLOAD_SECONDS),
        )
        return _text(found, "id", "the file")

    def begin(self, training_file: str, validation_file: str | None, seed: int, *, tried: bool) -> HostedJob:
        """The one job on `training_file`: begun now, or found where an earlier try (`tried`: of another process)
        began it and its reply was lost."""
        options: dict[str, Any] = {"model": self.endpoint.model, "training_file": training_file, "seed": seed}
        options["extra_headers"] = self.endpoint.left_out
        if validation_file is not None:
            options["validation_file"] = validation_file
        for pause in (*_PAUSES[: self._retries], None):
            if tried and (known := self.find(training_file)) is not None:
                return known
            try:
                found = self._asked(
                    lambda client: client.fine_tuning.jobs.with_raw_response.create(**options), retries=0
                )
                return _job(found, self.endpoint.clean)
            except JobsError as error:
                if pause is None or error.status is None or not error.passing:
                    raise
                tried = tried or error.unclear
                time.sleep(min(_LONGEST_PAUSE, pause if error.retry_after is None else error.retry_after))
        raise AssertionError("the last try returns or raises")

    def find(self, training_file: str) -> HostedJob | None:
        """The newest job on that file, among the endpoint's newest thousand."""
        last = ""
        for _ in range(_PAGES):
            page = self._page(last)
            listed = page.get("data")
            jobs = [_job(one, self.endpoint.clean) for one in listed] if isinstance(listed, list) else []
            for job in jobs:
                if job.training_file == training_file:
                    return job
            if not jobs or not page.get("has_more") or jobs[-1].id == last:
                return None
            last = jobs[-1].id
        return None

    def _page(self, after: str) -> Mapping[str, Any]:
        """The endpoint's jobs behind the one called `after`, newest first."""
        query: dict[str, Any] = {"limit": _A_PAGE, "extra_headers": self.endpoint.left_out}
        query |= {"after": after} if after else {}
        return self._asked(lambda client: client.fine_tuning.jobs.with_raw_response.list(**query))

    def look(self, job: str) -> HostedJob:
        """How a job stands."""
        headers = self.endpoint.left_out
        found = self._asked(
            lambda client: client.fine_tuning.jobs.with_raw_response.retrieve(job, extra_headers=headers)
        )
        return _job(found, self.endpoint.clean)

    def _asked(
        self, ask: Callable[[openai.OpenAI], Any], *, retries: int | None = None, timeout: float | None = None
    ) -> Mapping[str, Any]:
        """The JSON object that came back."""
        timeout = self._timeout if timeout is None else timeout
        clean = self.endpoint.clean
        try:
            with self.endpoint.client(timeout, self._retries if retries is None else retries) as client:
                body = bytes(ask(client).http_response.content)
        except openai.APIStatusError as error:
            after = _retry_after(error.response.headers)
            raise JobsError(clean(error_text(error, timeout)), error.status_code, after) from None
        except openai.APIError as error:
            raise JobsError(clean(error_text(error, timeout))) from None
        except Exception as error:  # the transport's own errors are not all the SDK's
            raise JobsError(clean(f"{type(error).__name__}: {error}")) from None
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise JobsError(clean(f"the reply is no JSON: {body[:80].decode('utf-8', 'replace')!r}")) from None
        if not isinstance(content, dict):
            raise JobsError("the reply is no JSON object")
        return content


def _job(content: object, clean: Callable[[str], str]) -> HostedJob:
    if not isinstance(content, Mapping):
        raise JobsError("the reply is no fine-tuning job")
    error, model = content.get("error"), content.get("fine_tuned_model")
    tokens, created, finished = (_count(content, key) for key in ("trained_tokens", "created_at", "finished_at"))
    said = error.get("message") if isinstance(error, Mapping) else None
    return HostedJob(
        _text(content, "id", "the job"),
        _text(content, "status", "the job"),
        str(content.get("training_file") or ""),
        model if isinstance(model, str) and model else None,
        tokens,
        float(finished - created) if created and finished and finished >= created else None,
        clean(" ".join(str(said).split())[:300]) if said else None,
    )


def _count(content: Mapping[str, Any], key: str) -> int | None:
    value = content.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _text(content: Mapping[str, Any], key: str, of: str) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value:
        raise JobsError(f"the reply tells no {key} of {of}")
    return value


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        with contextlib.suppress(KeyError, ValueError):
            return max(0.0, float(headers[name]) / unit)
    return None
