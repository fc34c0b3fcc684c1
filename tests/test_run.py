"""The run as a whole, on a tiny random model: stages, resuming, laws 5 and 7, and what the command line promises."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from commands import command
from tiny import tiny_model, write_tokenizer
from tuneworth import load_run
from tuneworth.errors import Interrupted
from tuneworth.evaluation.watching import Silent
from tuneworth.pipeline import running
from tuneworth.pipeline.ladder import arms_of
from tuneworth.store.run import RunFolder
from tuneworth.task import load_task

ARMS = arms_of(load_task(None))
WORDS = {"late": "when does parcel come still waiting", "broken": "lamp glass cracked scratched dead", "pay": "card"}


def write_rows(path: Path, rows: int, seed: int, relabel: Mapping[str, str] | None = None) -> Path:
    chance = random.Random(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(rows):
            label = chance.choice(sorted(WORDS))
            words = chance.choices([*WORDS[label].split(), "the", "my", "please"], k=4)
            writer.writerow([f"{' '.join(words)} {seed}-{number}", (relabel or {}).get(label, label)])
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, train and test rows, and a finished run."""
    place = tmp_path_factory.mktemp("whole run")
    model = tiny_model()
    model.float().save_pretrained(place / "model")
    write_tokenizer(place / "model")
    write_rows(place / "train.csv", 160, 1)
    write_rows(place / "test.csv", 60, 2)
    running.run(task(place), out=place / "run")
    return place


def task(place: Path, **changes: Any) -> Any:
    return load_task(
        None,
        {
            "data.train": str(place / "train.csv"),
            "data.test": str(place / "test.csv"),
            "models": [str(place / "model")],
            "training.epochs": 4,
            "budget": "10m",
            **changes,
        },
    )


def same_plan(place: Path, other: Path, test: str = "test.csv") -> Any:
    """A run folder `other` with its own data but the plan of the finished run, stopped before any arm."""
    job = task(place, **{"data.test": str(place / test)})
    running.run(job, out=other, until="split")
    plan = json.loads((place / "run" / "plan.json").read_text())
    for training in plan["trainings"].values():
        training["seconds"] = 1000.0  # a busy machine must not cut a training here
    plan["probes"] = {}  # theirs is another test
    (other / "plan.json").write_text(json.dumps(plan))
    return job


def test_a_run_leaves_all_files_of_the_contract(place: Path) -> None:
    run = load_run(place / "run")
    verdict = run.verdict
    assert verdict["schema"] == "tuneworth.verdict/1"
    assert verdict["test_rows"] == 60
    assert {arm["name"]: arm["status"] for arm in verdict["arms"]} == dict.fromkeys(ARMS, "done")
    assert verdict["looks_at_test"] == 1
    for name in ARMS:
        answers = (run.folder.arm(name) / "answers.jsonl").read_text().splitlines()
        record = run.arm(name)
        scores = [json.loads(line)["score"] for line in answers]
        assert len(scores) == 60
        assert record["score"] == pytest.approx(sum(scores) / 60)
    steps = [json.loads(s) for s in (run.folder.arm("lora-short") / "training/metrics.jsonl").read_text().splitlines()]
    losses = [step["loss"] for step in steps if "loss" in step]
    assert len(losses) == run.plan["trainings"]["lora-short"]["steps"]
    assert run.report.read_text().startswith("<!doctype html>")
    assert not list((place / "run").rglob("*.tmp*"))
    assert sum(run.plan["budget"].values()) == pytest.approx(600)


def test_all_arms_answer_the_same_rows_and_prompts_are_those_of_training(place: Path) -> None:
    run = load_run(place / "run")
    ids = {name: [row["id"] for row in answers(run, name)] for name in ARMS}
    assert len({tuple(rows) for rows in ids.values()}) == 1
    assert {row["prompt_hash"] for row in answers(run, "zero-shot")}.isdisjoint(
        row["prompt_hash"] for row in answers(run, "lora-short")
    )
    # The full form is the same text for the prompted and for the fine-tuned arm (LAW 2).
    assert [r["prompt_hash"] for r in answers(run, "zero-shot")] == [
        r["prompt_hash"] for r in answers(run, "lora-full")
    ]


def answers(run: Any, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder.arm(name) / "answers.jsonl").read_text().splitlines()]


def test_the_same_command_again_does_nothing_twice(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.stat().st_mtime_ns for p in (place / "run").rglob("*.json*") if p.name != "log.jsonl"}
    running.run(task(place), out=place / "run")
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert command("decide", place / "run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == load_run(place / "run").verdict["verdict"]


class StopsAt(Silent):
    """A watcher that interrupts the training once step `step` is recorded."""

    def __init__(self, step: int) -> None:
        self.step = step

    def record(self, record: Mapping[str, Any]) -> None:
        if record["step"] == self.step and "loss" in record:
            raise Interrupted(2)


@pytest.mark.parametrize("step", [3, 13, 25])
def test_law_5_an_interrupted_run_ends_with_the_same_weights(place: Path, tmp_path: Path, step: int) -> None:
    job = same_plan(place, tmp_path / "other")
    with pytest.raises(Interrupted):
        running.run(job, out=tmp_path / "other", watcher=StopsAt(step))
    assert not (tmp_path / "other/arms/lora-short/arm.json").exists()
    running.run(job, out=tmp_path / "other")
    for arm in ("lora-short", "lora-full"):
        mine, theirs = (
            p / "arms" / arm / "model/adapter_model.safetensors" for p in (tmp_path / "other", place / "run")
        )
        assert mine.read_bytes() == theirs.read_bytes()
    lines = (tmp_path / "other/arms/lora-short/training/metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [r["step"] for r in records if "loss" in r] == list(range(1, 1 + len([r for r in records if "loss" in r])))


def test_law_7_the_test_rows_choose_nothing(place: Path, tmp_path: Path) -> None:
    shuffled = {"late": "broken", "broken": "pay", "pay": "late"}
    write_rows(place / "other-test.csv", 60, 3, shuffled)
    job = same_plan(place, tmp_path / "other", "other-test.csv")
    run, first = running.run(job, out=tmp_path / "other"), load_run(place / "run")
    for arm in ("lora-short", "lora-full"):
        adapter = run.folder.arm(arm) / "model/adapter_model.safetensors"
        assert adapter.read_bytes() == (first.folder.arm(arm) / "model/adapter_model.safetensors").read_bytes()
    assert run.arm("few-shot")["shots"] == first.arm("few-shot")["shots"]
    assert run.arm("classical")["settings"] == first.arm("classical")["settings"]
    test_ids = {row["id"] for row in answers(run, "zero-shot")}
    assert test_ids.isdisjoint(run.arm("few-shot")["shots"])


def test_the_model_of_a_run_answers_as_it_was_judged(place: Path) -> None:
    run = load_run(place / "run")
    lines = (run.folder.splits / "test.jsonl").read_text().splitlines()
    rows = {row["id"]: row for row in map(json.loads, lines)}
    for arm in ("lora-short", "zero-shot"):
        talker = run.chat_with(arm)
        judged = answers(run, arm)[0]
        said = talker.chat(rows[judged["id"]]["messages"], max_new_tokens=run.arm(arm)["max_new_tokens"])
        assert said == judged["raw"]


def test_free_text_runs_end_to_end_and_is_scored_by_rouge_l(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"say {n} twice", "completion": f"here is {n} and again {n}"} for n in range(120)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = running.run(load_task(None, {"data.train": str(data), "models": [str(place / "model")], "budget": "10m"}))
    verdict = run.verdict
    status = {arm["name"]: arm["status"] for arm in verdict["arms"]}
    assert verdict["metric"] == "rouge-l"
    assert status == {**dict.fromkeys(ARMS, "done"), "lora-full": "skipped"}
    assert {arm["decoding"] for arm in verdict["arms"] if arm["family"] != "classical"} == {"generate"}
    assert 0 < run.arm("classical")["score"] < 1
    assert run.report.is_file()


def test_a_metric_that_does_not_fit_the_answers_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("plan", place / "train.csv", "--model", place / "model", "--kind", "generation", "--out", place / "other")
    assert command(*words, "--set", "metric=accuracy") == 2
    assert "'accuracy' is no metric for answers of kind generation" in capsys.readouterr().err


def test_another_task_in_the_same_folder_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = command("run", place / "train.csv", "--out", place / "run", "--model", place / "model", "--seed", 9)
    assert code == 2
    assert "another task, data or setting" in capsys.readouterr().err


def test_a_run_in_use_is_exit_code_4(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = RunFolder(place / "run")
    held.lock()
    try:
        assert command("decide", place / "run") == 4
    finally:
        held.unlock()
    assert "another process works on this run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["run", "{place}/nothing.csv"], ["there is no such data file", "check the path"]),
        (["run"], ["no data is named"]),
        (["audit", "{place}/train.csv", "--output", "labels"], ["labels", "did you mean 'label'?"]),
        (["run", "{place}/train.csv", "--model", "smollm-135m"], ["there is no model", "smollm2-135m-instruct"]),
        (["run", "{place}/train.csv", "--model", "./no/such"], ["there is no such model folder"]),
        (["run", "{place}/train.csv", "--set", "training.epoch=3"], ["unknown key", "did you mean 'epochs'?"]),
        (["run", "{place}/train.csv", "--budget", "soon"], ["no duration", "10m"]),
        (["run", "{place}/train.csv", "--set", "arms=[lora]"], ["unknown arms", "lora-short"]),
        (["run", "{place}/empty.csv"], ["empty"]),
        (["audit", "{place}/wrong.jsonl"], ["wrong.jsonl:1", "a list of messages is needed"]),
        (["decide", "{place}"], ["the folder holds runs, not data files", "give a data file"]),
        (["chat", "{place}"], ["no run folder"]),
        (["frobnicate"], ["frobnicate"]),
    ],
)
def test_a_mistake_is_one_clear_message_and_exit_code_2(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], parts: list[str]
) -> None:
    monkeypatch.chdir(place)  # where runs/ would appear
    (place / "empty.csv").write_bytes(b"")
    (place / "wrong.jsonl").write_text('{"messages": 3}\n')
    before = sorted(place.rglob("*"))
    assert command(*(word.format(place=place) for word in words)) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err
    for part in parts:
        assert part in shown.err
    assert sorted(p for p in place.rglob("*")) == before


def test_a_budget_too_short_says_what_would_do(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("run", place / "train.csv", "--model", place / "model", "--out", tmp_path / "run", "--budget", "1s")
    assert command(*words) == 2
    assert "too short" in capsys.readouterr().err


def test_init_writes_a_task_file_that_loads_and_says_what_it_found(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = place / "made.yaml"
    assert command("init", place / "train.csv", "--to", made) == 0
    loaded = load_task(made)
    assert loaded.data.train == str(place / "train.csv")
    assert (loaded.kind, loaded.data.columns.input, loaded.data.columns.output) == ("classification", "text", "label")
    assert command("init", place / "train.csv", "--to", made) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["audit", "{place}/run", "--json"]])
def test_help_and_audit_need_no_torch(place: Path, words: list[str]) -> None:
    argv = ["tuneworth", *(word.format(place=place) for word in words)]
    code = f"import sys; from tuneworth import cli; sys.argv = {argv!r}\ntry: cli.main()\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_is_quick() -> None:
    best = min(_seconds(["--help"]) for _ in range(3))
    assert best < 0.5 * 2, f"{best:.2f} s"  # the promise is 0.5 s on an idle machine; this one may be busy


def _seconds(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "tuneworth.cli", *words], capture_output=True, check=True)
    return time.perf_counter() - start
