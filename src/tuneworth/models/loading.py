"""A model folder becomes a causal language model in memory, ready for packed forward passes."""

from __future__ import annotations

import ctypes

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from tuneworth.errors import InputError
from tuneworth.models.attention import ATTENTION
from tuneworth.models.sources import ModelFolder

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def load_model(folder: ModelFolder, *, dtype: str, device: str) -> PreTrainedModel:
    """The pre-trained weights in `dtype` on `device`, in evaluation mode, with nothing to train.

    Strict: a missing or unexpected tensor is an error, remote code is never run.
    Raises InputError for an unknown architecture or weights that do not fit the configuration.
    """
    transformers_logging.disable_progress_bar()
    _keep_freed_memory()
    try:
        config = AutoConfig.from_pretrained(folder.path, trust_remote_code=False, local_files_only=True)
        model, info = AutoModelForCausalLM.from_pretrained(
            folder.path,
            config=config,
            dtype=getattr(torch, dtype),
            attn_implementation=ATTENTION,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported below instead of a RuntimeError
            output_loading_info=True,
        )
    except (ValueError, KeyError, OSError, SafetensorError) as error:
        raise InputError(f"the model cannot be loaded: {error}", where=str(folder.path)) from None
    wrong = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
    if wrong:
        raise InputError(
            f"the weights do not fit the configuration ({len(wrong)} tensors, first: {sorted(map(str, wrong))[0]})",
            where=str(folder.path),
        )
    model.requires_grad_(False)
    model.generation_config = None
    return model.eval().to(device)


def _keep_freed_memory() -> None:
    """Have glibc keep freed blocks for the next pass instead of giving them back and faulting them in again.

    Measured: a step that needs memory anew takes up to three times as long as the same step in memory it has.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
