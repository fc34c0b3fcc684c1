"""Peer: a plain PyTorch loop over transformers and peft, as in their guides.

Settings: precision and attention (see hugging_face), micro_batch (rows of a forward pass), rows ("padded" or
"packed"), head ("all": logits of every token; "trained": only where a token is trained), compile.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from hugging_face import autocast, load, packed, padded
from job import Job, Meter, Row, read_job
from torch import Tensor
from torch.nn.functional import cross_entropy


def loss_sum(model: Any, rows: list[Row], job: Job) -> Tensor:
    """The loss of `rows`, summed over their trained tokens."""
    batch = (packed if job.settings["rows"] == "packed" else padded)(rows, job.device)
    target = batch.pop("labels")[:, 1:]
    if job.settings["head"] == "all":
        logits = model(**batch).logits[:, :-1]
        return cross_entropy(logits.flatten(0, 1).float(), target.flatten(), reduction="sum")
    base = model.get_base_model()
    states = base.model(**batch).last_hidden_state[:, :-1][target != -100]
    return cross_entropy(base.lm_head(states).float(), target[target != -100], reduction="sum")


def train(job: Job, meter: Meter) -> None:
    """Accumulate micro-batches to a step; divide by the trained tokens of the whole step."""
    model = load(job).train()
    if job.settings["compile"]:
        model.get_base_model().model.compile(dynamic=True)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=job.learning_rate, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: (job.steps - step) / job.steps)
    micro = job.settings["micro_batch"]
    meter.begin()
    for batch in job.batches:
        trained = sum(sum(row.trained[1:]) for row in batch)
        total = 0.0
        for start in range(0, len(batch), micro):
            with autocast(job):
                loss = loss_sum(model, batch[start : start + micro], job) / trained
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(parameters, job.clip_norm)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        if meter.step(total):
            break
    if job.save:
        model.save_pretrained(str(job.save), save_embedding_layers=False)


if __name__ == "__main__":
    the_job = read_job(Path(sys.argv[1]))
    the_meter = Meter(the_job)
    train(the_job, the_meter)
    the_meter.write()
