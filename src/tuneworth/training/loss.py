"""The loss: negative log-likelihood of the trained tokens, summed; whoever steps divides once (LAW 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from tuneworth.models.kernels import precise, softmax_in_place
from tuneworth.models.structure import plain_head
from tuneworth.training.batches import FILLED_TO, Pack, Row, micro_batches, pack

# Logits of so many tokens are held at a time.
_TOKENS_AT_ONCE = 256


def answer_loss(model: torch.nn.Module, pack: Pack) -> Tensor:
    """Sum over the trained tokens of -log p(token | everything before it in its row), in float32 or better."""
    return -token_log_probabilities(model, pack).sum()


def token_log_probabilities(model: Any, pack: Pack) -> Tensor:
    """[N]: log p of each target of the pack, in float32 or better.

    Logits are computed at the trained positions only, and where the head is a plain linear layer, of a few of them at
    a time: no matrix of tokens by vocabulary is held.
    """
    inputs = {"input_ids": pack.ids, "position_ids": pack.positions, "layout": pack.layout, "use_cache": False}
    head = plain_head(model)
    if head is None:
        logits = model(**inputs, logits_to_keep=pack.source).logits[0]
        return log_softmax(logits.to(precise(logits)), -1).gather(1, pack.target[:, None])[:, 0]
    hidden = _body(model)(**inputs).last_hidden_state[0]
    out: Tensor = _LogProbabilities.apply(hidden[pack.source], head.weight, pack.target)  # type: ignore[no-untyped-call]
    return out


class _LogProbabilities(torch.autograd.Function):
    """hidden [N, H], weight [V, H], target [N] -> log p(target) [N]."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        needs_hidden, needs_weight, _ = ctx.needs_input_grad
        # d log p / d hidden = weight[target] - p weight: with a frozen head it is found along the way.
        slope = torch.empty_like(hidden) if needs_hidden and not needs_weight else None
        found = hidden.new_empty(len(target), dtype=precise(hidden))
        for part in _chunks(len(target)):
            logits = hidden[part] @ weight.t()
            wanted = logits.gather(1, target[part, None])[:, 0].to(found.dtype)
            found[part] = wanted - softmax_in_place(logits)
            if slope is not None:
                slope[part] = weight[target[part]] - logits @ weight
        ctx.save_for_backward(hidden, weight, target, slope)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, target, slope = ctx.saved_tensors
        gradient = gradients[0][:, None].to(hidden.dtype)
        if slope is not None:
            return slope * gradient, None, None
        to_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        to_weight = torch.zeros_like(weight, dtype=precise(weight))
        for part in _chunks(len(target)):
            logits = hidden[part] @ weight.t()
            softmax_in_place(logits)
            logits.neg_()
            logits[torch.arange(len(logits), device=logits.device), target[part]] += 1
            logits *= gradient[part]
            if to_hidden is not None:
                to_hidden[part] = logits @ weight
            to_weight += logits.t() @ hidden[part]
        return to_hidden, to_weight.to(weight.dtype), None


def _chunks(tokens: int) -> list[slice]:
    return [slice(start, start + _TOKENS_AT_ONCE) for start in range(0, tokens, _TOKENS_AT_ONCE)]


def _body(model: Any) -> Any:
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    return whole.get_decoder()


@torch.no_grad()
def total_loss(model: torch.nn.Module, rows: Sequence[Row], maximum_tokens: int, device: str) -> float:
    """Mean negative log-likelihood per trained token over all rows: one sum, divided once (LAW 15)."""
    loss, trained = 0.0, 0
    for part in micro_batches(rows, maximum_tokens):
        packed = pack(part, device=device, filled_to=FILLED_TO)
        loss += answer_loss(model, packed).item()
        trained += len(packed.target)
    return loss / trained


@torch.no_grad()
def row_losses(model: torch.nn.Module, rows: Sequence[Row], maximum_tokens: int, device: str) -> list[float]:
    """Of each row, in the order given, the sum of -log p over its trained tokens, in nats; row ids must differ."""
    found: dict[str, float] = {}
    for part in micro_batches(rows, maximum_tokens):
        packed = pack(part, device=device, filled_to=FILLED_TO)
        losses = -token_log_probabilities(model, packed).to(torch.float64)
        sums = torch.zeros(len(part), dtype=torch.float64, device=losses.device).index_add(0, packed.owner, losses)
        found |= zip(packed.row_ids, sums.tolist(), strict=True)
    return [found[row.id] for row in rows]
