"""Packing, loss and the one training loop. Knows token ids and tensors, no texts and no file names."""

from tuneworth.training.batches import Pack, Row, epoch_batches, micro_batches, pack
from tuneworth.training.loop import Checkpoint, Hooks, Outcome, Settings, learning_rate, train
from tuneworth.training.loss import answer_loss

__all__ = [
    "Checkpoint",
    "Hooks",
    "Outcome",
    "Pack",
    "Row",
    "Settings",
    "answer_loss",
    "epoch_batches",
    "learning_rate",
    "micro_batches",
    "pack",
    "train",
]
