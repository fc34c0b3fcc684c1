"""The probes of a run on a tiny model: what they write, that they are not done twice, and when they are left out."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from commands import command
from test_run import write_rows
from tiny import tiny_model, write_tokenizer
from tuneworth import load_run
from tuneworth.errors import Interrupted
from tuneworth.evaluation import forgetting, load, scope
from tuneworth.evaluation.forgetting import Knowledge
from tuneworth.evaluation.general import general_questions, general_requests, general_texts
from tuneworth.evaluation.perturbing import PERTURBATIONS
from tuneworth.evaluation.robustness import Robustness, Shaken
from tuneworth.evaluation.tuned import Attempt
from tuneworth.evaluation.watching import Silent
from tuneworth.pipeline import curve_drawing, planning, probing, running
from tuneworth.pipeline.curve_drawing import was_whole
from tuneworth.pipeline.probing import CannotAskError, Clock, Stage, forgetting_json, robustness_json
from tuneworth.plan import Rate, Rates
from tuneworth.plan.probing import CLASSICAL_CURVE, PROBES
from tuneworth.task import load_task

ARMS = ("classical", "few-shot", "retrieved", "lora-short")


@pytest.fixture(scope="module", autouse=True)
def _little_material() -> Iterator[None]:
    """Few texts, questions, requests and moments: a tiny model in float32 is no quicker than its tokens are many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "MOMENTS", {1: 2, 4: 2, 16: 2})
        patch.setattr(scope, "general_requests", lambda: general_requests()[:12])
        patch.setattr(forgetting, "general_texts", lambda: general_texts()[:5])
        patch.setattr(forgetting, "general_questions", lambda: general_questions()[:10])
        yield


@pytest.fixture(scope="module")
def place(_little_material: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, few rows, and a finished run whose budget affords all probes."""
    place = tmp_path_factory.mktemp("probes")
    tiny_model().float().save_pretrained(place / "model")
    write_tokenizer(place / "model")
    write_rows(place / "train.csv", 160, 1)
    write_rows(place / "test.csv", 30, 2)
    running.run(task(place), out=place / "run")
    return place


def task(place: Path, **changes: Any) -> Any:
    values = {
        "data.train": str(place / "train.csv"),
        "data.test": str(place / "test.csv"),
        "models": [str(place / "model")],
        "training.epochs": 1,
        "arms": list(ARMS),
        "budget": "10m",
    }
    return load_task(None, values | changes)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_budget_that_affords_the_probes_plans_and_makes_them_all(place: Path) -> None:
    run = load_run(place / "run")
    assert all(name in run.plan["budget"] for name in PROBES)
    assert list(run.plan["budget"])[-1] == "reserve"
    assert sum(run.plan["budget"].values()) == pytest.approx(600)
    assert run.plan["predicted"]["seconds"] == pytest.approx(600 - run.plan["budget"]["reserve"])
    found = read(run.folder.probes)
    assert {name: probe["status"] for name, probe in found["probes"].items()} == dict.fromkeys(PROBES, "done")
    assert found["arms_left_out"] == {}


def test_where_trainings_take_all_the_time_there_is_the_classical_curve_is_still_drawn(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Rates({"lora-short": Rate(0.0, 0.001)}, {"lora-short": 0.3}, classical=3.1)
    monkeypatch.setattr(planning, "measure", lambda *given: slow)
    asked = task(place, **{"arms": ["classical", "lora-short"], "training.epochs": 50, "budget": "300s"})
    plan = running.run(asked, out=tmp_path / "run", until="plan").plan
    assert 0.5 <= plan["trainings"]["lora-short"]["epochs"] < 50
    # 1.9 fits take 5.9 s: under a fiftieth of the budget, and more than the last step that no longer fits leaves over.
    assert plan["budget"][CLASSICAL_CURVE] == pytest.approx(5.89)
    assert sum(plan["budget"].values()) == pytest.approx(300)
    assert min(plan["budget"].values()) > 0


def test_every_arm_is_asked_in_the_ways_that_apply_to_it(place: Path) -> None:
    run = load_run(place / "run")
    requests = {"typos", "case", "spacing"}
    instructions = {"instruction-1", "instruction-2"}
    rest = {"examples-1", "examples-2", "labels-1", "labels-2"}
    shots = len(run.arm("few-shot")["shots"])
    assert shots > 1
    listed = {"labels-1", "labels-2"} if "Labels:" in str(run.arm("retrieved")["prompt"]) else set()
    wanted = {
        "classical": requests, "lora-short": requests | instructions, "few-shot": requests | instructions | rest,
        "retrieved": requests | instructions | listed,
    }  # fmt: skip
    for arm in ARMS:
        altered = read(run.folder.arm(arm) / "robustness.json")
        assert altered.pop("schema") == "tuneworth.robustness/1"
        assert set(altered) == wanted[arm]
        for entry in altered.values():
            low, high = entry["interval"]
            assert low <= entry["difference"] <= high
            assert 0 <= entry["score"] <= 1
        strangers = read(run.folder.arm(arm) / "out_of_scope.json")
        shares = [strangers[how] for how in ("answered", "declined", "empty", "invalid")]
        assert sum(shares) == pytest.approx(1)
        assert strangers["rows"] == 12
        assert 0 <= strangers["auroc"] <= 1
        assert [point["requests"] for point in run.arm(arm)["at_once"]] == [1, 4, 16]
    assert (run.folder.arm("lora-short") / "forgetting.json").is_file()
    assert not (run.folder.arm("few-shot") / "forgetting.json").exists()


def test_unaltered_rows_score_as_they_did_on_test(place: Path) -> None:
    run = load_run(place / "run")  # all 30 test rows are asked again
    for arm in ARMS:
        altered = read(run.folder.arm(arm) / "robustness.json")
        unaltered = altered["typos"]["score"] - altered["typos"]["difference"]
        assert unaltered == pytest.approx(run.arm(arm)["score"])


def test_the_curve_has_its_points_and_leaves_no_weights(place: Path) -> None:
    run = load_run(place / "run")
    rows = run.audit["rows"]["train"]
    train = len((run.folder.splits / "train.jsonl").read_text().splitlines())
    assert train < rows
    for path, arm in (
        (run.folder.learning_curve, "lora-short"),
        (run.folder.arm("classical") / "learning_curve.json", "classical"),
    ):
        curve = read(path)
        assert curve["arm"] == arm
        assert [point["rows"] for point in curve["points"]] == [round(train / 4), round(train / 2), train]
    steps = [point["steps"] for point in read(run.folder.learning_curve)["points"]]
    assert steps == [math.ceil(point["rows"] / 16) for point in curve["points"]]  # one epoch was asked for
    assert not list((run.path / "curve").rglob("*.safetensors"))


def test_the_same_command_again_probes_nothing_twice(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.stat().st_mtime_ns for p in (place / "run" / "arms").rglob("*.json")}
    running.run(task(place), out=place / "run")
    assert command("probe", place / "run", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["arms"]) == set(ARMS)
    assert found["learning_curve"]["arm"] == "lora-short"
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert command("probe", place / "run") == 0
    assert "Learning curve of lora-short" in capsys.readouterr().out


class StopsAt(Silent):
    """A watcher that interrupts when a step of that name begins."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.begun: list[str] = []

    def begin(self, what: str, total: int) -> None:
        self.begun.append(what)
        if what.startswith(self.title):
            raise Interrupted(2)


def test_law_9_an_interrupted_probe_goes_on_with_the_next_part(place: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(place / "run", other)
    for pattern in ("arms/*/robustness.json", "learning_curve.json", "probes.json"):
        for path in other.glob(pattern):
            path.unlink()
    shutil.rmtree(next(other.glob("curve/arms/lora-short-3?")))
    with pytest.raises(Interrupted):
        running.resume(other, watcher=StopsAt("altered requests: lora-short"))
    done = list(other.glob("arms/*/robustness.json"))
    assert {path.parent.name for path in done} == {"classical", "few-shot", "retrieved"}
    before = [path.stat().st_mtime_ns for path in done]
    again = StopsAt("nothing")
    running.resume(other, watcher=again)
    assert [path.stat().st_mtime_ns for path in done] == before
    assert [what for what in again.begun if what.startswith("altered")] == ["altered requests: lora-short"]
    assert not [what for what in again.begun if what.startswith(("forgetting", "requests"))]
    assert read(other / "learning_curve.json")["points"] == read(place / "run/learning_curve.json")["points"]


def test_a_budget_without_room_skips_every_probe_until_it_is_asked_for(place: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(place / "run", other)
    why = "it needs 9 s, and the arms leave 0 s of the budget"
    plan = read(other / "plan.json")
    for name in PROBES:
        plan["budget"].pop(name)
        plan["probes"][name]["why"] = why
    (other / "plan.json").write_text(json.dumps(plan))
    lost = other / "arms/lora-short/forgetting.json"
    for path in (lost, other / "probes.json", other / "verdict.json", other / "report.html"):
        path.unlink()
    running.resume(other)
    assert {probe["why"] for probe in read(other / "probes.json")["probes"].values()} == {why}
    assert not lost.exists()
    verdict = read(other / "verdict.json")
    running.resume(other, until="probe")
    assert {probe["status"] for probe in read(other / "probes.json")["probes"].values()} == {"done"}
    arms = [
        next(arm for arm in of["arms"] if arm["name"] == "lora-short") for of in (verdict, read(other / "verdict.json"))
    ]
    assert [arm["forgetting"] is None for arm in arms] == [True, False]  # decided again, with what was found
    assert arms[0]["score"] == arms[1]["score"]
    assert arms[1]["robustness"].keys() >= {"typos", "case", "spacing"}
    assert read(other / "verdict.json")["learning_curve"]["arm"] == "lora-short"


def test_a_training_that_the_budget_cuts_short_is_no_point(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "run"
    shutil.copytree(place / "run", other)
    for path in (other / "learning_curve.json", other / "probes.json"):
        path.unlink()
    shutil.rmtree(next(other.glob("curve/arms/lora-short-3?")))
    cut = Attempt(seed=0, steps=1, best_step=1, validation_score=0.9, seconds=1.0, ended="time")
    monkeypatch.setattr(curve_drawing, "training_alone", lambda *_: (cut, other / "nowhere"))
    running.resume(other)
    assert not (other / "learning_curve.json").exists()
    probe = read(other / "probes.json")["probes"]["learning_curve"]
    assert probe["status"] == "skipped"
    assert "budget was used up" in probe["why"]
    monkeypatch.undo()
    running.resume(other, until="probe")
    assert read(other / "learning_curve.json") == read(place / "run/learning_curve.json")


PLAN = {
    "budget": {"lora-short": 250.0, "robustness": 50.0, "reserve": 20.0},
    "probes": {"robustness": {"seconds": 50.0, "why": None}, "forgetting": {"seconds": 30.0, "why": "no room"}},
}


def clock(left: float) -> Clock:
    return Clock(time.monotonic() + left)


def test_a_probe_is_begun_only_when_its_time_is_there() -> None:
    assert probing._why_not(PLAN, "robustness", clock(60)) is None
    assert "earlier stages took longer" in str(probing._why_not(PLAN, "robustness", clock(40)))
    assert probing._why_not(PLAN, "forgetting", clock(32)) == "no room"
    assert probing._why_not(PLAN, "forgetting", clock(40)) is None  # the arms were quicker than planned
    assert "nothing to probe" in str(probing._why_not(PLAN, "learning_curve", clock(1000)))


def test_a_hosted_model_is_not_asked_what_would_be_paid_for(place: Path) -> None:
    folder = load_run(place / "run").folder
    record = {"name": "few-shot@gpt", "family": "prompt", "status": "done", "provider": {"name": "gpt"}}
    stage = Stage(SimpleNamespace(folder=folder, local=None), None, clock(9), None)  # type: ignore[arg-type]
    with pytest.raises(CannotAskError, match="is paid for each request"), stage.probed(record):
        pass


def test_a_continued_run_makes_the_planned_probes_and_no_others() -> None:
    assert probing._why_not(PLAN, "robustness", Clock(math.inf)) is None
    assert probing._why_not(PLAN, "forgetting", Clock(math.inf)) == "no room"


def test_a_training_leaves_the_probes_their_time() -> None:
    plan = {**PLAN, "trainings": {"lora-short": {"seconds": 240.0}}}
    work: Any = SimpleNamespace(started=time.monotonic() - 60, task=SimpleNamespace(budget=400.0))
    # 400 s less 60 s spent, 10 s of judging, 50 s of robustness and half of the reserve.
    assert running._maximum_seconds(work, plan, "lora-short") == pytest.approx(270, abs=0.5)


def test_a_training_cut_short_is_no_point_of_the_curve() -> None:
    def record(ended: str, steps: int) -> dict[str, Any]:
        return {"settings": {"ended": ended, "steps": steps}}

    assert was_whole(record("steps", 100), 100)
    assert was_whole(record("patience", 40), 100)
    assert not was_whole(record("time", 60), 100)
    assert not was_whole(record("steps", 60), 100)  # the plan itself gave it fewer


def test_a_rise_of_the_loss_is_paired_and_of_all_tokens() -> None:
    before = Knowledge((10.0, 60.0, 21.0), (10, 30, 10), (True, True, False, True))
    after = Knowledge((12.0, 66.0, 22.0), (10, 30, 10), (True, False, False, True))
    found = forgetting_json(before, after, 0.95)
    assert found["loss_before"] == pytest.approx(91 / 50)
    assert found["loss_rise"] == pytest.approx(found["loss_after"] - found["loss_before"]) == pytest.approx(9 / 50)
    low, high = found["loss_rise_interval"]
    assert low < 9 / 50 < high
    assert (found["choice_before"], found["choice_after"]) == (0.75, 0.5)
    same = forgetting_json(before, before, 0.95)
    assert (same["loss_rise"], same["loss_rise_interval"]) == (0, (0, 0))


def test_a_loss_under_alteration_is_negative_and_paired() -> None:
    shaken = Shaken(PERTURBATIONS[0], (1.0, 0.0, 0.0, 1.0), 0.5)
    found = robustness_json(Robustness((1.0, 1.0, 0.0, 1.0), (shaken,)), 0.95)["typos"]
    assert (found["score"], found["difference"], found["changed"], found["rows"]) == (0.5, -0.25, 0.5, 4)
    assert found["interval"][0] < -0.25 < found["interval"][1]
