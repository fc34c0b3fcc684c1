"""Other settings are tried on train and validation alone, under a limit, and used only where they win on rows that did
not choose them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from test_run import write_rows
from tiny import tiny_model, write_tokenizer
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
    monkeypatch.setattr(searching, "plan_search", lambda *_: SearchPlan(6, (32, 96), 15, 15, 500.0))


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], float]], None]:
    """Says which share of the rows a training answers rightly, from its settings."""

    def by(share: Callable[[Any], float]) -> None:
        genuine = trying.try_out

        def try_out(track: Any, work: Any, trial: Any, judged: Any) -> Any:
            found = genuine(track, work, trial, judged)
            right = share(trial)
            rows = len(found.scores)
            scores = tuple(
                float(int((n + 1) * right) > int(n * right)) for n in range(rows // 2 if rows > 15 else rows)
            )
            return trying.Outcome(found.rows, (scores * 2)[:rows], found.loss, found.seconds, found.answer_a_row)

        monkeypatch.setattr(searching, "try_out", try_out)

    return by


def search_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "search.json").read_text())  # type: ignore[no-any-return]


def rate(trial: Any) -> float:
    return float(trial.settings.learning_rate.value)


def test_what_wins_on_rows_that_did_not_choose_is_used_with_its_reason_and_its_time(
    place: Path, tmp_path: Path, scored: Callable[..., None]
) -> None:
    scored(lambda trial: 0.4 if trial.name.startswith("try-0-") else min(1.0, 0.5 + 20 * rate(trial)))
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
    monkeypatch.setattr(searching, "plan_search", lambda *_: SearchPlan(6, (32, rows), 15, 15, 500.0))
    scored(lambda trial: 0.5 if trial.name.startswith("try-0-") else 0.6)
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
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = trying.try_out

    def try_out(track: Any, work: Any, trial: Any, judged: Any) -> Any:
        found = genuine(track, work, trial, judged)
        is_rule = trial.name.startswith("try-0-")
        scores = (0.0 if is_rule else 1.0,) * 15 + (1.0 if is_rule else 0.0,) * 15
        return trying.Outcome(found.rows, scores[: len(judged)], found.loss, found.seconds, found.answer_a_row)

    monkeypatch.setattr(searching, "try_out", try_out)
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
    scored(lambda trial: 0.4 if trial.name.startswith("try-0-") else min(1.0, 0.5 + 20 * rate(trial)))
    running.run(task(place), out=tmp_path / "run", until="plan")
    tried = search_of(tmp_path / "run")["trials"]
    assert len(tried) == 6
    lengths = [len(one["lengths"]) for one in tried]
    best = sorted(range(1, 6), key=lambda n: -tried[n]["lengths"][0]["score"])[:2]
    assert sorted(n for n in range(6) if lengths[n] == 2) == sorted([0, *best])


def test_of_equal_scores_after_short_trainings_the_lower_losses_go_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = trying.try_out

    def try_out(track: Any, work: Any, trial: Any, judged: Any) -> Any:
        found = genuine(track, work, trial, judged)
        assert found.loss > 0
        loss = {"3": 0.5, "4": 0.4}.get(trial.name.split("-")[1], 2.0)
        return trying.Outcome(found.rows, (1.0,) * len(judged), loss, found.seconds, found.answer_a_row)

    monkeypatch.setattr(searching, "try_out", try_out)
    running.run(task(place), out=tmp_path / "run", until="plan")
    search = search_of(tmp_path / "run")
    assert [len(one["lengths"]) for one in search["trials"]] == [2, 1, 1, 2, 2, 1]
    assert search["settings"] == {}  # none is better than the rule, whatever its loss


def test_when_the_time_is_over_fewer_are_tried_and_the_rule_and_the_best_are_still_compared(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = trying.try_out

    def slow(track: Any, work: Any, trial: Any, judged: Any) -> Any:
        found = genuine(track, work, trial, judged)
        return trying.Outcome(found.rows, found.scores, found.loss, 150.0, found.answer_a_row)

    monkeypatch.setattr(searching, "try_out", slow)
    monkeypatch.setattr(searching._Search, "_needed", lambda search, place: 100.0)
    running.run(task(place), out=tmp_path / "run", until="plan")
    tried = search_of(tmp_path / "run")["trials"]  # within 500 s: 150 and 150, and 300 are kept; then no more
    assert len(tried[0]["lengths"]) == 2
    assert len(tried) < 6


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

    def stopping(track: Any, work: Any, trial: Any, judged: Any) -> Any:
        begun.append((trial.name, rate(trial), trial.settings.rank.value))
        if len(begun) == 5:
            raise Interrupted(15)
        return genuine(track, work, trial, judged)

    monkeypatch.setattr(searching, "try_out", stopping)
    with pytest.raises(Interrupted):
        running.run(task(place), out=tmp_path / "run", until="plan")
    first = list(begun)
    running.run(task(place), out=tmp_path / "run", until="plan")
    assert begun[5] == first[4]
    assert not {name for name, *_ in begun[6:]} & {name for name, *_ in first}
    tried = search_of(tmp_path / "run")["trials"]
    assert [one["settings"]["learning_rate"] for one in tried][:4] == [rate for _, rate, _ in first[:4]]


def test_a_training_that_diverges_is_told_and_the_search_goes_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = trying.try_out

    def try_out(track: Any, work: Any, trial: Any, judged: Any) -> Any:
        if trial.name == "try-2-on-32-rows":
            raise TuneworthError("the loss is no number")
        return genuine(track, work, trial, judged)

    monkeypatch.setattr(searching, "try_out", try_out)
    running.run(task(place), out=tmp_path / "run", until="plan")
    tried = search_of(tmp_path / "run")["trials"]
    assert tried[2]["status"] == "failed"
    assert "no number" in tried[2]["why"]
    assert len(tried) == 6


def test_what_the_user_fixed_is_not_searched_and_all_of_it_fixed_is_refused(place: Path, tmp_path: Path) -> None:
    running.run(task(place, **{"training.learning_rate": 1e-3}), out=tmp_path / "run", until="plan")
    search = search_of(tmp_path / "run")
    assert set(search["searched"]) == SETTINGS - {"learning_rate"}
    fixed = {f"training.{name}": value for name, value in (("learning_rate", 1e-3), ("batch_size", 8), ("rank", 4))}
    with pytest.raises(InputError, match="you fixed all of them"):
        running.run(task(place, **fixed), out=tmp_path / "none")
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
