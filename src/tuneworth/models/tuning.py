"""What is trained of a model: an adapter on it, or all its weights; one shape for both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from tuneworth.errors import InputError
from tuneworth.models.adapters import Adapter, Model, add_lora, load_adapter, remove_adapter, save_adapter, trainable
from tuneworth.models.weights import load_weights, put_back, save_weights, snapshot, unfreeze

FULL_METHOD = "full"
_ADAPTER_FILE = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class Recipe:
    """`method` is lora, rslora, dora or full; rank and alpha are of adapters; `start` is a folder to go on from."""

    method: str
    rank: int
    alpha: int
    seed: int
    start: Path | None = None


class Tuned(Protocol):
    """A model with what is trained on it."""

    @property
    def model(self) -> Adapter | Model:
        """Answers as tuned."""

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """What is trained, by name."""

    def save(self, folder: Path, base: str, base_folder: Path) -> None:
        """Write the trained weights into `folder`; `base` is the id of the model below, in `base_folder`."""

    def remove(self) -> Model:
        """The model as it was before."""


@dataclass(frozen=True, slots=True)
class TunedAdapter:
    """LoRA in one of its forms, by peft."""

    model: Adapter

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """See Tuned."""
        return trainable(self.model)

    def save(self, folder: Path, base: str, base_folder: Path) -> None:
        """See Tuned."""
        save_adapter(self.model, folder, base)

    def remove(self) -> Model:
        """See Tuned."""
        return remove_adapter(self.model)


@dataclass(frozen=True, slots=True)
class TunedWeights:
    """All weights; `before` is a copy of what they were."""

    model: Model
    before: dict[str, Tensor]

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """See Tuned."""
        return unfreeze(self.model)

    def save(self, folder: Path, base: str, base_folder: Path) -> None:
        """See Tuned."""
        save_weights(self.model, folder, base_folder)

    def remove(self) -> Model:
        """See Tuned."""
        put_back(self.model, self.before)
        self.model.requires_grad_(False)
        return self.model


def tune(model: Model, recipe: Recipe) -> Tuned:
    """`model` ready to be trained by `recipe`: it answers as before (or as `recipe.start`) until a step is taken.

    Raises InputError when the start does not fit the model or the method.
    """
    if recipe.method == FULL_METHOD:
        tuned = TunedWeights(model, snapshot(model))
        if recipe.start is not None:
            _check_start(recipe.start, adapter=False)
            load_weights(model, recipe.start)
        return tuned
    if recipe.start is None:
        return TunedAdapter(
            add_lora(model, rank=recipe.rank, alpha=recipe.alpha, seed=recipe.seed, method=recipe.method)
        )
    _check_start(recipe.start, adapter=True)
    loaded = load_adapter(model, recipe.start, to_train=True)
    rank = loaded.peft_config["default"].r
    if rank != recipe.rank:
        remove_adapter(loaded)
        raise InputError(
            f"the adapter to continue from has rank {rank}, training.rank is {recipe.rank}",
            where=str(recipe.start),
            cure=f"leave training.rank out, or set it to {rank}",
        )
    return TunedAdapter(loaded)


def saved(model: Model, folder: Path) -> Tuned:
    """`model` as it was tuned and saved in `folder`, to answer with."""
    if (folder / _ADAPTER_FILE).is_file():
        return TunedAdapter(load_adapter(model, folder))
    tuned = TunedWeights(model, snapshot(model))
    load_weights(model, folder)
    return tuned


def _check_start(folder: Path, *, adapter: bool) -> None:
    if (folder / _ADAPTER_FILE).is_file() != adapter:
        found, wanted = ("all weights", "an adapter") if adapter else ("an adapter", "all weights")
        raise InputError(
            f"the run to continue from trained {found}, this one trains {wanted}",
            where=str(folder),
            cure="set training.method to the same method",
        )
