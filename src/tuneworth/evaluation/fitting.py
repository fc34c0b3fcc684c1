"""Fine-tuning a local model: the tuning that is on it is trained, and judged on validation rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

from tuneworth.data.example import Example
from tuneworth.evaluation.forms import Form
from tuneworth.evaluation.local import LocalModel, Scoring
from tuneworth.models.recompute import recomputed
from tuneworth.plan import Rate, looks_seconds
from tuneworth.training import (
    Checkpoint,
    Hooks,
    Outcome,
    Pair,
    Settings,
    answer_loss,
    pair_packs,
    preference_loss,
    preference_scores,
    row_packs,
    train,
    with_reference,
)
from tuneworth.training.loss import total_loss
from tuneworth.training.records import Batches, Loss, Trainable

DPO_BETA = 0.1  # how strongly preferences are held to the model as it was (Rafailov et al. 2023)
_AFTER_SECONDS = 4.0  # between a training and the end of its arm, beside answers: loading it, requests asked alone


@dataclass(frozen=True, slots=True)
class Fit:
    """What a fine-tuning needs besides its rows: settings, how to score, what it reports to, whether blocks are
    computed again in the backward pass to save memory, and how many rows it will answer when it is done."""

    settings: Settings
    scoring: Scoring
    on_record: Callable[[Mapping[str, object]], None]
    save: Callable[[Checkpoint], None]
    resume: Checkpoint | None = None
    recompute: bool = False
    answers_after: float = 0.0


def fit_rows(
    local: LocalModel, form: Form, rows: Sequence[Trainable], validation: Sequence[Example], fit: Fit
) -> Outcome:
    """Train the tuning that is on the model; the best step by score on `validation` is what remains."""
    if fit.scoring.kind == "preference":
        pairs = [row for row in rows if isinstance(row, Pair)]
        return fit_preferences(local, pairs, local.preference_pairs(form, validation)[0], DPO_BETA, fit)
    model = local.tuning.model
    held_out, _ = local.training_rows(form, validation, "last")

    def evaluate() -> dict[str, float]:
        start = time.perf_counter()
        answers = local.scored(form, validation, fit.scoring)
        a_row = (time.perf_counter() - start) / len(validation)
        return {
            "seconds_after": Rate(_AFTER_SECONDS, a_row).seconds(fit.answers_after),
            "validation_loss": total_loss(model, held_out, fit.settings.maximum_tokens, local.device),
            "validation_score": sum(a.score for a in answers) / len(answers),
        }

    def expect(a_row: float) -> dict[str, float]:
        rate = local.answer_rate(form, validation, fit.scoring)
        return {
            "evaluation_seconds": looks_seconds(rate, a_row, len(validation), 1),
            "seconds_after": Rate(_AFTER_SECONDS + rate.once, rate.a_row).seconds(fit.answers_after),
        }

    return _train(local, rows, answer_loss, row_packs, evaluate, fit, None if fit.scoring.chooses else expect)


def fit_preferences(
    local: LocalModel, pairs: Sequence[Pair], validation: Sequence[Pair], beta: float, fit: Fit
) -> Outcome:
    """Train on pairs (DPO) held to the model as it is now; the best step prefers most of `validation` rightly."""
    model, most, began = local.tuning.model, fit.settings.maximum_tokens, time.perf_counter()
    rows, held_out = (with_reference(model, part, most, local.device) for part in (pairs, validation))

    def evaluate() -> dict[str, float]:
        return preference_scores(model, held_out, beta, most, local.device)

    # What the model says of the pairs as it is now is part of the training's time.
    left = max(1.0, fit.settings.maximum_seconds - (time.perf_counter() - began))
    fit = replace(fit, settings=replace(fit.settings, maximum_seconds=left))
    return _train(local, rows, preference_loss(beta), pair_packs, evaluate, fit)


def _train(
    local: LocalModel,
    rows: Sequence[Trainable],
    loss: Loss,
    batches: Batches,
    evaluate: Callable[[], dict[str, float]],
    fit: Fit,
    expect: Callable[[float], dict[str, float]] | None = None,
) -> Outcome:
    tuned = local.tuning
    hooks = Hooks(evaluate=evaluate, expect=expect, on_record=fit.on_record, save=fit.save)
    with recomputed(tuned.model) if fit.recompute else nullcontext():
        return train(tuned.model, tuned.parameters, rows, fit.settings, loss, hooks, fit.resume, batches=batches)
