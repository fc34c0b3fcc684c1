"""The budget is kept when stages before a training took another time than planned."""

from __future__ import annotations

import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tuneworth as tw
from commands import command
from test_run import write_rows
from tiny import tiny_model, write_tokenizer
from tuneworth.console import ConsoleWatcher
from tuneworth.errors import InputError
from tuneworth.evaluation.watching import Silent
from tuneworth.pipeline import measuring, running
from tuneworth.pipeline.ladder import ARMS
from tuneworth.pipeline.preparing import read_splits
from tuneworth.pipeline.trainable import trainable
from tuneworth.pipeline.workshop import Workshop
from tuneworth.store.atomic import read_json, write_json
from tuneworth.store.run import RunFolder
from tuneworth.task import load_task

PLAN = {
    "budget": {"before": 50.0, "zero-shot": 10.0, "lora-short": 250.0, "lora-full": 30.0, "reserve": 20.0},
    "trainings": {"lora-short": {"seconds": 240.0}, "lora-full": {"seconds": 25.0}},
}


def work(spent: float | None, budget: float = 360.0) -> Any:
    started = None if spent is None else time.monotonic() - spent
    return SimpleNamespace(started=started, task=SimpleNamespace(budget=budget, arms="auto"))


@pytest.mark.parametrize(("spent", "wanted"), [(60, 280), (40, 300), (130, 210), (305, 35)])
def test_a_training_may_take_what_is_left_beside_what_is_still_to_come(spent: float, wanted: float) -> None:
    # 360 s less what was spent, 10 s of judging and half of the reserve; lora-full gives way.
    assert running._maximum_seconds(work(spent), PLAN, "lora-short") == pytest.approx(wanted, abs=0.5)


def test_a_continued_run_gives_a_training_its_share() -> None:
    assert running._maximum_seconds(work(None), PLAN, "lora-short") == pytest.approx(240 * 1.05)


def test_time_that_is_left_or_gone_changes_the_steps_once_and_a_continued_run_keeps_them(tmp_path: Path) -> None:
    plan = {
        **PLAN,
        "settings": {"epochs": {"value": 3}},
        "trainings": {
            "lora-short": {"seconds": 240.0, "steps": 100, "epochs": 1.0, "evaluation_seconds": 10.0},
            "lora-full": {"seconds": 25.0},
        },
    }

    def steps(spent: float | None, folder: str) -> int:
        home = tmp_path / folder
        at = SimpleNamespace(**vars(work(spent)), folder=SimpleNamespace(arm=lambda name: home / name))
        at.task.training = SimpleNamespace(seeds=1)
        return running._steps(at, plan, "lora-short")  # type: ignore[arg-type]

    assert steps(40, "quick") == 129  # 300 s instead of 240, of which four looks take 40
    assert steps(130, "quick") == 129
    assert steps(None, "quick") == 129
    assert steps(130, "slow") == 84
    assert steps(None, "continued") == 100
    plan["settings"]["epochs"]["value"] = 1
    assert steps(40, "as-wished") == 100  # never more than was wished for


def test_a_training_whose_time_is_gone_is_not_begun_and_says_why() -> None:
    assert running._too_late(work(130), PLAN, "lora-short") is None
    why = running._too_late(work(300), PLAN, "lora-short")
    assert why is not None
    assert "40 s of the budget are left of 240 s" in why
    late = running._too_late(work(500), PLAN, "lora-short")
    assert late is not None
    assert "0 s of the budget are left" in late


def test_a_dear_prompt_whose_time_is_gone_is_not_begun_either() -> None:
    # 360 s less 250 and 30 s of the trainings, half of the reserve, and what was spent.
    plan = {
        **PLAN,
        "budget": {"before": 50.0, "retrieved": 20.0, "lora-short": 250.0, "lora-full": 30.0, "reserve": 20.0},
    }
    assert running._too_late(work(60), plan, "retrieved") is None
    assert "0 s of the budget are left of 20 s" in str(running._too_late(work(90), plan, "retrieved"))


def test_a_prompting_arm_is_told_its_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = {
        "budget": {"few-shot": 12.5},
        "trainings": {},
        "forms": {"few-shot": 2},
        "skipped": {},
        "settings": {},
        "test_rows": 9,
    }
    write_json(tmp_path / "plan.json", plan)
    told: list[Any] = []
    monkeypatch.setattr(running, "prompt_arm", lambda *given: told.append(given))
    monkeypatch.setattr("tuneworth.pipeline.ladder.few_shot", lambda bench: ["four", "sixteen"])
    at = SimpleNamespace(
        started=None, task=SimpleNamespace(arms="auto", budget=60.0), bench=lambda rows: SimpleNamespace(),
        model_of=lambda arm: "m", folder=SimpleNamespace(plan=tmp_path / "plan.json"),
        splits=SimpleNamespace(kind="classification"),
    )  # fmt: skip
    running.run_arm(at, ARMS["few-shot"])  # type: ignore[arg-type]
    assert told[0][1:] == ("few-shot", "m", ["four", "sixteen"], 12.5, math.inf)


def test_a_slow_prompt_may_take_what_is_left_beside_later_stages_and_a_tenth_of_the_budget() -> None:
    # Of 360 s, 280 are for trainings and 10 for half of the reserve.
    plan = {
        **PLAN,
        "budget": {"before": 30.0, "few-shot": 20.0, "lora-short": 250.0, "lora-full": 30.0, "reserve": 20.0},
    }
    assert running._most_seconds(work(20), plan, "few-shot") == pytest.approx(50 + 36, abs=1)
    assert running._most_seconds(work(120), plan, "few-shot") == pytest.approx(20 + 36)  # as planned, and a tenth
    named = work(120)
    named.task.arms = ("few-shot",)
    assert running._most_seconds(named, plan, "few-shot") == math.inf


def test_rows_of_one_conversation_are_not_timed_side_by_side() -> None:
    rows = tuple(SimpleNamespace(id=f"{n}", group=f"talk {n // 3}") for n in range(60))
    scoring = SimpleNamespace(chooses=False)
    bench: Any = SimpleNamespace(validation=rows, scoring=scoring, task=SimpleNamespace(budget=600.0))
    found = measuring._sample(bench)
    assert len(found) == 32
    assert len({row.group for row in found[:20]}) == 20  # one of each of the 20 first
    alone: Any = SimpleNamespace(
        **{**vars(bench), "validation": tuple(SimpleNamespace(id=r.id, group=None) for r in rows)}
    )
    assert [row.id for row in measuring._sample(alone)] == [f"{n}" for n in range(32)]


def test_a_training_that_the_plan_left_out_has_its_turn_when_the_stages_before_it_were_quick(tmp_path: Path) -> None:
    tiny_model().float().save_pretrained(tmp_path / "model")
    write_tokenizer(tmp_path / "model")
    write_rows(tmp_path / "train.csv", 120, 1)
    write_rows(tmp_path / "test.csv", 40, 2)
    task = load_task(
        None,
        {"data.train": str(tmp_path / "train.csv"), "data.test": str(tmp_path / "test.csv"), "budget": "10m",
         "models": [str(tmp_path / "model")], "arms": ["classical", "zero-shot", "lora-short"], "training.epochs": 1},
    )  # fmt: skip
    run = running.run(task, out=tmp_path / "run", until="plan", clock=time.monotonic() - 20)
    plan = run.plan
    assert plan["budget"]["before"] > 20  # loading libraries took time, too
    seconds = plan["budget"].pop("lora-short")
    del plan["trainings"]["lora-short"]
    plan["budget"]["zero-shot"] += seconds  # as if it had been measured at a bad moment
    plan["skipped"] = {"lora-short": "no time"}
    write_json(tmp_path / "run" / "plan.json", plan)
    folder = RunFolder(tmp_path / "run")

    def turn(spent: float | None) -> str:
        folder.arm_record("lora-short").unlink(missing_ok=True)
        write_json(folder.plan, plan)
        begun = None if spent is None else time.monotonic() - spent
        work = Workshop(task, folder, trainable(read_splits(folder), task), Silent(), begun)
        running.run_arm(work, ARMS["lora-short"])
        return str(running.read_arm(folder, "lora-short")["status"])

    assert turn(None) == "skipped"  # nobody knows what a continued run has left
    assert turn(598) == "skipped"
    assert read_json(folder.plan) == plan
    assert turn(100) == "done"
    now = read_json(folder.plan)
    assert now["skipped"] == {}
    assert now["trainings"]["lora-short"]["epochs"] >= 0.5
    assert sum(now["budget"].values()) == pytest.approx(600)
    assert min(now["budget"].values()) >= 0
    assert now["budget"]["before"] + now["budget"]["classical"] + now["budget"]["zero-shot"] == pytest.approx(
        100, abs=5
    )
    assert all(probe["why"] for probe in now["probes"].values())  # what is left is theirs, but none is promised


def test_the_budget_counts_from_the_command_not_from_when_its_libraries_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "train.csv", 20, 1)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "task.yaml").write_text("data: {train: train.csv}")
    begun: list[float] = []

    def told(*given: Any, clock: float | None = None, **more: Any) -> None:
        assert clock is not None
        begun.append(time.monotonic() - clock)
        raise InputError("enough is known")

    loading = ConsoleWatcher.begin

    def slowly(self: ConsoleWatcher, what: str, total: int) -> None:
        time.sleep(0.3)
        loading(self, what, total)

    monkeypatch.setattr(ConsoleWatcher, "begin", slowly)
    for name in ("run", "resume"):
        monkeypatch.setattr(running, name, told)
    assert command("run", tmp_path / "train.csv") == 2
    assert command("run", tmp_path / "run") == 2
    with pytest.raises(InputError):
        tw.run(tmp_path / "train.csv")
    assert len(begun) == 3
    assert min(begun[:2]) >= 0.3
