"""Peers: TRL's SFTTrainer, and transformers' Trainer below it, on the same token ids and labels.

Settings: trainer ("trl" or "transformers"), precision and attention (see hugging_face), micro_batch (rows of a
forward pass), rows ("padded" or "packed", which TRL calls padding-free), compile.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TRL_EXPERIMENTAL_SILENCE="1")

import torch
import transformers
from datasets import Dataset, disable_progress_bars
from hugging_face import load, padded
from job import Job, Meter, Row, read_job
from transformers import AutoTokenizer, Trainer, TrainerCallback, TrainingArguments


class Watch(TrainerCallback):  # type: ignore[misc]
    """Marks the end of every step and takes its loss from the trainer's own log."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._stop = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self._meter.begin()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **others: Any) -> None:
        if logs and "loss" in logs:
            control.should_training_stop |= self._meter.step(logs["loss"])


def arguments(job: Job, folder: str) -> dict[str, Any]:
    """What both trainers are told: the same optimiser, schedule and order as everybody else."""
    micro = job.settings["micro_batch"]
    return {
        "output_dir": folder,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": job.batch_rows // micro,
        "max_steps": job.steps,
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": job.clip_norm,
        "optim": "adamw_torch_fused",
        "bf16": job.settings["precision"].endswith("autocast"),
        "gradient_checkpointing": False,
        "train_sampling_strategy": "sequential",
        "torch_compile": job.settings["compile"],
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": job.device == "cpu",
        "seed": job.seed,
    }


def trl_trainer(job: Job, model: Any, meter: Meter, folder: str) -> Any:
    """SFTTrainer on rows that are token ids already, with their labels."""
    from trl import SFTConfig, SFTTrainer  # transformers' Trainer alone is not to pay for this import

    rows = Dataset.from_dict({"input_ids": [row.ids for row in job.rows], "labels": [row.labels for row in job.rows]})
    return SFTTrainer(
        model=model,
        args=SFTConfig(
            **arguments(job, folder), max_length=None, packing=False, padding_free=job.settings["rows"] == "packed"
        ),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(job.model),
        callbacks=[Watch(meter)],
    )


def transformers_trainer(job: Job, model: Any, meter: Meter, folder: str) -> Any:
    """Trainer with a collator that pads right."""

    def collate(rows: list[Row]) -> dict[str, torch.Tensor]:
        return padded(rows)

    return Trainer(
        model=model,
        args=TrainingArguments(**arguments(job, folder), remove_unused_columns=False),
        train_dataset=job.rows,
        data_collator=collate,
        callbacks=[Watch(meter)],
    )


def train(job: Job, meter: Meter) -> None:
    """Run the trainer."""
    disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    model = load(job)
    with tempfile.TemporaryDirectory() as folder:
        make = trl_trainer if job.settings["trainer"] == "trl" else transformers_trainer
        trainer = make(job, model, meter, folder)
        trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
        trainer.train()
    if job.save:
        model.save_pretrained(str(job.save), save_embedding_layers=False)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    the_job = read_job(Path(sys.argv[1]))
    the_meter = Meter(the_job)
    train(the_job, the_meter)
    the_meter.write()
