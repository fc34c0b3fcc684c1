"""The settings of a run's trainings: by rule from its rows and its model, unless the user fixed them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tuneworth.evaluation.arms import Bench, stratified
from tuneworth.evaluation.prompts import SHORT
from tuneworth.models.adapters import LORA_B
from tuneworth.models.architecture import Architecture
from tuneworth.pipeline.continuing import continued
from tuneworth.pipeline.workshop import Workshop
from tuneworth.plan import EVALUATIONS, Setting, TrainingPlan, training_plan
from tuneworth.store.atomic import read_json
from tuneworth.training import Settings

_COUNTED_ROWS = 256  # whose trained tokens are counted


def settings_of(work: Workshop, bench: Bench, tried: Mapping[str, Any] | None = None) -> TrainingPlan:
    """The settings of a training on the rows of `bench`: by rule, or what a search found, or, within one, `tried`."""
    facts = Architecture.of_config(work.local.model.config.to_dict(), str(work.local.folder.path))
    found = read_json(work.folder.search) if tried is None and work.folder.search.is_file() else {}
    values = found.get("settings", {}) if tried is None else tried
    plan = training_plan(
        continued(work.task.training, work.start).model_copy(update=values),
        train_rows=len(bench.train),
        width=facts.width,
        preference=bench.kind == "preference",
        trained_tokens=_trained_tokens(work, bench),
        adapter_parameters_a_rank=facts.lora_parameters(1),
    )
    names = [*values, *(["full_learning_rate"] if "learning_rate" in values else [])]
    why = f"{found.get('why', 'tried')} (override: training.search=false)"
    return replace(plan, **{name: Setting(getattr(plan, name).value, why, "search") for name in names})


def loop_settings(
    work: Workshop, settings: Mapping[str, Any], steps: int, *, all_weights: bool, evaluations: int = EVALUATIONS
) -> Settings:
    """What the training loop is told, from the settings of a plan; how long it may take and how much it may hold at a
    time are added by who knows."""
    values = {name: setting["value"] for name, setting in settings.items()}
    return Settings(
        steps=steps,
        batch_size=values["batch_size"],
        learning_rate=values["full_learning_rate" if all_weights else "learning_rate"],
        warmup_steps=max(1, round(values["warmup_share"] * steps)),
        evaluate_every=max(1, -(-steps // evaluations)),
        seed=work.task.seed,
        schedule=values["schedule"],
        patience=work.task.training.patience,
        device=work.machine.device,
        rate_shares={} if all_weights else {LORA_B: values.get("lora_b_ratio", 1.0)},  # a plan of old has none
    )


def _trained_tokens(work: Workshop, bench: Bench) -> int:
    """What one pass over the training rows trains, by the mean of some of them."""
    sample = stratified(bench.train, _COUNTED_ROWS, work.task.seed, bench.kind)
    rows, _ = work.local.learnable(bench.form(SHORT), sample, bench.kind, work.task.training.turns)
    return round(len(bench.train) * sum(row.trained_tokens for row in rows) / len(sample))
