"""What goes into the training loop and what comes out of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from tuneworth.errors import TuneworthError
from tuneworth.training.batches import FILLED_TO, HasIds, Pack, micro_batches, pack


class Trainable(HasIds, Protocol):
    """One thing to learn from: a row with its answer, or a pair of a better and a worse answer."""

    @property
    def id(self) -> str:
        """Names the row of the data set."""

    @property
    def trained_tokens(self) -> int:
        """Tokens that count in the loss; at least one."""


Loss = Callable[[torch.nn.Module, Any], Tensor]
"""The loss of a batch as a sum; the loop divides by `count` over all batches of a step."""

Batches = Callable[[Sequence[Any], int, str], Iterable[Pack]]
"""(what a step trains on, most tokens a batch, device) becomes micro-batches."""


def row_packs(rows: Sequence[Any], maximum_tokens: int, device: str) -> Iterable[Pack]:
    """Rows as packed micro-batches."""
    return (pack(part, device=device, filled_to=FILLED_TO) for part in micro_batches(rows, maximum_tokens))


@dataclass(frozen=True, slots=True)
class Settings:
    """What the loop needs to know. The learning rate follows `schedule` after a linear rise over `warmup_steps`.

    `maximum_tokens` bounds a micro-batch; after `maximum_seconds` (resumed time counted in) the training ends early,
    and so it does when `patience` evaluations one after the other brought no better score. `evaluation_seconds` is
    what an evaluation is expected to take, for the time left until one has been measured. `rate_shares` says what part
    of the learning rate, or how many times it, parameters have whose names contain a word.

    Where `most_steps` is given, every evaluation settles anew how many steps fit into `maximum_seconds`, up to so many;
    where only the end is evaluated, half of the steps do. `settled_at` is where that was last, and evaluations are
    counted from there. `seconds_after` is what was kept back beside `maximum_seconds` for what comes after the
    training; where an evaluation measures another figure (`seconds_after` among its scores), the training gets the
    difference.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    evaluate_every: int
    seed: int
    schedule: str = "linear"
    patience: int | None = None
    clip_norm: float = 1.0
    maximum_tokens: int = 4096
    maximum_seconds: float = math.inf
    evaluation_seconds: float = 0.0
    device: str = "cpu"
    rate_shares: Mapping[str, float] = field(default_factory=dict)
    most_steps: int | None = None
    settled_at: int = 0
    seconds_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that the rest of a training depends on after `step` steps, as tensors and plain values.

    `unimproved` counts the last evaluations in a row that brought no better score, `recent_losses` are those of the
    last steps, `length` is (steps, evaluate_every, settled_at) as the last evaluation settled them, and `out_of_time`
    says that no time was left for another step.
    """

    step: int
    tensors: Mapping[str, Tensor]  # master/<name>, first/<name>, second/<name>; best/<name> if of an earlier step
    best_step: int
    best_score: float
    seconds: float
    unimproved: int = 0
    recent_losses: tuple[float, ...] = ()
    length: tuple[int, int, int] | None = None
    out_of_time: bool = False

    @classmethod
    def fresh(cls) -> Checkpoint:
        """Before the first step."""
        return cls(step=0, tensors={}, best_step=0, best_score=-math.inf, seconds=0.0)


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the loop calls: each step, each evaluation (returns the score that picks the best step), each save.

    `expect` is asked half way through a training that evaluates only its end: given the seconds that a row trains, it
    measures on a few answers what the evaluation and what comes after it will take (`evaluation_seconds`,
    `seconds_after`).
    """

    evaluate: Callable[[], Mapping[str, float]]
    expect: Callable[[float], Mapping[str, float]] | None = None
    on_record: Callable[[Mapping[str, Any]], None] = lambda record: None
    save: Callable[[Checkpoint], None] = lambda checkpoint: None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a training ended (`steps`, `time` or `patience`). The model holds the weights of `best_step`."""

    steps: int
    best_step: int
    best_score: float
    seconds: float
    ended: str

    @property
    def stopped_early(self) -> bool:
        """Whether steps were left."""
        return self.ended != "steps"


class DivergedError(TuneworthError):
    """The loss or its gradient is not finite. The step was not taken; `row_ids` are the rows that may be why."""

    def __init__(self, step: int, loss: float, norm: float, row_ids: Sequence[str]) -> None:
        self.row_ids = tuple(row_ids)
        super().__init__(
            f"the loss or its gradient is not finite at step {step} (loss {loss}, gradient norm {norm})",
            where="rows " + ", ".join(row_ids[:8]),
            cure="lower training.learning_rate, or look at these rows; the state before this step is kept",
        )
