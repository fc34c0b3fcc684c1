"""Losses and gradients computed the long way, one plain forward pass a row, and what the loop's first step made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tiny import all_parameters, hooks, plain_logits, plain_twin, random_row, settings
from tuneworth.training import Checkpoint, Row, answer_loss, train

# Lengths 10, 40, 45 and 50 with 3, 17, 5 and 40 trained tokens, two tokens shared by all.
UNEVEN = [
    random_row(name, prompt, answer, seed, (290, 291))
    for seed, (name, prompt, answer) in enumerate([("a", 5, 3), ("b", 21, 17), ("c", 38, 5), ("d", 8, 40)])
]


def hand_loss(twin: torch.nn.Module, rows: Sequence[Row]) -> Tensor:
    """Sum of -log p over the trained tokens, one plain forward pass a row."""
    total = torch.zeros((), dtype=torch.float64)
    for row in rows:
        predicted = torch.log_softmax(plain_logits(twin, row.ids), -1)
        for index in range(1, len(row.ids)):
            if row.trained[index]:
                total = total - predicted[index - 1, row.ids[index]]
    return total


def hand_gradients(model: Any, rows: Sequence[Row]) -> dict[str, Tensor]:
    twin = plain_twin(model)
    (hand_loss(twin, rows) / sum(row.trained_tokens for row in rows)).backward()
    return {name: parameter.grad for name, parameter in twin.named_parameters()}


def first_gradients(model: Any, rows: Sequence[Row], changes: Mapping[str, Any]) -> dict[str, Tensor]:
    """The gradient of the one optimiser step over `rows`, read from Adam's first moment (0.1 of it)."""
    found: dict[str, Tensor] = {}

    def save(checkpoint: Checkpoint) -> None:
        found.update({n[6:]: t / 0.1 for n, t in checkpoint.tensors.items() if n.startswith("first/")})

    chosen = settings(steps=1, warmup_steps=1, batch_size=len(rows), **changes)
    train(model, all_parameters(model), rows, chosen, answer_loss, hooks(save=save))
    return found
