"""The ladder in a run: hosted models beside local ones, failures that do not end it, retrieved examples when served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from endpoint import Said, completion, failure, serving
from test_run import write_rows
from tiny import tiny_model, write_tokenizer
from tuneworth.data import Example
from tuneworth.errors import InputError
from tuneworth.evaluation import hosted_tuned
from tuneworth.pipeline import running
from tuneworth.pipeline.ladder import ARMS, arms_of, known_arms
from tuneworth.store.atomic import read_jsonl
from tuneworth.task import load_task

KEY = "sk-secret-of-the-test-77"
HOSTED = ["zero-shot@them", "few-shot@them", "retrieved@them"]
WORDS = {"late": ("parcel", "waiting", "come"), "broken": ("lamp", "glass", "dead"), "pay": ("card",)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("arms of a run")
    tiny_model().float().save_pretrained(place / "model")
    write_tokenizer(place / "model")
    write_rows(place / "train.csv", 120, 1)
    write_rows(place / "test.csv", 40, 2)
    return place


def task(place: Path, base_url: str | None, **changes: Any) -> Any:
    provider = {"base_url": base_url, "model": "m", "api_key_env": "THEIR_KEY", "usd_per_million_input": 1.0,
                "usd_per_million_output": 4.0}  # fmt: skip
    settings = {
        "data.train": str(place / "train.csv"), "data.test": str(place / "test.csv"), "budget": "10m",
        "models": [str(place / "model")], "providers": {"them": provider} if base_url else {}, "training.epochs": 1,
        **changes,
    }  # fmt: skip
    return load_task(None, settings)


def clever(method: str, path: str, body: Any) -> dict[str, Any]:
    """A model that knows the words."""
    text = body["messages"][-1]["content"]
    return completion(next((label for label, words in WORDS.items() if any(w in text for w in words)), "pay"))


def statuses(run: Any) -> dict[str, str]:
    return {arm["name"]: arm["status"] for arm in run.verdict["arms"]}


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("THEIR_KEY", KEY)
    yield KEY


def test_a_hosted_model_runs_through_every_prompting_arm_and_is_weighed_by_its_price(
    place: Path, tmp_path: Path, key: str
) -> None:
    with serving(clever) as server:
        job = task(place, server.base_url, arms=["classical", "zero-shot", *HOSTED])
        run = running.run(job, out=tmp_path / "run")
        asked = len(server.requests)
        assert all(headers.get("authorization") == f"Bearer {KEY}" for *_, headers in server.requests)
        for name in ("arms", "verdict.json", "report.html", "probes.json"):  # all but what was paid for
            path = tmp_path / "run" / name
            path.rename(tmp_path / name)
        again = running.run(job, out=tmp_path / "run")
        assert len(server.requests) == asked  # nothing is paid for twice
    for name in HOSTED:
        arm, other = run.arm(name), again.arm(name)
        assert arm["status"] == "done"
        assert arm["score"] == other["score"] > run.arm("zero-shot")["score"]
        assert (arm["decoding"], arm["input_tokens"], arm["output_tokens"]) == ("generate", 11, 3)
        assert arm["provider"] == {"name": "them", "base_url": server.base_url, "model": "m"}
    rows = {arm["name"]: arm for arm in run.verdict["arms"]}
    assert set(rows) == {"classical", "zero-shot", *HOSTED}
    assert rows["zero-shot@them"]["usd_per_1k_requests"] == pytest.approx(1000 * (11 * 1.0 + 3 * 4.0) / 1e6)
    chosen_from = run.arm("few-shot@them")["settings"]["tried"]
    answers = sum(one["rows"] for one in chosen_from)
    assert run.arm("few-shot@them")["build_usd"] == pytest.approx(answers * (11 + 12) / 1e6)
    assert not [p for p in (tmp_path / "run").rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]


def test_a_provider_that_breaks_down_fails_its_arm_alone_and_the_same_command_tries_again(
    place: Path, tmp_path: Path, key: str
) -> None:
    broken = True

    def breaks(method: str, path: str, body: Any) -> Said | dict[str, Any]:
        text = body["messages"][-1]["content"]
        return failure(400, "no capacity") if broken and " 2-" in text else clever(method, path, body)

    with serving(breaks) as server:  # texts of test rows end in 2-N
        job = task(place, server.base_url, arms=["classical", "zero-shot@them"])
        run = running.run(job, out=tmp_path / "run")
        arm = run.arm("zero-shot@them")
        assert arm["status"] == "failed"
        assert "of 40 test rows could not be asked" in arm["why"]
        assert "HTTP 400: " in arm["why"]
        assert "no capacity" in arm["why"]
        assert {a["name"]: a["status"] for a in run.verdict["arms"]} == {
            "classical": "done",
            "zero-shot@them": "failed",
        }
        classical = (tmp_path / "run/arms/classical/arm.json").stat().st_mtime_ns
        broken = False
        run = running.run(job, out=tmp_path / "run")
    assert run.arm("zero-shot@them")["status"] == "done"
    assert statuses(run) == {"classical": "done", "zero-shot@them": "done"}
    assert (tmp_path / "run/arms/classical/arm.json").stat().st_mtime_ns == classical


def test_a_missing_key_stops_before_anything_starts(place: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"providers\.them\.api_key_env: .*THEIR_KEY"):
        running.run(task(place, "http://127.0.0.1:9/v1"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_ladder_is_one_table_from_cheap_to_dear_and_providers_add_to_it() -> None:
    job = load_task(None, {"providers": {"a": {"base_url": "http://x", "model": "m"}}})
    assert list(arms_of(load_task(None))) == [
        "classical", "zero-shot", "few-shot", "reworded", "retrieved", "searched", "lora-short", "lora-full",
    ]  # fmt: skip
    assert [name for name in arms_of(job) if "@" in name] == ["zero-shot@a", "few-shot@a", "retrieved@a"]
    prompting = {f"{n}@a" for n, arm in ARMS.items() if arm.asked}
    assert {name for name in known_arms(job) if "@" in name} == {*prompting, "hosted-tuned@a"}
    paid = load_task(None, {"providers": {"a": {"base_url": "http://x", "model": "m", "fine_tune": True}}})
    assert list(arms_of(paid)) == [*arms_of(job), "hosted-tuned@a"]  # last: it trains there while others train here
    families = [arm.family for arm in known_arms(job).values()]
    assert families == sorted(families, key=["classical", "prompt", "fine-tune"].index)


def test_a_hosted_training_goes_from_upload_to_verdict_and_a_continued_run_waits_for_the_same_job(
    place: Path, tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosted_tuned, "FIRST_PAUSE", 0.01)
    status, jobs = "running", 0

    def there(method: str, path: str, body: Any) -> dict[str, Any]:
        nonlocal jobs
        if path.endswith("/chat/completions"):
            return clever(method, path, body) if body["model"] == "ft:m:7" else completion("pay")
        if path.endswith("/files"):
            return {"id": "file-1"}
        jobs += method == "POST"
        ended = {"fine_tuned_model": "ft:m:7", "trained_tokens": 4000} if status == "succeeded" else {}
        return {"id": "job-1", "status": status, "training_file": "file-1", **ended}

    with serving(there) as server:
        prices = {"usd_per_million_trained": 25.0, "usd_per_million_input": 3.0, "usd_per_million_output": 12.0}
        provider = {"base_url": server.base_url, "model": "m", "api_key_env": "THEIR_KEY", "fine_tune": prices}
        names = ["classical", "zero-shot@them", "hosted-tuned@them"]
        job = task(place, server.base_url, arms=names, **{"providers": {"them": provider}})
        monkeypatch.setattr(running, "_waiting_seconds", lambda *_: 0.0)
        run = running.run(job, out=tmp_path / "run")
        assert "job job-1 goes on there (it is running)" in run.arm("hosted-tuned@them")["why"]
        assert statuses(run) == {"classical": "done", "zero-shot@them": "done", "hosted-tuned@them": "failed"}
        status = "succeeded"
        run = running.run(job, out=tmp_path / "run")
        assert jobs == 1
    assert list(run.plan["budget"])[:4] == ["before", *names]
    (arm,) = [arm for arm in run.verdict["arms"] if arm["name"] == "hosted-tuned@them"]
    assert (arm["status"], arm["family"], arm["usd_to_build"]) == ("done", "fine-tune", pytest.approx(0.1))
    assert arm["usd_per_1k_requests"] == pytest.approx(1000 * (11 * 3.0 + 3 * 12.0) / 1e6)
    assert arm["score"] > run.arm("zero-shot@them")["score"]
    assert "hosted-tuned@them" in run.report.read_text("utf-8")


def test_a_training_that_is_paid_for_is_refused_when_only_its_arm_is_named(
    place: Path, tmp_path: Path, key: str
) -> None:
    with pytest.raises(InputError, match=r"arms: .*hosted-tuned@them.*set providers.them.fine_tune to true"):
        running.run(task(place, "http://127.0.0.1:9/v1", arms=["hosted-tuned@them"]), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_trained_arm_with_examples_does_not_learn_the_rows_that_it_shows(place: Path, tmp_path: Path) -> None:
    run = running.run(task(place, None, arms=["lora-few-shot"]), out=tmp_path / "run")
    arm = run.arm("lora-few-shot")
    train = {row["id"] for row in read_jsonl(run.folder.splits / "train.jsonl")}
    assert len(arm["shots"]) == 8
    assert set(arm["shots"]) <= train
    assert arm["settings"]["rows"] == len(train) - 8
    assert len(arm["prompt"]) == 1 + 2 * 8 + 1


def test_retrieved_examples_are_train_rows_and_the_served_arm_shows_the_same(place: Path, tmp_path: Path) -> None:
    run = running.run(task(place, None, arms=["retrieved"]), out=tmp_path / "run")
    train = {row["messages"][-1]["content"] for row in read_jsonl(run.folder.splits / "train.jsonl")}
    test = [Example.from_json(row) for row in read_jsonl(run.folder.splits / "test.jsonl")]
    shown = run.arm("retrieved")["prompt"]
    asked = [message["content"] for message in shown if message["role"] == "user"]
    assert len(asked) > 1
    assert asked[-1] == test[0].text
    assert set(asked[:-1]) <= train
    talker = run.chat_with("retrieved")
    rows = {row["id"]: row for row in read_jsonl(run.folder.arm("retrieved") / "answers.jsonl")}
    for example in test[:5]:
        messages = [{"role": m.role, "content": m.content} for m in example.messages]
        said = talker.chat(messages, max_new_tokens=run.arm("retrieved")["max_new_tokens"])
        assert said == rows[example.id]["raw"]
