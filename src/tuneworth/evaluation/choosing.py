"""Prompt forms tried on validation rows: all on a few, the better half on twice as many, the last two on all.

Successive halving (Jamieson & Talwalkar 2016) over nested, stratified subsets: 16 forms cost about five passes over the
validation rows instead of 16, two cost two. The test rows are never asked here (LAW 7).

A plan times one form on a few rows, and others may take longer. So the rows of a round are asked in parts, each as
large as all before it, and where the next would take more time than there is, those that were asked choose: the same
ones for every form that is left, and arm.json says how many.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuneworth.evaluation.arms import Bench, answered, stratified
from tuneworth.evaluation.forms import Answerer, Form
from tuneworth.evaluation.records import Answer, RawAnswer
from tuneworth.plan import rounds, rows_asked

_FIRST = 16  # rows of the first part


@dataclass(frozen=True, slots=True)
class Choice:
    """The form that was best, every form with its score and the validation rows it was asked, and what that took.

    `usd` is what the answers cost beside this machine's time, None where that is not known; `failed` counts rows that
    could not be asked; `a_row` is the wall seconds of one more row, 0 where too few were asked to know: the first of
    them pay for what all prompts share.
    """

    form: Form
    tried: tuple[dict[str, Any], ...]
    seconds: float
    usd: float | None
    failed: int
    a_row: float = 0.0

    @property
    def score(self) -> float | None:
        """The validation score of the chosen form; None when there was nothing to choose."""
        return next((float(one["score"]) for one in self.tried if one["form"] == self.form.name), None)


def choose(bench: Bench, name: str, model: Answerer, forms: Sequence[Form], seconds: float = math.inf) -> Choice:
    """The best of `forms` by its mean score on validation rows; among equals the one named first.

    `seconds` are those of choosing and of answering test together.
    """
    start = time.perf_counter()
    plan = rounds(len(forms), len(bench.validation))
    if not plan:
        return Choice(forms[0], (), 0.0, 0.0, 0)
    bench.watcher.begin(f"{name}: choosing on validation", rows_asked(len(forms), len(bench.validation)))
    answers: dict[str, dict[str, Answer]] = {form.name: {} for form in forms}
    left, asked, a_row = list(forms), 0, 0.0
    for count, rows in _parts(plan, _FIRST if math.isfinite(seconds) else len(bench.validation)):
        left = sorted(left, key=lambda form: -_mean(answers[form.name]))[:count]
        began, more = time.perf_counter(), len(left) * (rows - asked)
        # The first part pays for what all prompts share, so the second one is asked in any case.
        if asked > _FIRST and began - start + a_row * (more + len(bench.test)) > seconds:
            bench.watcher.note(f"{name}: {a_row:.2g} s a row, more than planned: {asked} validation rows choose")
            break
        subset = stratified(bench.validation, rows, bench.task.seed, bench.kind)
        for form in left:
            known = answers[form.name]
            new = [example for example in subset if example.id not in known]
            known.update({answer.id: answer for answer in answered(bench, model, form, new)})
        asked, a_row = rows, (time.perf_counter() - began) / more
    best = max(left, key=lambda form: _mean(answers[form.name]))
    tried = tuple(
        {"form": form.name, "rows": len(of), "score": _mean(of)} for form in forms if (of := answers[form.name])
    )
    every = [answer for of in answers.values() for answer in of.values()]
    return Choice(
        best,
        tried,
        time.perf_counter() - start,
        model.usd([raw_of(answer) for answer in every]),
        sum(answer.error is not None for answer in every),
        a_row if asked > _FIRST else 0.0,
    )


def _parts(plan: Sequence[tuple[int, int]], first: int) -> list[tuple[int, int]]:
    """The rounds of `plan`, (forms left, rows that each has been asked by then), cut into parts: `first` rows, then as
    many as before."""
    found, asked = [], 0
    for forms, target in plan:
        while asked < target:
            asked = min(target, max(first, 2 * asked))
            found.append((forms, asked))
    return found


def raw_of(answer: Answer) -> RawAnswer:
    """A scored answer as it was before it was read."""
    return RawAnswer(
        answer.raw, answer.finish_reason, answer.prompt_hash, answer.input_tokens, answer.output_tokens, answer.seconds,
        answer.error,
    )  # fmt: skip


def _mean(answers: dict[str, Answer]) -> float:
    return sum(answer.score for answer in answers.values()) / len(answers) if answers else 0.0
