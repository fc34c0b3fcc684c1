"""The prompting arms: a model as it is, asked in the prompt form that did best on validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tuneworth.evaluation.arms import Bench, answered, finish, leave_out, model_details
from tuneworth.evaluation.choosing import Choice, choose
from tuneworth.evaluation.documents import DocumentsForm
from tuneworth.evaluation.forms import Answerer, Form
from tuneworth.evaluation.prompts import FULL, with_shots
from tuneworth.evaluation.records import Answer
from tuneworth.evaluation.retrieved import RetrievedForm
from tuneworth.task.schema import format_seconds

SHOT_COUNTS = (4, 16)
MOST_FAILED = 0.01
"""Share of the test rows that may fail to be asked; beyond it (and one row) an arm has no score."""


def zero_shot(bench: Bench) -> list[Form]:
    """The task as it is told today, nothing else."""
    return [bench.form(FULL)]


def few_shot(bench: Bench) -> list[Form]:
    """The full prompt with 4 or 16 training rows shown as earlier turns."""
    return [with_shots(bench.form(FULL), bench.train, k, bench.task.seed, bench.kind) for k in SHOT_COUNTS]


def prompt_arm(
    bench: Bench,
    name: str,
    model: Answerer,
    forms: Sequence[Form],
    seconds: float = math.inf,
    most_seconds: float = math.inf,
) -> None:
    """Choose among `forms` on validation, answer test once, and write the arm; `failed` where it could not be asked.

    `seconds` is what the arm may take: where it would take more, fewer validation rows choose. Where choosing shows
    that with test it would take over `most_seconds`, the arm is `skipped`.
    """
    choice = choose(bench, name, model, forms, seconds)
    if (why := _too_slow(choice, len(bench.test), seconds, most_seconds)) is not None:
        leave_out(bench, name, "prompt", why, model=model.name)
        return
    bench.watcher.begin(f"{name}: answering test", len(bench.test))
    answers = answered(bench, model, choice.form, bench.test)
    if (why := answers_missing(answers)) is not None:
        leave_out(bench, name, "prompt", why, status="failed", model=model.name)
        return
    settings: dict[str, Any] = {"form": choice.form.name}
    if isinstance(choice.form, RetrievedForm):
        settings["retrieved"] = choice.form.count
    if isinstance(choice.form, DocumentsForm):
        settings["passages"] = choice.form.count
    if choice.tried:
        settings |= {"validation_score": choice.score, "tried": choice.tried, "validation_rows_failed": choice.failed}
    details = {
        "settings": settings,
        "build_seconds": choice.seconds,
        "build_usd": choice.usd,
        **model_details(bench, model, choice.form),
    }
    finish(bench, name, "prompt", answers, details)


def _too_slow(choice: Choice, rows: int, planned: float, most: float) -> str | None:
    """Why test is not asked, if it would take the time of what comes after."""
    needed = choice.seconds + choice.a_row * rows
    if needed <= most:
        return None
    return (
        f"{planned:.0f} s were planned for it, and it would take {needed:.0f} s, since a row takes "
        f"{choice.a_row:.2g} s; a budget {format_seconds(1.1 * (needed - most))} longer would do"
    )


def answers_missing(answers: Sequence[Answer]) -> str | None:
    """Why an arm has no score: too many rows could not be asked. Prompts that do not fit the context are its own fault,
    and are wrong answers."""
    failed = [answer for answer in answers if answer.error is not None and not answer.input_tokens]
    if len(failed) <= max(1, MOST_FAILED * len(answers)):
        return None
    reasons: dict[str, int] = {}
    for answer in failed:
        reason = str(answer.error)
        reasons[reason] = reasons.get(reason, 0) + 1
    most = sorted(reasons.items(), key=lambda item: -item[1])[:3]
    listed = "; ".join(f"{count} times {reason}" for reason, count in most)
    return (
        f"{len(failed)} of {len(answers)} test rows could not be asked ({listed}); run the same command again, "
        "what was answered is kept"
    )
