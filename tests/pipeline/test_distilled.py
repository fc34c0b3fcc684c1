"""The distilled arm: the best prompt on validation teaches, nothing held out is taught, what is no answer is dropped
and counted, and what the teacher cost is part of what the arm cost to build."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import pytest
from test_arms_of_a_run import WORDS

from endpoint import Said, completion, failure, serving
from test_run import write_rows
from tiny import tiny_model, write_tokenizer
from tuneworth.data.near import likeness
from tuneworth.data.normalising import normalise
from tuneworth.errors import InputError
from tuneworth.pipeline import running, teaching
from tuneworth.plan import Allotment, Course, Rate, Rows, Teachers, with_teaching
from tuneworth.store.atomic import read_json, read_jsonl
from tuneworth.task import load_task

ASKED = 60


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("distilled")
    tiny_model().float().save_pretrained(place / "model")
    write_tokenizer(place / "model")
    write_rows(place / "train.csv", 120, 1)
    write_rows(place / "test.csv", 40, 2)
    with (place / "test.csv").open() as file:
        test = [row["text"] for row in csv.DictReader(file)]
    chance = random.Random(3)
    words = [word for label in WORDS for word in WORDS[label]]
    fresh = [f"good morning, it is about {chance.choice(words)} again, request {n} of mine" for n in range(ASKED)]
    leaks = [*test[:10], *(text.upper() for text in test[10:20]), *(f"{text} 9" for text in test[20:30])]
    with (place / "traffic.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in [*leaks, *fresh])])
    return place


def task(place: Path, base_url: str, **changes: Any) -> Any:
    provider = {"base_url": base_url, "model": "m", "usd_per_million_input": 1.0, "usd_per_million_output": 4.0}
    settings = {
        "data.train": str(place / "train.csv"), "data.test": str(place / "test.csv"), "budget": "10m",
        "data.traffic": str(place / "traffic.csv"), "models": [str(place / "model")], "training.epochs": 1,
        "providers": {"them": provider}, "arms": ["zero-shot", "zero-shot@them", "distilled"], **changes,
    }  # fmt: skip
    return load_task(None, settings)


def clever(method: str, path: str, body: Any) -> Said | dict[str, Any]:
    """Knows the words; of requests whose number ends in 7 it writes no label, ends in 8 too much, in 9 it breaks."""
    text = body["messages"][-1]["content"]
    number = text.partition(", request ")[2].partition(" ")[0]
    if number.endswith("9"):
        return failure(400, "no capacity")
    answer = next((label for label, words in WORDS.items() if any(w in text for w in words)), "pay")
    return completion("I cannot say" if number.endswith("7") else answer, "length" if number.endswith("8") else "stop")


def test_what_is_taught_is_the_best_prompts_answers_and_nothing_held_out(place: Path, tmp_path: Path) -> None:
    with serving(clever) as server:
        run = running.run(task(place, server.base_url), out=tmp_path / "run")
        asked_in_all = len(server.requests)
        for name in ("arms/distilled/arm.json", "verdict.json", "report.html", "probes.json"):
            (tmp_path / "run" / name).unlink()
        again = running.run(task(place, server.base_url), out=tmp_path / "run")
        assert len(server.requests) == asked_in_all  # the teacher's answers are on disk
    arm, home, splits = run.arm("distilled"), run.folder.arm("distilled"), run.folder.splits
    assert (arm["status"], arm["family"], arm["form"]) == ("done", "fine-tune", "short")
    assert again.arm("distilled")["score"] == arm["score"]

    settings, taught = arm["settings"], read_jsonl(home / "taught.jsonl")
    assert settings["teacher"] == "zero-shot@them"
    assert settings["teachers"]["zero-shot@them"] > settings["teachers"]["zero-shot"]
    assert settings["asked"] == ASKED
    assert settings["dropped"] == {"invalid": 6, "cut off": 6, "error": 6}
    assert settings["taught"] == len(taught) == ASKED - 18
    assert settings["rows"] == len(taught) + len(read_jsonl(splits / "train.jsonl"))
    for row in taught:
        text = row["messages"][-1]["content"]
        assert row["answer"] == next(label for label, words in WORDS.items() if any(w in text for w in words))

    held_out = [
        normalise(row["messages"][-1]["content"])
        for part in ("validation", "test")
        for row in read_jsonl(splits / f"{part}.jsonl")
    ]
    learnt = [normalise(row["messages"][-1]["content"]) for row in taught]
    assert not likeness([text for text in learnt for _ in held_out], held_out * len(learnt)).any()
    assert sum(settings["left_out"].values()) == 30

    zero = run.arm("zero-shot@them")
    assert zero["build_usd"] == 0.0
    validation = len(read_jsonl(splits / "validation.jsonl"))
    answers = validation + ASKED - 6  # those that failed cost nothing
    assert arm["build_usd"] == pytest.approx(answers * (11 * 1.0 + 3 * 4.0) / 1e6)
    teacher_seconds = read_json(home / "teaching.json")["seconds"]
    trained = sum(seed["seconds"] for seed in settings["seeds"])
    assert arm["build_seconds"] == pytest.approx(teacher_seconds + trained)
    stages = list(run.plan["budget"])
    assert stages.index("zero-shot@them") < stages.index("teaching") < stages.index("distilled")
    assert {one["name"]: one["family"] for one in run.verdict["arms"]}["distilled"] == "fine-tune"
    assert "distilled" in run.report.read_text("utf-8")
    assert isinstance(run.chat_with("distilled").chat([{"role": "user", "content": "my parcel"}]), str)


def test_law_7_the_teacher_is_chosen_on_validation_whatever_the_test_scores_say(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    kept = teaching._taught

    def forged(work: Any, bench: Any, name: str, requests: Any) -> Any:
        for arm in ("zero-shot", "zero-shot@them"):  # the worse arm was lucky on test
            record = read_json(work.folder.arm_record(arm))
            teaching.write_json(work.folder.arm_record(arm), record | {"score": float(arm == "zero-shot")})
        found = kept(work, bench, name, requests)
        seen.append(found[1])
        return found

    monkeypatch.setattr(teaching, "_taught", forged)
    with serving(clever) as server:
        running.run(task(place, server.base_url), out=tmp_path / "run", until="train")
    assert [one["teacher"] for one in seen] == ["zero-shot@them"]


def test_a_teacher_without_a_usable_answer_leaves_the_arm_out_with_the_reason(place: Path, tmp_path: Path) -> None:
    def mute(method: str, path: str, body: Any) -> dict[str, Any]:
        return completion("no idea" if ", request " in body["messages"][-1]["content"] else "pay")

    with serving(mute) as server:
        job = task(place, server.base_url, arms=["zero-shot@them", "distilled"])
        arm = running.run(job, out=tmp_path / "run").arm("distilled")
    assert (arm["status"], arm["family"]) == ("skipped", "fine-tune")
    assert arm["why"] == "no answer of zero-shot@them to 60 requests is usable: 60 invalid"


def test_a_distilled_arm_without_requests_is_a_mistake_that_names_the_key(place: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"arms: .*'distilled' needs requests .*data\.traffic"):
        running.run(task(place, "http://127.0.0.1:9/v1", **{"data.traffic": None}), out=tmp_path / "run")


def test_too_few_requests_leave_the_arm_out_and_a_task_with_requests_asks_for_it_by_itself(
    place: Path, tmp_path: Path
) -> None:
    (tmp_path / "few.csv").write_text("text\n" + "".join(f"something else altogether {n}\n" for n in range(19)))
    changes = {"data.traffic": str(tmp_path / "few.csv"), "providers": {}, "arms": ["zero-shot", "distilled"]}
    run = running.run(task(place, "http://x", **changes), out=tmp_path / "run", until="train")
    assert run.arm("distilled")["status"] == "skipped"
    assert "19 requests are left to learn from, 20 are needed" in run.arm("distilled")["why"]
    automatic = task(place, "http://x", providers={}, arms="auto")
    assert list(running.arms_of(automatic))[-1] == "distilled"
    assert "distilled" not in running.arms_of(task(place, "http://x", arms="auto", **{"data.traffic": None}))


def test_a_budget_without_room_leaves_the_arm_out_and_says_which_would_do() -> None:
    def planned(reserve: float, requests: int = 800) -> Allotment:
        allotment = Allotment({"before": 100.0, "zero-shot": 50.0, "reserve": reserve}, 100, {"zero-shot": 1}, {}, {})
        teachers = Teachers({"zero-shot": Rate(1.0, 0.1)}, ("zero-shot",))
        course = Course(2.0, 8, 1, Rate(1.0, 0.05), 0.05)
        return with_teaching(allotment, "distilled", Rows(200, 50, 100), requests, teachers, course)

    rich, poor, broke = planned(2000.0), planned(220.0), planned(20.0)
    assert rich.taught == 800
    assert rich.trainings["distilled"].epochs == pytest.approx(2.0)
    assert 100 <= poor.taught < 800
    assert "distilled" not in broke.trainings
    assert broke.taught == 0
    for found, reserve in ((rich, 2000.0), (poor, 220.0), (broke, 20.0)):
        assert sum(found.seconds.values()) == pytest.approx(150 + reserve)
        assert found.seconds["reserve"] >= min(reserve, 6.0)
    why = broke.skipped["distilled"]
    assert why.startswith("the budget leaves ")
    assert "one of " in why
