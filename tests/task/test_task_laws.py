"""task.yaml: every mistake at once, with the nearest known key; what is written is what is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tuneworth.errors import InputError
from tuneworth.task import Task, commented_yaml, format_seconds, known_keys, load_task, parse_task


def problems(content: dict[str, Any]) -> list[str]:
    with pytest.raises(InputError) as caught:
        parse_task(content, where="task.yaml")
    assert caught.value.exit_code == 2
    return [str(problem) for problem in caught.value.problems]


def written(folder: Path, text: str) -> Path:
    path = folder / "task.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("content", "key", "near"),
    [
        ({"buget": "10m"}, "buget", "budget"),
        ({"data": {"trian": "x.csv"}}, "data.trian", "train"),
        ({"data": {"columns": {"inptu": "x"}}}, "data.columns.inptu", "input"),
        ({"training": {"learning-rate": 0.1}}, "training.learning-rate", "learning_rate"),
        ({"decision": {"minimum_efect": 0.1}}, "decision.minimum_efect", "minimum_effect"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(content: dict[str, Any], key: str, near: str) -> None:
    (problem,) = problems(content)
    assert f"unknown key '{key}'" in problem
    assert f"did you mean '{near}'?" in problem
    assert problem.startswith("task.yaml: ")


def test_a_key_near_nothing_lists_the_known_ones_of_its_own_section() -> None:
    (problem,) = problems({"training": {"zzzzzz": 1}})
    assert "known: batch_size, deterministic, epochs, from, learning_rate, method, " in problem


def test_several_mistakes_are_all_listed() -> None:
    found = problems(
        {
            "kind": "clasification",
            "budget": "soon",
            "seed": -1,
            "nonsense": 1,
            "data": {"columns": {"input": 5}},
            "training": {"epochs": 0, "batch_size": "many"},
            "decision": {"confidence": 1.5},
        }
    )
    for key in ("kind", "budget", "seed", "nonsense", "data.columns.input", "training.epochs", "training.batch_size",
                "decision.confidence"):  # fmt: skip
        assert any(f"'{key}'" in problem for problem in found), key
    with pytest.raises(InputError) as caught:
        parse_task({"seed": -1, "nonsense": 1}, where="x")
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), (" 2H ", 7200), ("1d", 86400), ("0.5m", 30), (45, 45),
     (1.5, 1.5), ("1h0m5s", 3605)],
)  # fmt: skip
def test_a_budget_is_read_in_any_usual_form(text: object, seconds: float) -> None:
    assert parse_task({"budget": text}, where="x").budget == seconds


@pytest.mark.parametrize("text", ["", "soon", "10 minutes", "-5m", "5m-", "1h-5m", "0", 0, -3, "0s", None, [600], "m",
                                  float("inf"), float("nan")])  # fmt: skip
def test_a_budget_that_is_no_positive_duration_is_refused(text: object) -> None:
    (problem,) = problems({"budget": text})
    assert "'budget'" in problem


def test_durations_for_people() -> None:
    shown = [format_seconds(seconds) for seconds in (0.4, 45, 59.6, 60, 61, 600, 3599.7, 3900, 86400)]
    assert shown == ["0s", "45s", "1m", "1m", "1m01s", "10m", "1h00m", "1h05m", "24h00m"]


def test_relative_data_paths_are_taken_from_the_files_own_folder(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "er"
    folder.mkdir(parents=True)
    path = written(folder, "data: {train: a.csv, validation: ../b.csv, test: /abs/c.csv}\n")
    data = load_task(path).data
    wanted = (str(folder / "a.csv"), str(tmp_path / "deep" / "b.csv"), "/abs/c.csv")
    assert (data.train, data.validation, data.test) == wanted


def test_the_run_to_continue_from_is_taken_from_the_files_own_folder(tmp_path: Path) -> None:
    path = written(tmp_path, "training: {from: runs/first}\n")
    assert load_task(path).training.from_ == str(tmp_path / "runs" / "first")
    assert load_task(path, {"training.from": "elsewhere"}).training.from_ == "elsewhere"


def test_relative_paths_hold_when_the_task_file_itself_is_named_relatively(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "data: {train: a.csv}\n")
    monkeypatch.chdir(tmp_path)
    assert load_task(Path("task.yaml")).data.train == str(tmp_path / "a.csv")


def test_overrides_lie_over_the_file_and_make_missing_sections(tmp_path: Path) -> None:
    path = written(tmp_path, "data: null\ntraining: {epochs: 3}\nbudget: 5m\n")
    task = load_task(path, {"data.columns.input": "text", "training.rank": 8, "budget": "7m"})
    assert (task.data.columns.input, task.training.epochs, task.training.rank, task.budget) == ("text", 3, 8, 420)
    assert load_task(None) == Task()
    with pytest.raises(InputError, match="holds a value"):
        load_task(written(tmp_path, "data: x.csv\n"), {"data.train": "y.csv"})


@pytest.mark.parametrize(
    ("text", "what"),
    [("a: [1,\n", "not valid YAML"), ("- a\n- b\n", "holds a list"), ("just words\n", "holds a str"),
     ("a: b: c\n", r"task\.yaml:1"), ("x: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
     ("[" * 5000, "not valid YAML"), ("a: \x00\n", "not valid YAML")],
)  # fmt: skip
def test_a_file_that_is_no_task_says_where_and_why(tmp_path: Path, text: str, what: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=what) as caught:
        load_task(path)
    assert str(path) in str(caught.value)


def test_a_missing_folder_or_undecodable_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such task file"):
        load_task(tmp_path / "nothing.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        load_task(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(InputError, match="not UTF-8"):
        load_task(tmp_path / "latin.yaml")


@pytest.mark.parametrize("content", [{1: 2}, {True: 1}, {None: 3}, {"data": {5: 6}}, {"data": [1]}, {"models": []},
                                     {"models": ["a"] * 9}, {"name": "../evil"}, {"name": "x" * 65},
                                     {"horizon_months": 1}, {"decision": {"horizon_months": float("inf")}},
                                     {"prompt": {"labels": {"a": 1}}}])  # fmt: skip
def test_odd_shapes_are_input_errors_too(content: dict[Any, Any]) -> None:
    assert problems(content)


def test_an_empty_file_is_the_default_task_and_a_task_is_frozen(tmp_path: Path) -> None:
    task = load_task(written(tmp_path, "# nothing\n"))
    assert task == Task()
    with pytest.raises(ValidationError):
        task.seed = 3  # type: ignore[misc]


TASKS: list[dict[str, Any]] = [
    {},
    {"name": "x", "kind": "classification", "budget": "1h30m", "seed": 7},
    {"budget": 3725},
    {"budget": 90.5},
    {"budget": 0.3},
    {"budget": 86401},
    {"data": {"train": "/a b/tr:ain #1.csv", "columns": {"input": "te xt", "output": "label: x", "id": "#"}}},
    {
        "prompt": {
            "system": "Line one.\nLine two: # not a comment\n\n  indented 'quotes' \"double\"",
            "labels": ["a", "b c"],
        }
    },
    {"prompt": {"system": "- yes\n---\nno", "labels": ["yes", "no", "null", "1", "1.5", "", "é", "a\nb", "x..."]}},
    {"prompt": {"system": "ends..."}, "arms": ["zero-shot", "lora-short"], "metric": "rouge-l"},
    {"training": {"method": "lora", "epochs": 1.5, "batch_size": 8, "learning_rate": 1e-05, "rank": 4}},
    {"decision": {"required_score": 0.9, "requests_per_month": 0, "usd_per_machine_hour": 0.0}},
]


@pytest.mark.parametrize("content", TASKS, ids=range(len(TASKS)))
def test_a_commented_file_loads_as_the_same_task(tmp_path: Path, content: dict[str, Any]) -> None:
    task = parse_task(content, where="x")
    text = commented_yaml(task, {"kind": "few distinct answers: 7", "data.columns.input": "guessed"})
    assert load_task(written(tmp_path, text)) == task
    assert all("#" in line for line in text.splitlines()[:4])
    assert "few distinct answers: 7" in text


@given(
    system=st.one_of(st.none(), st.text()),
    column=st.one_of(st.none(), st.text()),
    labels=st.lists(st.text(), max_size=4),
    budget=st.floats(min_value=1e-3, max_value=1e7),
)
def test_any_text_survives_the_commented_file(
    system: str | None, column: str | None, labels: list[str], budget: float
) -> None:
    content = {"prompt": {"system": system, "labels": labels}, "data": {"columns": {"input": column}}, "budget": budget}
    task = parse_task(content, where="x")
    assert parse_task(yaml.safe_load(commented_yaml(task)), where="x") == task


def test_every_key_of_the_schema_has_its_help_in_the_commented_file() -> None:
    text = commented_yaml(Task())
    for key, field in known_keys().items():
        assert field.description, key
        assert f"{key.split('.')[-1]}:" in text
        assert f"# {field.description}" in text
