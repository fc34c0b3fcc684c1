"""Of several pre-trained models a short race finds one, on train and validation rows alone, under a limit."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from test_run import write_rows
from tiny import tiny_model, write_tokenizer
from tuneworth.errors import InputError, Interrupted, MachineError
from tuneworth.evaluation.watching import Silent
from tuneworth.models.machine import this_machine
from tuneworth.pipeline import candidates, racing, running, trying
from tuneworth.pipeline.candidates import find_candidates
from tuneworth.plan import Pace, next_round, race_limit
from tuneworth.plan import racing as plan_racing
from tuneworth.store.atomic import read_jsonl
from tuneworth.task import load_task


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tiny models with other weights, and rows."""
    place = tmp_path_factory.mktemp("race")
    for seed in range(3):
        tiny_model(seed=seed).float().save_pretrained(place / f"model-{seed}")
        write_tokenizer(place / f"model-{seed}")
    write_rows(place / "train.csv", 150, 1)
    write_rows(place / "test.csv", 20, 2)
    return place


def task(place: Path, **changes: Any) -> Any:
    models = [str(place / f"model-{seed}") for seed in range(3)]
    settings = {"data.train": str(place / "train.csv"), "data.test": str(place / "test.csv"), "models": models,
                "arms": ["classical", "lora-short"], "training.epochs": 1, "budget": "10m", **changes}  # fmt: skip
    return load_task(None, settings)


@pytest.fixture(autouse=True)
def unhurried(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds on all rows, however busy the machine is; not where the limit itself is tested."""
    if not request.node.name.startswith(("test_what_all", "test_a_short")):
        monkeypatch.setattr(plan_racing, "_FREE_SECONDS", (500.0, 500.0))
        monkeypatch.setattr(plan_racing, "_FREE_SHARE", 0.9)


@pytest.fixture
def clever(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, float], None]:
    """Says how many rows of ten a candidate answers rightly, whatever it writes."""
    shares: dict[int, float] = {}
    genuine = racing._tried

    def tried(track: Any, candidate: Any, *more: Any) -> Any:
        found = genuine(track, candidate, *more)
        right = round(len(found.scores) * shares[candidate.number])
        scores = (1.0,) * right + (0.0,) * (len(found.scores) - right)
        return replace(found, scores=scores)

    monkeypatch.setattr(racing, "_tried", tried)
    return shares.__setitem__


def race_of(run: Any) -> dict[str, Any]:
    return json.loads((run / "race.json").read_text())  # type: ignore[no-any-return]


def test_the_worse_half_is_dropped_no_test_row_is_seen_and_the_rest_of_the_run_has_the_winner(
    place: Path, tmp_path: Path, clever: Callable[[int, float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[str] = set()
    genuine = trying.answered

    def answered(bench: Any, model: Any, form: Any, examples: Any) -> Any:
        asked.update(example.id for example in examples)
        assert bench.test == ()
        return genuine(bench, model, form, examples)

    opened = trying.Track.at

    def at(track: Any, candidate: Any) -> Any:
        work = opened(track, candidate)
        assert work.splits.test == ()
        return work

    monkeypatch.setattr(trying, "answered", answered)
    monkeypatch.setattr(trying.Track, "at", at)
    for number, share in enumerate((0.5, 0.7, 0.6)):
        clever(number, share)
    run = running.run(task(place), out=tmp_path / "run", until="train")
    race = race_of(tmp_path / "run")
    winner = str(place / "model-1")
    assert race["winner"] == winner == run.arm("lora-short")["model"]
    assert [one["status"] for one in race["candidates"]] == ["dropped", "won", "dropped"]
    assert [one["round"] for one in race["candidates"]] == [1, 2, 2]
    assert [one["score"] for one in race["candidates"]] == pytest.approx([0.5, 0.7, 0.6], abs=0.02)
    for one in race["candidates"]:
        assert one["interval"][0] < one["score"] < one["interval"][1]
        assert min(one["seconds"], one["usd_per_1k_requests"], one["rows"], one["parameters"]) > 0
        assert one["licence"] is None  # a folder's is not known
    behind = race["candidates"][2]["behind"]
    assert behind["model"] == winner
    assert behind["interval"][0] < behind["difference"] < behind["interval"][1]
    plan = run.plan
    assert plan["settings"]["model"]["value"] == winner
    assert plan["budget"]["race"] == pytest.approx(race["seconds"])
    assert sum(plan["budget"].values()) == pytest.approx(600)
    assert not (tmp_path / "run" / "race").exists()
    rows = {name: {row["id"] for row in read_jsonl(tmp_path / f"run/splits/{name}.jsonl")}
            for name in ("validation", "test")}  # fmt: skip
    assert asked
    assert asked <= rows["validation"]
    assert not asked & rows["test"]


def test_of_equal_scores_the_lower_loss_wins(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = racing._tried

    def tried(track: Any, candidate: Any, *more: Any) -> Any:
        found = genuine(track, candidate, *more)
        loss = (2.0, 1.5, 1.0)[candidate.number]
        a_row = (1e-4, 1e-3, 1e-2)[candidate.number]  # the dearest has learnt most
        return replace(found, scores=(1.0, 0.0) * (len(found.scores) // 2), loss=loss, answer_a_row=a_row)

    monkeypatch.setattr(racing, "_tried", tried)
    running.run(task(place), out=tmp_path / "run", until="plan")
    race = race_of(tmp_path / "run")
    assert race["winner"] == str(place / "model-2")
    assert [one["round"] for one in race["candidates"]] == [1, 2, 2]


def test_a_race_that_was_stopped_goes_on_and_does_nothing_twice(
    place: Path, tmp_path: Path, clever: Callable[[int, float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, share in enumerate((0.5, 0.7, 0.6)):
        clever(number, share)
    tried, begun = racing._tried, []

    def stopping(track: Any, candidate: Any, *more: Any) -> Any:
        begun.append(candidate.number)
        if len(begun) == 2:
            raise Interrupted(15)
        return tried(track, candidate, *more)

    monkeypatch.setattr(racing, "_tried", stopping)
    job = task(place, models=[str(place / f"model-{number}") for number in range(2)])
    with pytest.raises(Interrupted):
        running.run(job, out=tmp_path / "run", until="plan")
    assert begun == [0, 1]
    running.run(job, out=tmp_path / "run", until="plan")
    assert begun == [0, 1, 1]  # the first candidate's round stands
    assert race_of(tmp_path / "run")["winner"] == str(place / "model-1")


def test_a_candidate_that_cannot_be_used_is_left_out_with_the_reason(place: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    tiny_model(seed=7).float().save_pretrained(broken)
    write_tokenizer(broken)
    (broken / "model.safetensors").write_bytes(b"nothing")
    models = [str(broken), str(place / "model-0"), "mistral-7b-instruct-v0.3"]
    running.run(task(place, models=models), out=tmp_path / "run", until="plan")
    race = race_of(tmp_path / "run")
    assert race["winner"] == str(place / "model-0")
    by_model = {one["model"]: one for one in race["candidates"]}
    assert by_model[str(broken)]["status"] == "failed"
    assert "cannot be loaded" in by_model[str(broken)]["why"]
    told = by_model.get("mistral-7b-instruct-v0.3", {"why": {o["model"]: o["why"] for o in race["left_out"]}})
    assert told["why"]


def test_auto_takes_what_is_at_hand_fits_and_may_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    at_hand = {"qwen2.5-3b-instruct", "llama-3.3-70b-instruct", "smollm2-360m-instruct"}
    monkeypatch.setattr(candidates, "folder_at_hand", lambda model: tmp_path if model in at_hand else None)
    found = find_candidates(load_task(None, {"models": "auto"}), this_machine())
    assert [one.id for one in found.chosen] == ["smollm2-135m-instruct", "smollm2-360m-instruct"]
    why = dict(found.left_out)
    assert "forbids commercial use" in why["qwen2.5-3b-instruct"]
    assert "GB of memory" in why["llama-3.3-70b-instruct"]
    with pytest.raises(MachineError, match="none of the models can be tried"):
        find_candidates(load_task(None, {"models": ["llama-3.3-70b-instruct"]}), this_machine())


def test_a_race_needs_a_trained_arm_and_no_earlier_run(place: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no trained arm is asked for"):
        running.run(task(place, arms=["classical"]), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_budget_without_time_for_a_race_takes_the_first_model_and_says_so(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_racing, "_FREE_SECONDS", (0.01, 0.01))
    folder = running.run(task(place), out=tmp_path / "run", until="split").folder
    chosen = racing.settled(task(place), folder, Silent(), time.monotonic())
    assert chosen.models == [str(place / "model-0")]
    assert "not raced" in race_of(tmp_path / "run")["why"]


PACES = tuple(Pace(0.5, 0.01 * n, 0.005 * n, 80.0 * n) for n in (4, 3, 2, 1))


def test_what_all_rounds_take_stays_under_half_of_training_the_winner_whoever_wins() -> None:
    for survivors in ((0, 1), (2, 3), (0, 3), (1, 2)):
        spent = 0.0
        first = next_round(PACES, spent, 200, 8000, 400, 16)
        assert first is not None
        spent += first.seconds
        left = [PACES[number] for number in survivors]
        second = next_round(left, spent, 200, 8000, 400, 16)
        assert second is not None
        assert second.rows > first.rows
        for winner in left:
            assert spent + second.seconds <= 0.5 * winner.training + 1e-9
    assert next_round(PACES, 39, 200, 8000, 400, 16) is None


def test_a_short_training_leaves_a_race_a_little_of_the_budget() -> None:
    quick = [Pace(0.01, 1e-3, 1e-3, 1.0)] * 2
    assert race_limit(quick, 600) == 60
    assert race_limit(quick, 6000) == 90
    assert race_limit([*quick, Pace(0.01, 1e-3, 1e-3, 220.0)], 6000) == 110
    assert race_limit([*quick, Pace(0.01, 1e-3, 1e-3, 2200.0)], 6000) == 180
    assert race_limit([*quick, Pace(0.01, 1e-3, 1e-3, 2200.0)], 600) == 60
