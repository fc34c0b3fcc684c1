"""LAWS 8, 13 and 19 where texts become rows: what does not fit the context whole is left out and counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tiny import hooks, settings, tiny_model, tiny_renderer
from tuneworth.data.example import Example, Message
from tuneworth.errors import InputError
from tuneworth.evaluation.fitting import Fit, fit_preferences
from tuneworth.evaluation.local import LocalModel, Scoring
from tuneworth.evaluation.metrics import choose_metric
from tuneworth.evaluation.prompts import PromptForm
from tuneworth.models.sources import ModelFolder
from tuneworth.models.tuning import Recipe
from tuneworth.task import Task
from tuneworth.training import Outcome, answer_loss, train

FORM = PromptForm("full", "")


def example(name: str, asked: str, answer: str) -> Example:
    return Example(name, (Message("user", asked),), answer, "rows.csv", 2)


def pair(one: Example, worse: str) -> Example:
    return replace(one, rejected=Message("assistant", worse))


def local(context_tokens: int) -> LocalModel:
    folder = ModelFolder("tiny", Path("/nowhere"), "0" * 64, None, context_tokens)
    return LocalModel(folder, tiny_renderer(), tiny_model(), "cpu")


EXAMPLES = [example(f"{i}", "q" * (3 + i), "ab") for i in range(5)]


def length(one: Example, answer: str = "ab") -> int:
    told = [{"role": "user", "content": one.messages[0].content}, {"role": "assistant", "content": answer}]
    return len(tiny_renderer().training(told).ids)


@pytest.mark.parametrize(("limit", "kept"), [(-1, 2), (0, 3), (1, 4)])
def test_law_8_and_13_a_row_at_the_limit_is_whole_and_one_token_more_leaves_it_out_and_counts_it(
    limit: int, kept: int
) -> None:
    rows, too_long = local(length(EXAMPLES[2]) + limit).training_rows(FORM, EXAMPLES)
    assert [row.id for row in rows] == [str(i) for i in range(kept)]
    assert too_long == [str(i) for i in range(kept, 5)]
    end = tiny_renderer().end_id
    assert all(row.ids[-1] == end and row.trained[-1] and row.trained_tokens == 3 for row in rows)


def test_law_8_and_13_rows_that_are_all_too_long_are_an_error_not_a_loss_of_zero() -> None:
    rows, too_long = local(5).training_rows(FORM, EXAMPLES)
    assert len(too_long) == 5
    model = tiny_model()
    with pytest.raises(InputError):
        train(model, {}, rows, settings(), answer_loss, hooks())


@pytest.mark.parametrize(("limit", "kept"), [(-1, []), (0, ["0"])])
@pytest.mark.parametrize("swapped", [False, True])
def test_law_19_a_pair_whose_longer_answer_does_not_fit_is_left_out_and_counted(
    limit: int, kept: list[str], swapped: bool
) -> None:
    long, short = "x" * 40, "y"
    chosen, rejected = (short, long) if swapped else (long, short)
    one = example("0", "qqq", chosen)
    found, too_long = local(length(one, long) + limit).preference_pairs(FORM, [pair(one, rejected)])
    assert [made.id for made in found] == kept
    assert too_long == [name for name in ["0"] if name not in kept]
    for made in found:
        assert (made.chosen.trained_tokens, made.rejected.trained_tokens) == ((2, 41) if swapped else (41, 2))
        assert made.trained_tokens == 2


def test_preferences_are_learnt_from_texts_and_held_to_the_start() -> None:
    model = local(1000)
    worse = ["no", "b", "zz", "never", "x"]
    pairs, _ = model.preference_pairs(FORM, list(map(pair, EXAMPLES, worse)))
    records: list[Any] = []
    scoring = Scoring(choose_metric(Task(), "preference", ()), (), 8, "scored", "preference")
    chosen = settings(steps=12, batch_size=5, learning_rate=1e-2, evaluate_every=6)

    def fit(resume: Any = None) -> Outcome:
        with model.tuned(Recipe("lora", 4, 8, 0)):
            wanted = Fit(chosen, scoring, records.append, lambda checkpoint: None, resume)
            return fit_preferences(model, pairs, pairs, 0.3, wanted)

    outcome = fit()
    assert outcome.best_score == 1.0
    losses = [record["loss"] for record in records if "loss" in record]
    assert losses[0] == pytest.approx(0.693147180559945, abs=1e-12)
    assert losses[-1] < 0.5
    with pytest.raises(ValueError, match="put a tuning on"):
        fit_preferences(model, pairs, pairs, 0.3, Fit(chosen, scoring, records.append, lambda checkpoint: None))
