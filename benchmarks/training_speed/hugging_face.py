"""What the peers over transformers and peft share: loading with a precision and an attention, and padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from job import Job, Row
from peft import PeftModel
from transformers import AutoModelForCausalLM
from transformers.utils import logging

PRECISIONS = ("fp32", "bf16-autocast", "bf16", "bf16+autocast")
"""float32; float32 weights under autocast; bfloat16 weights with float32 adapters; the same under autocast."""


def load(job: Job) -> PeftModel:
    """The model with the adapter that everybody starts from, in the job's precision and attention."""
    logging.disable_progress_bar()
    precision = job.settings["precision"]
    model = AutoModelForCausalLM.from_pretrained(
        job.model,
        dtype=torch.bfloat16 if precision in ("bf16", "bf16+autocast") else torch.float32,
        attn_implementation=job.settings["attention"],
    ).to(job.device)
    model.config.use_cache = False
    # autocast_adapter_dtype (peft's default) keeps the adapter in float32 whatever the weights are.
    return PeftModel.from_pretrained(model, str(job.adapter), is_trainable=True)


def autocast(job: Job) -> AbstractContextManager[Any]:
    """bfloat16 autocast where the precision asks for it."""
    if job.settings["precision"].endswith("autocast"):
        return torch.autocast(job.device, torch.bfloat16)
    return nullcontext()


def padded(rows: Sequence[Row], device: str = "cpu") -> dict[str, torch.Tensor]:
    """Rows padded right to the longest: input_ids, attention_mask, labels, each [B, L]."""
    longest = max(len(row.ids) for row in rows)

    def fill(values: list[list[int]], padding: int) -> torch.Tensor:
        return torch.tensor([one + [padding] * (longest - len(one)) for one in values], device=device)

    return {
        "input_ids": fill([row.ids for row in rows], 0),
        "attention_mask": fill([[1] * len(row.ids) for row in rows], 0),
        "labels": fill([row.labels for row in rows], -100),
    }


def packed(rows: Sequence[Row], device: str = "cpu") -> dict[str, torch.Tensor]:
    """Rows one after the other as one sequence [1, T]; transformers tells them apart by positions that start anew."""
    return {
        "input_ids": torch.tensor([[token for row in rows for token in row.ids]], device=device),
        "position_ids": torch.tensor([[i for row in rows for i in range(len(row.ids))]], device=device),
        "labels": torch.tensor([[label for row in rows for label in row.labels]], device=device),
    }
