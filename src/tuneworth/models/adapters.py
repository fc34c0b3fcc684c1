"""LoRA adapters through peft: put on, saved and loaded in peft's own format."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import PreTrainedModel

from tuneworth.errors import InputError
from tuneworth.models.blocks import fuse_blocks, release_blocks
from tuneworth.models.fused import fuse_lora

Model: TypeAlias = PreTrainedModel
Adapter: TypeAlias = PeftModel
LORA_B = "lora_B"
"""Part of the names of the parameters that begin at zero."""


def add_lora(model: PreTrainedModel, *, rank: int, alpha: int, seed: int, method: str = "lora") -> PeftModel:
    """LoRA on every linear layer but the output head (Hu et al. 2021, arXiv:2106.09685); B starts at zero.

    `method` is `lora`, `rslora` (scaled by alpha / sqrt(rank), Kalajdzievski 2023, arXiv:2312.03732) or `dora`
    (direction and magnitude apart, Liu et al. 2024, arXiv:2402.09353). The adapter has the model's dtype; the training
    loop keeps float32 master copies. Reproducible by `seed`.
    """
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        use_rslora=method == "rslora",
        use_dora=method == "dora",
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft 0.21 asks transformers 5 for a renamed attribute
        torch.manual_seed(seed)
        tuned = get_peft_model(model, config, autocast_adapter_dtype=False)
    fuse_lora(tuned)
    fuse_blocks(tuned)
    return tuned


def remove_adapter(model: PeftModel) -> PreTrainedModel:
    """The model below, as it was before the adapter."""
    release_blocks(model)
    below: PreTrainedModel = model.unload()
    return below


def trainable(model: PeftModel) -> dict[str, torch.nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_adapter(model: PeftModel, folder: Path, base: str) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json`, which plain peft reads; `base` names the model."""
    for config in model.peft_config.values():
        config.base_model_name_or_path = base
    # The embedding is never trained here; without this peft asks a hub whether it was.
    model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's generic model card says nothing about this model


def load_adapter(model: PreTrainedModel, folder: Path, *, to_train: bool = False, name: str = "default") -> PeftModel:
    """Put a saved adapter on its base model. Strict (LAW 42): a key that does not fit is an error, never skipped."""
    _check_there(folder)
    with _fitting(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what peft only warns of (missing keys) is refused below
        loaded = PeftModel.from_pretrained(
            model, str(folder), name, autocast_adapter_dtype=False, is_trainable=to_train
        )
    _load(loaded, folder, name, to_train=to_train)
    fuse_lora(loaded)
    fuse_blocks(loaded)
    return loaded.eval()


def add_adapter(model: PeftModel, folder: Path, name: str) -> None:
    """Load one more adapter beside those on `model`, to be chosen by name for each request; the active one stays.

    Loaded again under the same name it takes the old one's place. Strict, as `load_adapter`.
    """
    _check_there(folder)
    if name in model.peft_config and name not in model.active_adapters:
        model.delete_adapter(name)
    _load(model, folder, name, to_train=False)
    model.eval()


def _load(model: PeftModel, folder: Path, name: str, *, to_train: bool) -> None:
    with _fitting(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = model.load_adapter(str(folder), adapter_name=name, autocast_adapter_dtype=False, is_trainable=to_train)
    missing = [key for key in report.missing_keys if "lora_" in key and f".{name}" in key]
    if missing or report.unexpected_keys:
        raise InputError(
            f"the adapter does not fit: {len(missing)} keys missing, {len(report.unexpected_keys)} unexpected",
            where=str(folder),
        )


def _check_there(folder: Path) -> None:
    if not (folder / "adapter_model.safetensors").is_file():
        raise InputError("no adapter_model.safetensors here", where=str(folder), cure="run the training again")


@contextmanager
def _fitting(folder: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, RuntimeError, OSError, SafetensorError) as error:
        raise InputError(f"the adapter does not fit the model: {error}", where=str(folder)) from None
