"""The user's own metric: only when code is allowed; its faults concern their row, its nonsense stops the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.rows import judged, raw, row
from tuneworth.errors import InputError
from tuneworth.evaluation.metrics import check_metric, choose_metric
from tuneworth.task import Task

CODE = """
def score(example, answer):
    if answer == "crash":
        raise KeyError("no such thing")
    return {"two": 2, "nan": float("nan"), "text": "0.5", "none": None}.get(answer, len(answer) / 10)

number = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder with a module of the user's, and the command started in it."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return name


def test_it_scores_every_answer_and_its_faults_are_errors_of_their_rows(here: str) -> None:
    rows = [(row("a", 0), raw("12345")), (row("b", 1), raw("crash")), (row("c", 2), raw(""))]
    answers, totals = judged("generation", rows, metric=f"{here}:score", allow_code=True)
    assert [a.score for a in answers] == [0.5, 0, 0]
    assert answers[1].error == f"{here}:score raised KeyError: 'no such thing'"
    assert answers[2].error is None
    assert "chrf" in totals  # the kind's own numbers stand beside it


def test_it_is_tried_on_the_rows_own_answers_before_anything_starts(here: str) -> None:
    metric = choose_metric(Task(metric=f"{here}:score"), "generation", (), allow_code=True)
    check_metric(metric, [row("12345", 0)])
    with pytest.raises(InputError, match=r"cannot score the row's own answer: .*no such thing") as raised:
        check_metric(metric, [row("12345", 0), row("crash", 1)])
    assert raised.value.problems[0].where == "file.jsonl:2 (id r1)"


@pytest.mark.parametrize("text", ["two", "nan", "text", "none"])
def test_what_is_no_number_in_0_to_1_stops_with_the_row(here: str, text: str) -> None:
    with pytest.raises(InputError, match="a score is a number from 0 to 1") as raised:
        judged("generation", [(row("a", 6), raw(text))], metric=f"{here}:score", allow_code=True)
    assert raised.value.problems[0].where == "file.jsonl:7 (id r6)"


def test_nothing_is_imported_unless_code_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sneaky.py").write_text("raise SystemError('imported')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="add --allow-code"):
        judged("generation", [], metric="sneaky:score")


@pytest.mark.parametrize(
    ("metric", "what"),
    [
        ("no_such_module:score", "cannot be imported"),
        ("{}:missing", "has no function"),
        ("{}:number", "has no function"),
    ],
)
def test_what_cannot_be_loaded_is_refused_at_once(here: str, metric: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        judged("generation", [], metric=metric.format(here), allow_code=True)
