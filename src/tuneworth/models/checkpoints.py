"""Checkpoints of a training as files: tensors in safetensors, plain values in JSON. No pickle anywhere."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tuneworth.errors import InputError
from tuneworth.store.atomic import read_json, write_json


def save_tensors(folder: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Write `tensors.safetensors` and `values.json` into an existing folder."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, folder / _TENSORS)
    write_json(folder / _VALUES, {k: None if v == -math.inf else v for k, v in values.items()})


def load_tensors(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The inverse of `save_tensors`. Raises InputError when a file is damaged."""
    try:
        tensors = load_file(folder / _TENSORS)
    except (SafetensorError, OSError) as error:
        raise InputError(f"the checkpoint is damaged: {error}", where=str(folder), cure="delete it") from None
    return tensors, read_json(folder / _VALUES)


_TENSORS, _VALUES = "tensors.safetensors", "values.json"
