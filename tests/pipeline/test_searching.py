"""Other settings are tried on train and validation alone, under a limit, and used only where they win on rows that did
not choose them."""

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
from tuneworth.data import Example
from tuneworth.errors import InputError, Interrupted, TuneworthError
from tuneworth.pipeline import running, searching, trying
from tuneworth.plan import SearchPlan
from tuneworth.store.atomic import read_jsonl
from tuneworth.task import load_task

SETTINGS = {"learning_rate", "batch_size", "rank"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, and rows."""
    place = tmp_path_factory.mktemp("search")
    tiny_model(seed=0).float().save_pretrained(place / "model")
    write_tokenizer(place / "model")
    write_rows(place / "train.csv", 400, 1)
    write_rows(place / "test.csv", 20, 2)
    return place


def task(place: Path, **changes: Any) -> Any:
    settings = {"data.train": str(place / "train.csv"), "data.test": str(place / "test.csv"),
                "models": [str(place / "model")], "arms": ["classical", "lora-short"], "training.epochs": 1,
                "training.search": True, "budget": "10m", **changes}  # fmt: skip
    return load_task(None, settings)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of six trials at two lengths, however busy the machine is."""
    monkeypatch.setattr(searching, "plan_search", lambda *_: SearchPlan(6, (32, 96), 15, 500.0))


Change = Callable[[Any, trying.Outcome], trying.Outcome]


@pytest.fixture
def altered(monkeypatch: pytest.MonkeyPatch) -> Callable[[Change], None]:
    """Says what comes of a trial, from the trial and what really came of it."""

    def by(change: Change) -> None:
        genuine = trying.try_out
        monkeypatch.setattr(searching, "try_out", lambda track, work, trial: change(trial, genuine(track, work, trial)))

    return by


@pytest.fixture
def scored(altered: Callable[[Change], None]) -> Callable[[Callable[[Any], float]], None]:
    """Says which share of the rows, of those that choose and of those that judge, a trial answers rightly."""

    def spread(rows: int, share: float) -> tuple[float, ...]:
        return tuple(float(int((n + 1) * share) > int(n * share)) for n in range(rows))

    def by(share: Callable[[Any], float]) -> None:
        altered(
            lambda trial, found: replace(
                found,
                scores=spread(len(trial.choosing), share(trial)) + spread(len(trial.judging), share(trial)),
            )
        )

    return by


def is_rule(trial: Any) -> bool:
    return bool(trial.name.startswith("try-0-"))


def search_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "search.json").read_text())  # type: ignore[no-any-return]


def rate(trial: Any) -> float:
    return float(trial.settings.learning_rate.value)


def test_what_wins_on_rows_that_did_not_choose_is_used_with_its_reason_and_its_time(
    place: Path, tmp_path: Path, scored: Callable[..., None]
) -> None:
    scored(lambda trial: 0.4 if is_rule(trial) else min(1.0, 0.5 + 20 * rate(trial)))
    run = running.run(task(place), out=tmp_path / "run", until="train")
    search = search_of(tmp_path / "run")
    assert set(search["searched"]) == SETTINGS
    assert [one["status"] for one in search["trials"]].count("won") == 1
    assert search["trials"][0]["status"] == "rule"
    assert [length["rows"] for length in search["trials"][0]["lengths"]] == [32, 96]
    won = next(one for one in search["trials"] if one["status"] == "won")
    assert search["settings"] == won["settings"]
    low, high = search["won"]["interval"]
    assert low < search["won"]["difference"] < high
    assert search["won"]["rows"] == 15
    assert low > 0
    assert search["worth"] == "shown"
    settings = run.plan["settings"]
    for name in SETTINGS:
        assert settings[name]["value"] == won["settings"][name]
        assert settings[name]["source"] == "search"
        assert search["why"] in settings[name]["reason"]
    assert run.plan["budget"]["search"] == pytest.approx(search["seconds"])
    assert sum(run.plan["budget"].values()) == pytest.approx(600)
    trained = run.arm("lora-short")["settings"]
    assert {trained["learning_rate"], trained["batch_size"], trained["rank"]} == set(won["settings"].values())
    assert not (tmp_path / "run" / "search").exists()


@pytest.mark.parametrize("rows", [96, 288])
def test_what_is_not_shown_is_used_only_after_trainings_of_half_the_whole_length(
    place: Path, tmp_path: Path, scored: Callable[..., None], monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(searching, "plan_search", lambda *_: SearchPlan(6, (32, rows), 15, 500.0))
    scored(lambda trial: 0.5 if is_rule(trial) else 0.6)
    running.run(task(place), out=tmp_path / "run", until="plan")
    search = search_of(tmp_path / "run")
    assert search["worth"] == "not-shown"
    assert search["won"]["interval"][0] <= 0 < search["won"]["difference"]
    assert bool(search["settings"]) == (2 * rows > search["whole_rows"])


def test_law_7_no_test_row_is_asked_and_each_validation_row_either_chooses_or_judges(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    genuine = trying.answered

    def answered(bench: Any, model: Any, form: Any, examples: Any) -> Any:
        asked.append(tuple(example.id for example in examples))
        assert bench.test == ()
        return genuine(bench, model, form, examples)

    monkeypatch.setattr(trying, "answered", answered)
    running.run(task(place), out=tmp_path / "run", until="plan")
    rows = {name: {row["id"] for row in read_jsonl(tmp_path / f"run/splits/{name}.jsonl")}
            for name in ("validation", "test")}  # fmt: skip
    assert asked
    assert {row for rows_asked in asked for row in rows_asked} <= rows["validation"]
    choosing = {rows_asked for rows_asked in asked if len(rows_asked) == 15}
    both = {rows_asked for rows_asked in asked if len(rows_asked) == 30}
    assert len(choosing) == len(both) == 1
    assert both.pop()[:15] == choosing.pop()


def test_the_best_on_choosing_rows_that_loses_on_the_others_is_not_used(
    place: Path, tmp_path: Path, altered: Callable[[Change], None]
) -> None:
    def turned(trial: Any, found: trying.Outcome) -> trying.Outcome:
        right = 0.0 if is_rule(trial) else 1.0
        return replace(found, scores=(right,) * len(trial.choosing) + (1 - right,) * len(trial.judging))

    altered(turned)
    run = running.run(task(place), out=tmp_path / "run", until="plan")
    search = search_of(tmp_path / "run")
    assert search["settings"] == {}
    assert search["worth"] == "nothing-won"
    assert search["won"]["difference"] == -1
    assert [one["status"] for one in search["trials"]].count("best") == 1
    assert run.plan["settings"]["learning_rate"]["source"] == "default"


def test_all_are_tried_briefly_and_a_third_goes_on_with_the_rule(
    place: Path, tmp_path: Path, scored: Callable[..., None]
) -> None:
    scored(lambda trial: 0.4 if is_rule(trial) else min(1.0, 0.5 + 20 * rate(trial)))
    running.run(task(place), out=tmp_path / "run", until="plan")
    tried = search_of(tmp_path / "run")["trials"]
    assert len(tried) == 6
    lengths = [len(one["lengths"]) for one in tried]
    best = sorted(range(1, 6), key=lambda n: -tried[n]["lengths"][0]["score"])[:2]
    assert sorted(n for n in range(6) if lengths[n] == 2) == sorted([0, *best])


def test_of_equal_scores_after_short_trainings_the_lower_losses_go_on(
    place: Path, tmp_path: Path, altered: Callable[[Change], None]
) -> None:
    def equal(trial: Any, found: trying.Outcome) -> trying.Outcome:
        assert found.loss > 0
        loss = {"3": 0.5, "4": 0.4}.get(trial.name.split("-")[1], 2.0)
        return replace(found, scores=(1.0,) * len(found.scores), loss=loss)

    altered(equal)
    running.run(task(place), out=tmp_path / "run", until="plan")
    search = search_of(tmp_path / "run")
    assert [len(one["lengths"]) for one in search["trials"]] == [2, 1, 1, 2, 2, 1]
    assert search["settings"] == {}  # none is better than the rule, whatever its loss


def timed(seconds: float) -> Change:
    """Trials that take so long, of which the rule is the worst."""
    return lambda trial, found: replace(
        found, seconds=seconds, scores=(0.0 if is_rule(trial) else 1.0,) * len(found.scores)
    )


def test_when_the_time_is_over_fewer_are_tried_and_the_rule_and_the_best_are_still_compared(
    place: Path, tmp_path: Path, altered: Callable[[Change], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    altered(timed(90.0))
    monkeypatch.setattr(searching._Search, "_predicted", lambda search, place: 90.0)
    running.run(task(place), out=tmp_path / "run", until="plan")
    search = search_of(tmp_path / "run")  # within 500 s, two of 90 of which are kept for the longer trainings
    assert [len(one["lengths"]) for one in search["trials"]] == [2, 2, 1]
    assert search["won"]["difference"] == 1
    assert search["seconds"] <= 500


def test_trials_that_take_longer_than_predicted_are_fewer(
    place: Path, tmp_path: Path, altered: Callable[[Change], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    altered(timed(90.0))
    monkeypatch.setattr(searching._Search, "_predicted", lambda search, place: 45.0)
    running.run(task(place), out=tmp_path / "run", until="plan")
    search = search_of(tmp_path / "run")
    assert [len(one["lengths"]) for one in search["trials"]] == [2, 2, 1]
    assert search["seconds"] <= 500


def test_rows_of_one_group_choose_or_judge_but_not_both() -> None:
    rows = [Example(str(n), (), "a", "f", n, group=group) for n, group in enumerate("aabbaccdb")]
    choosing, judging = searching._halves(rows)
    assert [row.group for row in choosing] == list("aaacc")
    assert [row.group for row in judging] == list("bbdb")
    alone = [Example(str(n), (), "a", "f", n) for n in range(5)]
    assert [row.id for row in searching._halves(alone)[0]] == ["0", "2", "4"]


def test_nothing_better_than_the_rule_leaves_the_rule(place: Path, tmp_path: Path, scored: Callable[..., None]) -> None:
    scored(lambda trial: 0.6)
    run = running.run(task(place), out=tmp_path / "run", until="plan")
    search = search_of(tmp_path / "run")
    assert search["settings"] == {}
    assert "none was better than the settings by rule on 15 rows" in search["why"]
    assert run.plan["settings"]["rank"]["source"] == "default"


def test_a_search_that_was_stopped_proposes_the_same_again_and_does_nothing_twice(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine, begun = trying.try_out, []

    def stopping(track: Any, work: Any, trial: Any) -> Any:
        begun.append((trial.name, rate(trial), trial.settings.rank.value))
        if len(begun) == 5:
            raise Interrupted(15)
        return genuine(track, work, trial)

    monkeypatch.setattr(searching, "try_out", stopping)
    with pytest.raises(Interrupted):
        running.run(task(place), out=tmp_path / "run", until="plan")
    first = list(begun)
    running.run(task(place), out=tmp_path / "run", until="plan")
    assert begun[5] == first[4]
    assert not {name for name, *_ in begun[6:]} & {name for name, *_ in first}
    tried = search_of(tmp_path / "run")["trials"]
    assert [one["settings"]["learning_rate"] for one in tried][:4] == [rate for _, rate, _ in first[:4]]


def test_a_training_that_diverges_is_told_its_time_counted_and_the_search_goes_on(
    place: Path, tmp_path: Path, altered: Callable[[Change], None]
) -> None:
    def diverging(trial: Any, found: trying.Outcome) -> trying.Outcome:
        if trial.name == "try-2-on-32-rows":
            time.sleep(1.0)
            raise TuneworthError("the loss is no number")
        return replace(found, seconds=0.0)

    altered(diverging)
    running.run(task(place), out=tmp_path / "run", until="plan")
    search = search_of(tmp_path / "run")
    assert search["trials"][2]["status"] == "failed"
    assert "no number" in search["trials"][2]["why"]
    assert len(search["trials"]) == 6
    assert search["seconds"] > 1.0 + sum(one["seconds"] for one in search["trials"])


def test_what_the_user_fixed_is_not_searched_and_all_of_it_fixed_is_refused(place: Path, tmp_path: Path) -> None:
    running.run(task(place, **{"training.learning_rate": 1e-3}), out=tmp_path / "run", until="plan")
    search = search_of(tmp_path / "run")
    assert set(search["searched"]) == SETTINGS - {"learning_rate"}
    fixed = {f"training.{name}": value for name, value in (("learning_rate", 1e-3), ("batch_size", 8), ("rank", 4))}
    with pytest.raises(InputError, match="you fixed all of them"):
        running.run(task(place, **fixed), out=tmp_path / "none")
    del fixed["training.rank"]  # all weights have none
    with pytest.raises(InputError, match="you fixed all of them"):
        running.run(task(place, arms=["weights-short"], **{"training.method": "full"}, **fixed), out=tmp_path / "none")
    with pytest.raises(InputError, match="no trained arm is asked for"):
        running.run(task(place, arms=["classical"]), out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_budget_without_time_for_a_search_says_so(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "plan_search", lambda *_: "12 s are too few for it; give a longer budget")
    run = running.run(task(place), out=tmp_path / "run", until="plan")
    search = search_of(tmp_path / "run")
    assert search["worth"] == "not-searched"
    assert "12 s are too few" in search["why"]
    assert run.plan["settings"]["learning_rate"]["source"] == "default"


def test_all_weights_are_searched_at_their_own_rate_and_without_a_rank(place: Path, tmp_path: Path) -> None:
    job = task(place, arms=["weights-short"], **{"training.method": "full"})
    running.run(job, out=tmp_path / "run", until="plan")
    search = search_of(tmp_path / "run")
    assert set(search["searched"]) == {"learning_rate", "batch_size"}
    low, high = search["searched"]["learning_rate"]
    assert search["trials"][0]["settings"]["learning_rate"] == pytest.approx((low * high) ** 0.5)
