"""A run whose texts are compared by a judge: what it says is counted, and decides only where people agree with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from endpoint import Speak, completion, serving
from tiny import tiny_model, write_tokenizer
from tuneworth.data import Example, Message
from tuneworth.errors import InputError
from tuneworth.pipeline import running
from tuneworth.pipeline.finished import Run
from tuneworth.pipeline.judging import check_judge
from tuneworth.pipeline.ladder import arms_of
from tuneworth.pipeline.preparing import Prepared
from tuneworth.plan.judging import afford_judge
from tuneworth.store.atomic import read_json, read_jsonl, write_json
from tuneworth.task import Task, load_task

WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_model().float().save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def rows(folder: Path, name: str, start: int, count: int) -> Path:
    """Prompts with a good answer and a bad one, no two alike."""
    lines = []
    for number in range(start, start + count):
        about = " ".join(WORDS[number // 8**place % 8] for place in range(4)) + f" {number * number}"
        lines.append({"prompt": f"Tell of {about}.", "chosen": f"good {about[::-1]}", "rejected": f"bad {about}"})
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run_of(
    speak: Speak, model: Path, folder: Path, *, judge: str = "wise", again: bool = False
) -> tuple[Run, list[int]]:
    """A run judged by an endpoint, and how many requests each start sent."""
    counts = []
    with serving(speak) as server:
        provider = {"base_url": server.base_url, "model": "j", "usd_per_million_input": 1, "usd_per_million_output": 2}
        job = load_task(None, {
            "data.train": str(rows(folder, "train", 0, 60)), "data.test": str(rows(folder, "test", 500, 12)),
            "kind": "generation", "models": [str(model)], "arms": ["classical", "zero-shot"], "judge": judge,
            "providers": {"wise": provider}, "metric": "judge", "training.precision": "fp32", "budget": "10m",
        })  # fmt: skip
        for _ in range(2 if again else 1):
            before = len(server.requests)
            done = running.run(job, out=folder / "run", until="evaluate")
            counts.append(len(server.requests) - before)
    write_json(done.folder.probes, {"schema": "tuneworth.probes/1", "probes": {}, "arms_left_out": {}})
    return running.run(job, out=folder / "run"), counts


def wise(method: str, path: str, body: Any) -> dict[str, Any]:
    found = re.findall(r"answer:\n-----\n(.*?)\n-----", body["messages"][-1]["content"], re.S)
    first, second = (answer.startswith("good") for answer in found)
    return completion("tie" if first == second else "first" if first else "second")


def test_a_judge_that_agrees_with_people_makes_the_verdict_and_is_part_of_what_arms_cost(
    model: Path, tmp_path: Path
) -> None:
    done, requests = run_of(wise, model, tmp_path, again=True)
    judge = read_json(done.folder.judge)
    assert (judge["trusted"], judge["used"]) == (True, True)
    assert judge["agreement"]["share"] == 1
    assert judge["agreement"]["interval"][0] > 0.5
    assert requests[0] > 0
    assert requests[1] == 0
    assert done.verdict["metric"] == "judge"
    scores = {arm["name"]: arm["score"] for arm in done.verdict["arms"]}
    assert scores == {"classical": 0.5, "zero-shot": 0}  # good answers are as good as the wanted ones, noise is worse
    record = done.arm("classical")
    assert record["metric"] == "rouge-l"
    assert (record["judge"]["rows"], record["judge"]["no_verdict"]) == (12, 0)
    assert record["judge"]["usd"] == pytest.approx(24 * (11 + 2 * 3) / 1e6)
    assert record["build_usd"] == record["judge"]["usd"]
    assert "The judge" in done.report.read_text()
    assert "agrees with people on 100%" in done.verdict["why"][-1]


@pytest.mark.parametrize(("says", "unusable"), [("first", 0), ("I like both", 48)])
def test_a_judge_that_does_not_agree_decides_nothing_and_nonsense_is_no_score(
    model: Path, tmp_path: Path, says: str, unusable: int
) -> None:
    done, _ = run_of(lambda method, path, body: completion(says), model, tmp_path)
    judge = read_json(done.folder.judge)
    assert (judge["trusted"], judge["used"], judge["agreement"]["share"]) == (False, False, 0)
    assert done.verdict["metric"] == "rouge-l"
    assert "decides nothing" in done.verdict["why"][-1]
    lines = read_jsonl(done.folder.arm("classical") / "judged.jsonl")
    if unusable:
        assert judge["agreement"]["no_verdict"] == judge["agreement"]["pairs"]
        assert {line["score"] for line in lines} == {None}
        assert done.arm("classical")["judge"]["score"] is None
        assert done.arm("classical")["judge"]["why_no_verdict"] == {"no verdict: 'I like both'": 12}
    else:
        assert {line["score"] for line in lines} == {0.5}


def test_a_local_model_judges_too_and_its_time_is_part_of_what_arms_cost(model: Path, tmp_path: Path) -> None:
    done, _ = run_of(wise, model, tmp_path, judge=str(model))
    judge, record = read_json(done.folder.judge), done.arm("zero-shot")
    assert judge["agreement"]["pairs"] > 0
    assert judge["agreement"]["no_verdict"] == 0  # it can write nothing but a verdict
    assert record["judge"]["usd"] == 0
    assert record["build_seconds"] >= record["judge"]["seconds"] > 0
    assert done.plan["budget"]["judge"] > 0
    assert sum(done.plan["budget"].values()) == pytest.approx(600)


def test_a_verdict_needs_a_judgement_on_nearly_every_row_of_every_arm(model: Path, tmp_path: Path) -> None:
    def patchy(method: str, path: str, body: Any) -> dict[str, Any]:
        asked = body["messages"][-1]["content"]
        return completion("hm") if "good" in asked and "bad" not in asked and "amber" in asked else wise("", "", body)

    done, _ = run_of(patchy, model, tmp_path)
    judge = read_json(done.folder.judge)
    assert (judge["trusted"], judge["used"]) == (True, False)
    assert "rows have a verdict for every arm" in judge["why"]
    assert judge["arms"]["classical"]["no_verdict"] > 1
    assert done.verdict["metric"] == "rouge-l"


MODEL = "smollm2-135m-instruct"
ROW = Example("x", (Message("user", "q"),), "a", "f.jsonl", 1)


@pytest.mark.parametrize(
    ("kind", "task", "what"),
    [
        ("classification", {"judge": MODEL}, "a judge compares texts"),
        ("generation", {"judge": MODEL, "metric": "judge"}, "no row has a preference"),
        ("generation", {"judge": "gpt"}, "'gpt' is no provider, and there is no model 'gpt'"),
        ("generation", {"metric": "judge"}, "needs a judge"),
    ],
)
def test_judges_that_do_not_suit_the_task_are_refused_before_anything_is_asked(
    kind: str, task: dict[str, Any], what: str
) -> None:
    splits = Prepared((ROW,), (ROW,), (ROW,), kind, (), "", None)
    with pytest.raises(InputError, match=what):
        check_judge(Task.model_validate(task), splits)


def test_who_judges_takes_no_part_unless_the_task_says_so() -> None:
    provider = {"base_url": "http://x/v1", "model": "m"}
    task = Task.model_validate({"judge": "a", "providers": {"a": provider, "b": provider}})
    assert {arm.provider for arm in arms_of(task).values()} == {None, "b"}


def test_a_judge_gets_its_share_of_the_budget_or_nothing() -> None:
    plan = afford_judge(0.5, arms=4, human_pairs=400, test_rows=1000, budget_seconds=600)
    assert (plan.pairs, plan.rows, plan.seconds) == (100, 65, 180)
    slow = afford_judge(5, arms=4, human_pairs=400, test_rows=1000, budget_seconds=600)
    assert (slow.rows, slow.seconds) == (0, 0)
    assert "a budget of about 1h01m would do" in str(slow.why)
    assert afford_judge(0.001, 4, 0, 50, 600).rows == 50
