"""The loss: negative log-likelihood of the trained tokens, summed; whoever steps divides once (LAW 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tuneworth.training.batches import Pack, Row, micro_batches, pack


def answer_loss(model: torch.nn.Module, pack: Pack) -> Tensor:
    """Sum over the trained tokens of -log p(token | everything before it in its row), in float32 or better.

    Logits are computed at the trained positions only.
    """
    logits = model(
        input_ids=pack.ids,
        position_ids=pack.positions,
        layout=pack.layout,
        use_cache=False,
        logits_to_keep=pack.source,
    ).logits[0]
    precise = torch.promote_types(logits.dtype, torch.float32)
    return cross_entropy(logits.to(precise), pack.target, reduction="sum")


@torch.inference_mode()
def total_loss(model: torch.nn.Module, rows: Sequence[Row], maximum_tokens: int, device: str) -> float:
    """Mean negative log-likelihood per trained token over all rows: one sum, divided once (LAW 15)."""
    loss, trained = 0.0, 0
    for part in micro_batches(rows, maximum_tokens):
        packed = pack(part, device=device)
        loss += answer_loss(model, packed).item()
        trained += len(packed.target)
    return loss / trained
