"""What a training of a local model will take: measured seconds a row, memory, disk."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tuneworth.data.example import Example
from tuneworth.evaluation.fitting import DPO_BETA
from tuneworth.evaluation.forms import Form
from tuneworth.evaluation.local import LocalModel, timed_rows
from tuneworth.models.architecture import Architecture
from tuneworth.models.recompute import MemoryPlan, free_bytes, memory_plan
from tuneworth.models.tuning import Recipe
from tuneworth.plan.needs import Method, activation_bytes_a_token, largest_batch, training_memory
from tuneworth.training import Hooks, Settings, answer_loss, pair_packs, preference_loss, row_packs, train
from tuneworth.training.records import Batches

_LONGEST = 8  # texts whose tokens are counted to find the longest row
# Two checkpoints are kept while the next is written; of each parameter: master, two moments and the best, in float32.
_CHECKPOINTS, _CHECKPOINT_BYTES = 3, 16


def training_rate(
    local: LocalModel, form: Form, examples: Sequence[Example], kind: str, batch_size: int, recipe: Recipe, tokens: int
) -> float:
    """Measured wall seconds per example of a training step in micro-batches of `tokens`, on a throw-away tuning: the
    median over steps.

    Every row is trained on twice, at a rate of zero, and the second time counts, since memory that is used anew is
    slower.
    """
    rows, _ = local.learnable(form, examples, kind)
    rows = rows[: timed_rows([row.ids for row in rows])]
    packs: Batches = pair_packs if kind == "preference" else row_packs
    loss = preference_loss(DPO_BETA) if kind == "preference" else answer_loss
    steps = math.ceil(len(rows) / batch_size)
    settings = Settings(2 * steps, batch_size, 0.0, 0, 2 * steps, 0, maximum_tokens=tokens, device=local.device)
    records: list[Mapping[str, Any]] = []
    hooks = Hooks(evaluate=lambda: {"validation_score": 0.0}, on_record=records.append)
    with local.tuned(recipe) as tuned:
        train(tuned.model, tuned.parameters, rows, settings, loss, hooks, batches=packs)
    timed = [record for record in records if "step_seconds" in record][steps:]
    return statistics.median(float(record["step_seconds"]) / int(record["rows"]) for record in timed)


def training_fit(
    local: LocalModel, form: Form, examples: Sequence[Example], kind: str, recipe: Recipe, wanted_tokens: int
) -> MemoryPlan:
    """How a training by `recipe` on `examples` fits this machine's free memory; the longest texts are looked at."""
    rows, _ = local.learnable(form, sorted(examples, key=_letters)[-_LONGEST:], kind)
    trained, dtype = _trained(local, recipe), local.model.dtype
    facts = Architecture.of_config(local.model.config.to_dict(), str(local.folder.path))
    precision = "bf16" if dtype.itemsize == 2 else "fp32"
    longest_tokens = max((len(row.ids) for row in rows), default=1)
    method = Method(recipe.method, recipe.rank)
    a_token = activation_bytes_a_token(facts, method, longest_tokens, precision)
    found = memory_plan(free_bytes(local.device, trained), a_token, longest_tokens, wanted_tokens)
    lengths, counts = [len(row.ids) for row in rows], [row.trained_tokens for row in rows]
    batch = largest_batch(lengths or [1], counts or [1], wanted_tokens, found.micro_batch_tokens)
    peak = training_memory(facts, replace(method, recompute=found.recompute), batch, precision, local.device).peak
    return replace(found, peak_bytes=peak)


def training_disk_bytes(local: LocalModel, recipe: Recipe, seeds: int) -> int:
    """What trainings by `recipe` write at most at one time: three checkpoints, and the weights of each seed."""
    return _trained(local, recipe) * (_CHECKPOINTS * _CHECKPOINT_BYTES + seeds * int(local.model.dtype.itemsize))


def _trained(local: LocalModel, recipe: Recipe) -> int:
    """How many parameters are trained."""
    with local.tuned(recipe) as tuned:
        return sum(p.numel() for p in tuned.parameters.values())


def _letters(example: Example) -> int:
    texts = [m.content for m in example.conversation] + [c.arguments for m in example.conversation for c in m.calls]
    return sum(map(len, texts)) + len(example.tools) + (len(example.rejected.content) if example.rejected else 0)
