"""Packing, losses and the one training loop. Knows token ids and tensors, no texts and no file names."""

from tuneworth.training.batches import Pack, Row, epoch_batches, micro_batches, pack
from tuneworth.training.loop import train
from tuneworth.training.loss import answer_loss
from tuneworth.training.preference import (
    Pair,
    log_probabilities,
    pair_packs,
    preference_loss,
    preference_scores,
    with_reference,
)
from tuneworth.training.records import Checkpoint, DivergedError, Hooks, Outcome, Settings, row_packs
from tuneworth.training.schedule import learning_rate

__all__ = [
    "Checkpoint",
    "DivergedError",
    "Hooks",
    "Outcome",
    "Pack",
    "Pair",
    "Row",
    "Settings",
    "answer_loss",
    "epoch_batches",
    "learning_rate",
    "log_probabilities",
    "micro_batches",
    "pack",
    "pair_packs",
    "preference_loss",
    "preference_scores",
    "row_packs",
    "train",
    "with_reference",
]
