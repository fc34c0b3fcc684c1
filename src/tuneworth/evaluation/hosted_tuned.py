"""A hosted model that is fine-tuned at its own endpoint: rows go up, the job is begun once, its model answers test.

The training is paid for, so it happens only where the task says so (`fine_tune` of a provider), and never twice: the
files' ids are on disk before a job is asked for, the job's id before it is waited for, and a request whose reply was
lost is looked for at the endpoint before another is sent.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from tuneworth.data.example import Example
from tuneworth.errors import Problem
from tuneworth.evaluation.arms import Bench, answered, finish, leave_out, model_details
from tuneworth.evaluation.forms import Form
from tuneworth.evaluation.hosted import HostedModel
from tuneworth.evaluation.prompted import answers_missing
from tuneworth.evaluation.prompts import conversation
from tuneworth.inference.hosted_jobs import ENDED, SUCCEEDED, UNOFFERED, HostedJob, HostedJobs, JobsError
from tuneworth.rendering.tools import without_tools
from tuneworth.store.atomic import read_json, write_bytes, write_json
from tuneworth.task import Provider, format_seconds

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 30.0
"""Seconds between two looks at a job, growing by half."""
_AGAIN = "run the same command again: what was begun is found again and not paid for twice"


@dataclass(frozen=True, slots=True)
class Trainer:
    """A provider that may train: its jobs, its settings, and how its tuned model is asked, by that model's name."""

    jobs: HostedJobs
    provider: Provider
    model_named: Callable[[str], HostedModel]

    @property
    def where(self) -> str:
        """The provider, for messages."""
        return f"providers.{self.jobs.endpoint.name} ({self.provider.base_url})"


class TrainingFailed(Exception):
    """A hosted training that has no model: what, where and the cure."""

    def __init__(self, what: str, where: str, cure: str) -> None:
        super().__init__(str(Problem(what, where, cure)))


def training_row(form: Form, example: Example, turns: str = "all") -> dict[str, Any]:
    """A row of a training file: the messages that the tuned model will be sent (`hosted.told`), and the answer behind
    them. Assistant messages that are not to be learnt have weight 0."""
    messages, learnt = conversation(form, example, turns)
    places = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    plain = without_tools(messages, example.tool_definitions)
    spoken = [message for message in plain if message["role"] == "assistant"]
    for place, message in zip(places, spoken, strict=True):
        if place not in learnt:
            message["weight"] = 0
    return {"messages": plain}


def begin_training(bench: Bench, name: str, trainer: Trainer, form: Form) -> dict[str, Any]:
    """Upload the rows and begin the job, as far as that is not done; returns job.json. Raises TrainingFailed."""
    home = bench.folder.arm(name)
    path = home / "job.json"
    files = {
        "training": _lines(form, bench.train, bench.task.training.turns),
        "validation": _lines(form, bench.validation, bench.task.training.turns),
    }
    sha256 = hashlib.sha256(files["training"] + files["validation"]).hexdigest()
    record = read_json(path) if path.is_file() else {}
    if record and record["sha256"] != sha256:
        what = f"its files were written otherwise when job {record['job'] or '(none yet)'} was begun"
        raise TrainingFailed(what, str(path), "delete it to begin another training, which is paid for")
    if record.get("job"):
        return record
    if not record:
        for part, content in files.items():
            write_bytes(home / f"{part}.jsonl", content)
        uploaded = {f"{part}_file": _upload(home, trainer, part, content) for part, content in files.items()}
        record = {"schema": "tuneworth.job/1", "sha256": sha256, **uploaded, "tried": False, "job": None}
    tried = record["tried"]
    write_json(path, record | {"tried": True})  # before the request, since its reply may never be read
    try:
        job = trainer.jobs.begin(record["training_file"], record["validation_file"], bench.task.seed, tried=tried)
    except JobsError as error:
        if not error.passing:
            path.unlink()  # refused for good: the next try begins with new files
        elif not error.unclear:
            write_json(path, record)
        raise TrainingFailed(f"no training was begun: {error}", trainer.where, _cure(error, trainer, home)) from None
    record |= {"tried": True, **_told_of(job), "ended": False}
    write_json(path, record)
    rows = f"{len(bench.train):,} training rows and {len(bench.validation):,} validation rows"
    bench.watcher.note(f"{name}: {rows} uploaded to {urlsplit(trainer.provider.base_url).netloc}, job {job.id} begun")
    return record


def hosted_tuned_arm(bench: Bench, name: str, trainer: Trainer, form: Form, seconds: float) -> None:
    """Wait `seconds` at most for the job, and let its model answer test; `failed`, with the reason, without a model."""
    base = f"{trainer.provider.model} at {urlsplit(trainer.provider.base_url).netloc}"
    try:
        record = _trained(bench, name, trainer, form, seconds)
    except TrainingFailed as failure:
        leave_out(bench, name, "fine-tune", str(failure), status="failed", model=base)
        return
    model = trainer.model_named(record["model"])
    bench.watcher.begin(f"{name}: answering test", len(bench.test))
    answers = answered(bench, model, form, bench.test)
    if (why := answers_missing(answers)) is not None:
        leave_out(bench, name, "fine-tune", why, status="failed", model=model.name)
        return
    kept = ("job", "training_file", "validation_file", "trained_tokens", "seconds")
    details = {
        "settings": {
            "base_model": trainer.provider.model,
            "rows": len(bench.train),
            "validation_rows": len(bench.validation),
            **{key: record[key] for key in kept},
        },
        "build_seconds": 0.0,  # of this machine
        "build_usd": _usd(trainer.provider, record["trained_tokens"]),
        **model_details(bench, model, form),
    }
    finish(bench, name, "fine-tune", answers, details)


def _trained(bench: Bench, name: str, trainer: Trainer, form: Form, seconds: float) -> dict[str, Any]:
    """job.json of a job that has succeeded. Raises TrainingFailed."""
    path = bench.folder.arm(name) / "job.json"
    record = begin_training(bench, name, trainer, form)
    if not record["ended"]:
        job = _waited(bench, name, trainer, record["job"], seconds)
        record |= {**_told_of(job), "ended": True}
        write_json(path, record)
    another = f"delete {path} to begin another training, which is paid for"
    if record["status"] != SUCCEEDED:
        reason = record["error"] or "no reason is given"
        what = f"job {record['job']} has ended as {record['status']}: {reason}"
        raise TrainingFailed(what, trainer.where, f"correct what it names, then {another}")
    if record["model"] is None:
        raise TrainingFailed(f"job {record['job']} has succeeded and names no model", trainer.where, another)
    return record


def _waited(bench: Bench, name: str, trainer: Trainer, job_id: str, seconds: float) -> HostedJob:
    """The job once it has ended. Raises TrainingFailed when `seconds` are over, or it cannot be looked at."""
    start, shown, status, trouble, pause = time.monotonic(), 0, "", "", FIRST_PAUSE
    bench.watcher.begin(f"{name}: waiting for job {job_id}, at most {format_seconds(seconds)}", max(1, round(seconds)))
    while True:
        try:
            job = trainer.jobs.look(job_id)
        except JobsError as error:
            if not error.passing:
                cure = f"check the key and base_url, then {_AGAIN}"
                raise TrainingFailed(f"job {job_id} cannot be looked at: {error}", trainer.where, cure) from None
            trouble = f"; the last look failed: {error}"  # an outage ends no training
        else:
            trouble = ""
            if job.status != status:
                status = job.status
                bench.watcher.note(f"{name}: job {job_id} is {status.replace('_', ' ')}")
            if status in ENDED:
                return job
        waited = time.monotonic() - start
        if waited >= seconds:
            what = f"job {job_id} goes on there (it is {status or 'not seen yet'}) after {waited:.0f} s{trouble}"
            raise TrainingFailed(f"{what}, and the budget has no more time to wait", trainer.where, _AGAIN)
        bench.watcher.advance(int(waited) - shown)
        shown = int(waited)
        time.sleep(min(pause, seconds - waited))
        pause = min(1.5 * pause, LONGEST_PAUSE)


def _upload(home: Path, trainer: Trainer, part: str, content: bytes) -> str:
    try:
        return trainer.jobs.upload(f"{part}.jsonl", content)
    except JobsError as error:
        offers = "offers no fine-tuning" if error.status in UNOFFERED else f"did not take the {part} file"
        cure = _cure(error, trainer, home)
        raise TrainingFailed(f"the endpoint {offers}: {error}", trainer.where, cure) from None


def _cure(error: JobsError, trainer: Trainer, home: Path) -> str:
    leave = f"leave providers.{trainer.jobs.endpoint.name}.fine_tune out"
    if error.passing:
        return _AGAIN
    if error.status in (401, 403):
        return f"use a key that may fine-tune, or {leave}"
    if error.status in UNOFFERED:
        return f"check that {trainer.provider.model} can be fine-tuned there, or {leave}"
    return f"read what it says of {trainer.provider.model} and of the files in {home}, or {leave}"


def _told_of(job: HostedJob) -> dict[str, Any]:
    told = asdict(job)
    del told["training_file"]
    return {"job": told.pop("id"), **told}


def _lines(form: Form, examples: Sequence[Example], turns: str) -> bytes:
    rows = (orjson.dumps(training_row(form, example, turns), option=orjson.OPT_APPEND_NEWLINE) for example in examples)
    return b"".join(rows)


def _usd(provider: Provider, trained_tokens: int | None) -> float | None:
    """What the training cost; None where its price or its tokens are not known."""
    price = provider.fine_tune.usd_per_million_trained if provider.fine_tune else None
    return None if price is None or trained_tokens is None else trained_tokens * price / 1e6
