"""How fast each arm is here: wall seconds of answering and of training, on a few real rows, before the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuneworth.data import Example
from tuneworth.evaluation.arms import Bench, stratified
from tuneworth.evaluation.forecast import training_rate
from tuneworth.evaluation.prompts import FULL, SHORT
from tuneworth.models.tuning import FULL_METHOD, Recipe
from tuneworth.pipeline.ladder import AT, CLASSICAL, LORA_SHORT, Arm, Taught, arms_of, misfit
from tuneworth.pipeline.workshop import Workshop
from tuneworth.plan import (
    Rate,
    Rates,
    TrainingPlan,
)
from tuneworth.rendering.tools import reply_text

_MEASURED_ROWS = 32


def recipe_of(settings: Mapping[str, Any], all_weights: bool, seed: int, start: Path | None = None) -> Recipe:
    """How an arm is tuned, from the settings of a plan."""
    values = {name: setting["value"] for name, setting in settings.items()}
    lora = "lora" if values["method"] == FULL_METHOD else values["method"]
    return Recipe(FULL_METHOD if all_weights else lora, values["rank"], values["alpha"], seed, start)


def measure(work: Workshop, bench: Bench, settings: TrainingPlan, most_tokens: int) -> Rates:
    """Wall seconds per row of each arm, on a few real rows."""
    task = work.task
    sample = _sample(bench)
    arms = arms_of(task)
    work.watcher.begin("measuring this machine", 2 * len(arms))
    answer: dict[str, Rate] = {}
    train: dict[str, float] = {}
    for arm in arms.values():
        if arm.asked and arm.asked.rate_of in answer:
            answer[arm.name] = answer[str(arm.asked.rate_of)]
        elif arm.asked and not misfit(arm, bench.kind):
            dearest = arm.asked.forms(work, bench)[-1]
            model = work.model_of(arm)
            answer[arm.name] = model.answer_rate(dearest, sample, model.suited(bench.scoring))
        elif arm.taught_there and not misfit(arm, bench.kind):
            answer[arm.name] = _rate_there(work, bench, arm, answer)
        elif arm.taught and arm.taught.distils and (misfit(arm, bench.kind) or LORA_SHORT in train):
            if LORA_SHORT in train and not misfit(arm, bench.kind):  # the same training on more rows
                answer[arm.name], train[arm.name] = answer[LORA_SHORT], train[LORA_SHORT]
        elif arm.taught and not _same_as_short(bench, arm.taught):
            answer[arm.name], train[arm.name] = training_rates(work, bench, settings, arm.taught, most_tokens)
        work.watcher.advance(2)
    # Fitting grows with rows and labels; BANKING77 (9,800 rows, 77 labels) takes 11 to 15 s on one core.
    classical = 1.0 + 2.5e-5 * len(bench.train) * max(2, len(bench.scoring.labels)) if CLASSICAL in arms else 0.0
    return Rates(answer, train, classical, read_first=bench.read_first)


def _rate_there(work: Workshop, bench: Bench, arm: Arm, known: Mapping[str, Rate]) -> Rate:
    """How fast a provider's model will answer when it is tuned: as fast as before, measured on another of its arms."""
    assert arm.taught_there is not None
    there = next((rate for name, rate in known.items() if name.endswith(f"{AT}{arm.provider}")), None)
    if there is not None:
        return there
    model = work.model_of(arm)
    return model.answer_rate(bench.form(arm.taught_there.form), _sample(bench), model.suited(bench.scoring))


def _same_as_short(bench: Bench, taught: Taught) -> bool:
    """Whether the full prompt of this task is no other than the short one, so that one training is enough."""
    row = bench.validation[0]
    return (
        taught.form == FULL and not taught.shots and bench.form(FULL).messages(row) == bench.form(SHORT).messages(row)
    )


def training_rates(
    work: Workshop, bench: Bench, settings: TrainingPlan, taught: Taught, most_tokens: int, *, roughly: bool = False
) -> tuple[Rate, float]:
    """Wall seconds of answering as tuned, and of training a row; `roughly` by one batch."""
    form, batch_size = taught.form_of(bench), int(settings.batch_size.value)
    recipe = recipe_of(settings.to_json(), taught.all_weights, work.task.seed)
    with work.local.tuned(recipe):
        answer = work.local.answer_rate(form, _sample(bench), bench.scoring, _learnt_tokens(work, bench))
    batches = 1 if roughly or taught.form == FULL else 3
    rows = stratified(bench.train, batches * batch_size, work.task.seed, bench.kind)
    return answer, training_rate(work.local, form, rows, bench.kind, batch_size, recipe, most_tokens)


def _sample(bench: Bench) -> tuple[Example, ...]:
    """The rows with which arms are timed. Rows of one group, the turns of one conversation, begin alike, which answers
    side by side do not gain from: one of each group comes first, then the second of each.
    """
    place: Counter[str] = Counter()
    turns = []
    for row in bench.validation:
        turns.append(place[row.group or row.id])
        place[row.group or row.id] += 1
    apart = [bench.validation[at] for at in sorted(range(len(turns)), key=turns.__getitem__)]
    most = _MEASURED_ROWS // 2 if bench.scoring.chooses and bench.task.budget < 150 else _MEASURED_ROWS
    return tuple(apart[:most])


def _learnt_tokens(work: Workshop, bench: Bench) -> float | None:
    """How long a trained arm's answers are, if it writes any: as those that it learnt from."""
    if bench.scoring.chooses:
        return None
    lengths = [len(work.local.renderer.encode_text(reply_text(e.reply.to_openai()))) for e in bench.train[:400]]
    return sum(lengths) / max(1, len(lengths))
