"""Fine-tuning at an endpoint: the rows that go up are what is asked later, a training is begun once and paid for once,
and whatever goes wrong is a failed arm that says what, where and the cure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from endpoint import Said, completion, failure, serving
from tuneworth.data import Example, Message
from tuneworth.evaluation import hosted_tuned
from tuneworth.evaluation.arms import Bench
from tuneworth.evaluation.hosted import HostedModel, told
from tuneworth.evaluation.hosted_tuned import Trainer, hosted_tuned_arm, training_row
from tuneworth.evaluation.local import Scoring
from tuneworth.evaluation.metrics import choose_metric
from tuneworth.evaluation.prompts import SHORT, PromptForm, with_shots
from tuneworth.evaluation.watching import Silent
from tuneworth.inference.hosted import Endpoint, HostedChat
from tuneworth.inference.hosted_jobs import HostedJobs
from tuneworth.store.atomic import read_json, read_jsonl
from tuneworth.store.replies import Replies
from tuneworth.store.run import RunFolder, read_arm
from tuneworth.task import Provider, Task, parse_task

NAME = "hosted-tuned@them"
KEY = "sk-very-secret-0123456789"
LABELS = ("late", "pay")


@dataclass
class Trained:
    """An endpoint that fine-tunes: what it got, and what it does instead of a step when it is told to."""

    statuses: list[str] = field(default_factory=lambda: ["validating_files", "running", "succeeded"])
    instead: Callable[[str, str, Trained], Any] = lambda method, path, state: None
    files: dict[str, bytes] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, Any] | None = None
    trained_tokens: int | None = 5000

    def __call__(self, method: str, path: str, body: Any) -> Said | dict[str, Any]:
        step = path.partition("?")[0].removeprefix("/v1")
        said = self.instead(method, step, self)
        if said is not None:
            return said
        if (method, step) == ("POST", "/files"):
            name = f"file-{len(self.files)}"
            self.files[name] = re.search(rb"\r\n\r\n(\{.*\})\n\r\n", body, re.DOTALL)[1]  # type: ignore[index]
            return {"id": name, "object": "file", "purpose": "fine-tune"}
        if (method, step) == ("POST", "/fine_tuning/jobs"):
            self.jobs.insert(0, {"id": f"ftjob-{len(self.jobs)}", "object": "fine_tuning.job", **body})
            return {**self.jobs[0], "status": self.statuses[0]}
        if (method, step) == ("GET", "/fine_tuning/jobs"):
            return {"object": "list", "data": [{**job, "status": self.statuses[0]} for job in self.jobs]}
        if method == "GET":
            status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
            job = next(job for job in self.jobs if step.endswith(job["id"]))
            ended = {"fine_tuned_model": f"ft:{job['model']}", "trained_tokens": self.trained_tokens, "created_at": 100,
                     "finished_at": 160}  # fmt: skip
            return {**job, "status": status, "error": self.error, **(ended if status == "succeeded" else {})}
        return completion("late" if body["model"].startswith("ft:") else "pay")

    def seen(self, server: Any, method: str, step: str) -> int:
        return sum((m, p.partition("?")[0]) == (method, f"/v1{step}") for m, p, *_ in server.requests)


def rows(part: str, count: int) -> tuple[Example, ...]:
    return tuple(Example(f"{part}{n}", (Message("user", f"{part} {n}"),), LABELS[n % 2], part, n) for n in range(count))


def bench_in(folder: Path, **changes: Any) -> Bench:
    scoring = Scoring(choose_metric(Task(), "classification", LABELS), LABELS, 8, "constrained", "classification")
    values: dict[str, Any] = {
        "task": Task(), "kind": "classification", "scoring": scoring, "train": rows("train", 12),
        "validation": rows("validation", 4), "test": rows("test", 6), "folder": RunFolder(folder), "watcher": Silent(),
    }  # fmt: skip
    return Bench(**values | changes)


def trainer_at(base_url: str, folder: Path, retries: int = 1, **prices: Any) -> Trainer:
    provider = Provider.model_validate({"base_url": base_url, "model": "m", "fine_tune": prices or True})
    endpoint = Endpoint("them", base_url, "m", KEY)

    def model_named(model: str) -> HostedModel:
        there = provider.model_copy(update={"model": model})
        chat = HostedChat(Endpoint("them", base_url, model, KEY), timeout_seconds=5, retries=0)
        return HostedModel(chat, Replies(folder / "replies.jsonl"), there)

    return Trainer(HostedJobs(endpoint, timeout_seconds=2, retries=retries), provider, model_named)


def tune(bench: Bench, trainer: Trainer, seconds: float = 30.0) -> dict[str, Any]:
    hosted_tuned_arm(bench, NAME, trainer, bench.form(SHORT), seconds)
    return read_arm(bench.folder, NAME)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosted_tuned, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr("tuneworth.inference.hosted_jobs._PAUSES", (0.01, 0.01, 0.01, 0.01))


def test_law_2_what_is_trained_is_what_is_asked_later_and_no_test_row_goes_up(tmp_path: Path) -> None:
    bench, endpoint = bench_in(tmp_path), Trained()
    with serving(endpoint) as server:
        arm = tune(bench, trainer_at(server.base_url, tmp_path, usd_per_million_trained=3.0))
        asked = [b["messages"] for *_, p, b, _ in server.requests if p.endswith("/chat/completions")]
        (job,) = endpoint.jobs
    form = bench.form(SHORT)
    learnt = [json.loads(line) for line in endpoint.files[job["training_file"]].splitlines()]
    watched = [json.loads(line) for line in endpoint.files[job["validation_file"]].splitlines()]
    for uploaded, examples in ((learnt, bench.train), (watched, bench.validation)):
        assert [row["messages"][:-1] for row in uploaded] == [told(form, example) for example in examples]
        assert [row["messages"][-1] for row in uploaded] == [
            {"role": "assistant", "content": example.answer} for example in examples
        ]
    assert sorted(map(str, asked)) == sorted(
        str(told(form, example)) for example in (*bench.validation, *bench.test)
    )  # validation only for its latency
    assert not [
        example.text for example in bench.test for file in endpoint.files.values() if example.text.encode() in file
    ]
    assert {key: job[key] for key in ("model", "seed")} == {"model": "m", "seed": 0}
    assert (arm["status"], arm["family"], arm["score"], arm["form"]) == ("done", "fine-tune", 0.5, SHORT)
    assert arm["provider"]["model"] == "ft:m"
    assert arm["build_usd"] == pytest.approx(5000 * 3.0 / 1e6)
    assert arm["settings"] == {
        "base_model": "m", "rows": 12, "validation_rows": 4, "job": "ftjob-0", "training_file": "file-0",
        "validation_file": "file-1", "trained_tokens": 5000, "seconds": 60.0,
    }  # fmt: skip


@pytest.mark.parametrize(("price", "tokens"), [(None, 5000), (3.0, None)])
def test_a_training_whose_price_or_tokens_are_not_known_has_no_cost(
    tmp_path: Path, price: float | None, tokens: int | None
) -> None:
    with serving(Trained(trained_tokens=tokens)) as server:
        prices = {} if price is None else {"usd_per_million_trained": price}
        arm = tune(bench_in(tmp_path), trainer_at(server.base_url, tmp_path, **prices))
    assert (arm["status"], arm["build_usd"], arm["token_price"]) == ("done", None, None)


def test_answers_that_must_not_be_learnt_have_weight_0_and_those_of_one_turn_none() -> None:
    talk = (Message("user", "a"), Message("assistant", "b", weight=0), Message("user", "c"))
    row = Example("r", talk, "d", "f", 1)
    (shot,) = with_shots(PromptForm("s", "Sort."), rows("train", 1), 1, 0, "chat").shots
    uploaded = training_row(PromptForm("s", "Sort.", (shot,)), row)["messages"]
    assert [message.get("weight") for message in uploaded] == [None, None, 0, None, 0, None, None]
    assert [m.get("weight") for m in training_row(PromptForm("s", None), row, "last")["messages"]] == [
        None,
        0,
        None,
        None,
    ]
    assert uploaded[-1] == {"role": "assistant", "content": "d"}


def test_a_training_that_was_begun_is_continued_and_never_paid_for_twice(tmp_path: Path) -> None:
    endpoint = Trained(["running"])
    with serving(endpoint) as server:
        trainer = trainer_at(server.base_url, tmp_path)
        arm = tune(bench_in(tmp_path), trainer, 0.05)
        assert arm["status"] == "failed"
        assert re.search(r"ftjob-0 goes on there \(it is running\).*no more time.*not paid for twice", arm["why"])
        endpoint.statuses = ["running", "succeeded"]
        assert tune(bench_in(tmp_path), trainer)["status"] == "done"
        assert (len(endpoint.jobs), len(endpoint.files)) == (1, 2)
        looks = endpoint.seen(server, "GET", "/fine_tuning/jobs/ftjob-0")
        assert tune(bench_in(tmp_path), trainer)["status"] == "done"
        assert endpoint.seen(server, "GET", "/fine_tuning/jobs/ftjob-0") == looks


@pytest.mark.parametrize("what", ["the reply is lost", "the endpoint blames itself"])
def test_a_job_whose_reply_was_lost_is_found_at_the_endpoint_instead_of_begun_again(tmp_path: Path, what: str) -> None:
    def lost(method: str, step: str, state: Trained) -> Any:
        if (method, step) == ("POST", "/fine_tuning/jobs") and not state.jobs:
            body = json.loads(json.dumps({"model": "m", "training_file": "file-0", "validation_file": "file-1"}))
            state.jobs.append({"id": "ftjob-0", **body})
            return Said(b"<html>half an ans") if what == "the reply is lost" else failure(500, "sorry")
        return None

    endpoint = Trained(instead=lost)
    with serving(endpoint) as server:
        trainer = trainer_at(server.base_url, tmp_path)
        first = tune(bench_in(tmp_path), trainer)
        if what == "the reply is lost":
            assert first["status"] == "failed"
            assert "no training was begun: the reply is no JSON" in first["why"]
            first = tune(bench_in(tmp_path), trainer)
        assert first["status"] == "done"
        assert endpoint.seen(server, "POST", "/fine_tuning/jobs") == 1
    assert len(endpoint.jobs) == 1


def test_a_killed_process_between_request_and_reply_begins_no_second_job(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    endpoint = Trained()
    with serving(endpoint) as server:
        trainer = trainer_at(server.base_url, tmp_path)
        begin = trainer.jobs.begin

        def dies(*args: Any, **kwargs: Any) -> Any:
            begin(*args, **kwargs)
            raise Killed

        trainer.jobs.begin = dies  # type: ignore[method-assign]
        with pytest.raises(Killed):
            tune(bench_in(tmp_path), trainer)
        assert read_json(tmp_path / "arms" / NAME / "job.json")["job"] is None
        assert tune(bench_in(tmp_path), trainer_at(server.base_url, tmp_path))["status"] == "done"
    assert (len(endpoint.jobs), len(endpoint.files)) == (1, 2)


def test_jobs_are_looked_through_page_by_page_and_an_endpoint_that_repeats_a_page_ends_it(tmp_path: Path) -> None:
    jobs = [{"id": f"j{n}", "status": "running", "training_file": f"f{n}"} for n in range(5)]

    def pages(method: str, path: str, body: Any) -> dict[str, Any]:
        after = re.search(r"after=j(\d)", path)
        start = int(after[1]) + 1 if after and not stuck else 0
        return {"data": jobs[start : start + 2], "has_more": start + 2 < len(jobs)}

    stuck = False
    with serving(pages) as server:
        there = trainer_at(server.base_url, tmp_path).jobs
        found = there.find("f4")
        assert found is not None
        assert found.id == "j4"
        assert there.find("f9") is None
        stuck, before = True, len(server.requests)
        assert there.find("f4") is None
        assert len(server.requests) - before == 2


@pytest.mark.parametrize(
    ("step", "said", "wanted"),
    [
        ("/files", failure(404, "no such path"), "offers no fine-tuning: HTTP 404: .*leave providers.them.fine_tune"),
        ("/files", failure(400, "line 3 is bad"), "did not take the training file: HTTP 400: .*line 3 is bad.*read"),
        ("/files", failure(401, "bad key"), "did not take .*HTTP 401: .*Cure: use a key that may fine-tune"),
        ("/files", failure(429, "slow", retry_after_ms="1"), "HTTP 429: .*slow.*Cure: run the same command again"),
        ("/files", failure(503, "down", retry_after_ms="1"), "HTTP 503: .*down.*Cure: run the same command again"),
        ("/files", Said(b"<html>"), "did not take .*the reply is no JSON"),
        ("/files", Said({"object": "file"}), "the reply tells no id of the file"),
        ("/fine_tuning/jobs", failure(404, "no model m"), "no training was begun: .*check that m can be fine-tuned"),
        ("/fine_tuning/jobs", failure(400, f"bad {KEY}"), r"no training was begun: HTTP 400: .*bad \[key\]"),
        ("/fine_tuning/jobs", failure(429, "one at a time", retry_after_ms="1"), "HTTP 429: .*one at a time"),
        ("/fine_tuning/jobs", failure(500, "oh", retry_after_ms="1"), "no training was begun: HTTP 500: .*Cure: run"),
        ("/fine_tuning/jobs/ftjob-0", failure(404, "gone"), "ftjob-0 cannot be looked at: HTTP 404: .*check the key"),
        ("/fine_tuning/jobs/ftjob-0", failure(500, "oh", retry_after_ms="1"), "the last look failed: HTTP 500"),
    ],
)  # fmt: skip
def test_whatever_goes_wrong_is_a_failed_arm_with_what_where_and_the_cure_and_the_next_try_may_go_well(
    tmp_path: Path, step: str, said: Said, wanted: str
) -> None:
    endpoint = Trained(instead=lambda method, path, state: said if path == step and method != "x" else None)
    if step == "/fine_tuning/jobs":
        endpoint.instead = lambda method, path, state: said if path == step and method == "POST" else None
    with serving(endpoint) as server:
        trainer = trainer_at(server.base_url, tmp_path)
        arm = tune(bench_in(tmp_path), trainer, 0.05)
        assert (arm["status"], arm["family"], arm["model"]) == ("failed", "fine-tune", f"m at {server.base_url[7:-3]}")
        assert arm["why"].startswith(f"providers.them ({server.base_url}): ")
        assert re.search(wanted, arm["why"]), arm["why"]
        assert "Cure: " in arm["why"]
        endpoint.instead = lambda method, path, state: None
        assert tune(bench_in(tmp_path), trainer)["status"] == "done"
        assert len(endpoint.jobs) == 1
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_training_that_failed_there_says_why_and_is_not_begun_anew_by_itself(tmp_path: Path, status: str) -> None:
    endpoint = Trained(["running", status], error={"message": "line 7: no assistant message", "code": "bad_file"})
    with serving(endpoint) as server:
        trainer = trainer_at(server.base_url, tmp_path)
        for _ in range(2):
            why = tune(bench_in(tmp_path), trainer)["why"]
            assert f"job ftjob-0 has ended as {status}: line 7: no assistant message" in why
            assert f"delete {tmp_path / 'arms' / NAME / 'job.json'} to begin another training, which is paid for" in why
        assert len(endpoint.jobs) == 1
        (tmp_path / "arms" / NAME / "job.json").unlink()
        endpoint.statuses = ["succeeded"]
        assert tune(bench_in(tmp_path), trainer)["status"] == "done"


def test_rows_that_were_trained_otherwise_are_not_asked_behind_another_prompt(tmp_path: Path) -> None:
    with serving(Trained()) as server:
        trainer = trainer_at(server.base_url, tmp_path)
        assert tune(bench_in(tmp_path), trainer)["status"] == "done"
        other = tune(bench_in(tmp_path, train=rows("train", 11)), trainer)
    assert other["status"] == "failed"
    assert "its files were written otherwise when job ftjob-0 was begun" in other["why"]
    assert len(read_jsonl(tmp_path / "arms" / NAME / "training.jsonl")) == 12


def test_a_provider_trains_only_when_the_task_says_so() -> None:
    there = {"base_url": "http://x", "model": "m"}

    def told_in(fine_tune: Any) -> Any:
        return parse_task({"providers": {"a": {**there, "fine_tune": fine_tune}}}, "t").providers["a"].fine_tune

    assert Provider.model_validate(there).fine_tune is told_in(False) is told_in(None) is None
    assert told_in(True) == told_in({})
    assert told_in({"usd_per_million_trained": 3}).usd_per_million_trained == 3
    with pytest.raises(Exception, match=r"unknown key 'providers.a.fine_tune.usd'.*usd_per_million"):
        told_in({"usd": 3})
