"""Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290) as batches and a loss for the one loop.

A pair is two rows with the same prompt. With r(y) = sum of log p(answer token | ...) under the trained model minus the
same under the reference, the loss is -log sigmoid(beta (r(chosen) - r(rejected))), summed over pairs and divided once
by their number. The reference is the model as it is before the first step, asked once (LAW 22: nothing is random, so
the first loss is ln 2).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tuneworth.errors import InputError
from tuneworth.training.batches import FILLED_TO, Pack, Row, micro_batches, pack
from tuneworth.training.loss import token_log_probabilities
from tuneworth.training.records import Loss


@dataclass(frozen=True, slots=True)
class Pair:
    """A better and a worse answer to one prompt; `reference` is log p(chosen) - log p(rejected) of the reference."""

    id: str
    chosen: Row
    rejected: Row
    reference: float = 0.0

    @classmethod
    def of(cls, chosen: Row, rejected: Row) -> Pair:
        """The pair of two rows. Raises InputError when their prompts differ (LAW 21)."""
        prompts = [row.ids[: row.trained.index(True)] if any(row.trained) else row.ids for row in (chosen, rejected)]
        if prompts[0] != prompts[1]:
            raise InputError("the two answers of a pair stand behind different prompts", where=f"row {chosen.id}")
        return cls(chosen.id, chosen, rejected)

    @property
    def ids(self) -> tuple[int, ...]:
        """All tokens of both rows."""
        return self.chosen.ids + self.rejected.ids

    @property
    def trained_tokens(self) -> int:
        """Of the shorter answer: a pair with an empty answer says nothing (LAW 19)."""
        return min(self.chosen.trained_tokens, self.rejected.trained_tokens)


@dataclass(frozen=True, slots=True)
class PairPack(Pack):
    """Rows chosen, rejected, chosen, rejected, ... of M pairs, and `reference` [M] of each pair."""

    reference: Tensor

    @property
    def count(self) -> int:
        """The loss is a sum over pairs."""
        return len(self.reference)


def pair_packs(pairs: Sequence[Pair], maximum_tokens: int, device: str) -> Iterator[PairPack]:
    """Pairs as packed micro-batches; the two answers of a pair stand in one pack and share what they can."""
    for part in micro_batches(pairs, maximum_tokens):
        rows = [row for pair in part for row in (pair.chosen, pair.rejected)]
        packed = pack(rows, device=device, filled_to=FILLED_TO)
        reference = torch.tensor([pair.reference for pair in part], dtype=torch.float64, device=device)
        yield PairPack(**{field.name: getattr(packed, field.name) for field in fields(packed)}, reference=reference)


def answer_log_probabilities(model: torch.nn.Module, packed: Pack) -> Tensor:
    """[rows of the pack]: the sum of log p(token | everything before it in its row) over the trained tokens."""
    of_tokens = token_log_probabilities(model, packed)
    return of_tokens.new_zeros(len(packed.row_ids)).index_add(0, packed.owner, of_tokens)


@torch.no_grad()
def log_probabilities(model: torch.nn.Module, packs: Iterable[Pack]) -> Iterator[tuple[tuple[str, ...], list[float]]]:
    """For each pack the ids of its rows and log p of each row's trained tokens, in nats."""
    model.eval()
    for packed in packs:
        yield packed.row_ids, answer_log_probabilities(model, packed).tolist()


def margins(model: torch.nn.Module, packed: PairPack) -> Tensor:
    """[pairs]: r(chosen) - r(rejected), over 0 where the model prefers the chosen answer more than the reference."""
    chosen, rejected = answer_log_probabilities(model, packed).view(-1, 2).unbind(1)
    return chosen - rejected - packed.reference.to(chosen.dtype)


def preference_loss(beta: float) -> Loss:
    """The loss of a PairPack at `beta`: how strongly the model is held to the reference."""

    def loss(model: torch.nn.Module, packed: PairPack) -> Tensor:
        return -logsigmoid(beta * margins(model, packed)).sum()

    return loss


@torch.no_grad()
def with_reference(model: torch.nn.Module, pairs: Sequence[Pair], maximum_tokens: int, device: str) -> list[Pair]:
    """`pairs` with the reference's log-probabilities, which are those of `model` as it is now. Ids must be unique."""
    model.eval()
    plain = [replace(pair, reference=0.0) for pair in pairs]
    found: dict[str, float] = {}
    for packed in pair_packs(plain, maximum_tokens, device):
        found |= zip(packed.row_ids[::2], margins(model, packed).tolist(), strict=True)
    return [replace(pair, reference=found[pair.id]) for pair in plain]


@torch.no_grad()
def preference_scores(
    model: torch.nn.Module, pairs: Sequence[Pair], beta: float, maximum_tokens: int, device: str
) -> dict[str, float]:
    """`validation_loss`, the mean over pairs, and `validation_score`, the share of pairs whose better answer the model
    finds likelier (a tie counts half): what arms are judged by. `validation_reward_accuracy` is the share with a margin
    over the reference's."""
    packs = list(pair_packs(pairs, maximum_tokens, device))
    found = torch.cat([margins(model, packed) for packed in packs])
    plain = found + torch.cat([packed.reference.to(found.dtype) for packed in packs])
    return {
        "validation_loss": float(-logsigmoid(beta * found).mean()),
        "validation_score": float((torch.sign(plain) / 2 + 0.5).double().mean()),
        "validation_reward_accuracy": float((found > 0).double().mean()),
    }
