"""All weights of a model: made trainable, saved in the layout of transformers, put back."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from tuneworth.errors import InputError

_GENERATION = "generation_config.json"


def unfreeze(model: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """Every parameter by name, made trainable; tied ones once.

    Raises InputError for quantised weights, which have no gradient.
    """
    if getattr(model, "hf_quantizer", None) is not None:
        raise InputError(
            "quantised weights cannot be trained in full", where="training.method", cure="use lora, or a model in bf16"
        )
    return {name: parameter.requires_grad_(True) for name, parameter in model.named_parameters()}


def save_weights(model: PreTrainedModel, folder: Path, base: Path) -> None:
    """Write `model.safetensors` (or shards) and `config.json`; the rest of the model `base` is copied beside them.

    Tensors that the model really shares are written once, and the configuration says whether the output head shares
    the embedding's (LAWS 38, 46).
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    model.config.tie_word_embeddings = head is not None and head.weight is embedding.weight
    model.generation_config = GenerationConfig()  # loading took it away; saving asks for one
    try:
        model.save_pretrained(folder)
    finally:
        model.generation_config = None
    (folder / _GENERATION).unlink(missing_ok=True)
    if (base / _GENERATION).is_file():
        shutil.copyfile(base / _GENERATION, folder / _GENERATION)


def load_weights(model: PreTrainedModel, folder: Path) -> None:
    """Put the weights saved in `folder` into `model`. Strict (LAW 42): every tensor must be there and fit."""
    files = sorted(folder.glob("*.safetensors"))
    try:
        saved: dict[str, Tensor] = {}
        for file in files:
            saved |= load_file(file)
    except (SafetensorError, OSError) as error:
        raise InputError(f"the weights are damaged: {error}", where=str(folder)) from None
    parameters = dict(model.named_parameters())
    wrong = sorted(saved.keys() ^ parameters.keys())
    wrong += [name for name in saved.keys() & parameters.keys() if saved[name].shape != parameters[name].shape]
    if wrong:
        raise InputError(f"the weights do not fit the model ({len(wrong)}, first: {wrong[0]})", where=str(folder))
    put_back(model, saved)


def snapshot(model: PreTrainedModel) -> dict[str, Tensor]:
    """A copy of every parameter."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@torch.no_grad()
def put_back(model: PreTrainedModel, weights: dict[str, Tensor]) -> None:
    """Set every parameter to the tensor of its name."""
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])
