"""Peer: LitGPT's LoRA model and loss under Lightning Fabric, in the loop of its `litgpt finetune_lora`.

Its own `fit` has another schedule, no clipping, and averages micro-batches whatever they hold; here the loss is
divided by the trained tokens of the step, as everybody's is. LitGPT keeps q, k and v in one layer, whose adapter is
that of the three side by side. Settings: precision (Fabric's names), micro_batch.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import lightning
import torch
from job import Job, Meter, Row, read_job
from litgpt.lora import GPT, Config, mark_only_lora_as_trainable
from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama
from litgpt.utils import chunked_cross_entropy
from safetensors.torch import load_file, save_file
from torch import Tensor

CONFIG = "SmolLM2-135M-Instruct"
_PEFT = "base_model.model.model.layers"
_NAMES = {
    "attn.proj": "self_attn.o_proj", "mlp.fc_1": "mlp.gate_proj", "mlp.fc_2": "mlp.up_proj", "mlp.proj": "mlp.down_proj"
}  # fmt: skip
_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def places(model: GPT) -> Iterator[tuple[str, Tensor]]:
    """(name in peft's layout, the part of LitGPT's parameter that it is)."""
    for number, block in enumerate(model.transformer.h):
        for theirs, name in _NAMES.items():
            layer = block.get_submodule(theirs)
            yield f"{_PEFT}.{number}.{name}.lora_A.weight", layer.lora_A
            yield f"{_PEFT}.{number}.{name}.lora_B.weight", layer.lora_B
        qkv = block.attn.qkv
        a, b = qkv.lora_A.chunk(3), qkv.lora_B.split(qkv.qkv_shapes)
        for name, part_a, part_b in zip(_QKV, a, b, strict=True):
            yield f"{_PEFT}.{number}.{name}.lora_A.weight", part_a
            yield f"{_PEFT}.{number}.{name}.lora_B.weight", part_b


def load(job: Job, fabric: lightning.Fabric) -> GPT:
    """The model with the adapter that everybody starts from."""
    layers = dict.fromkeys(("query", "key", "value", "projection", "mlp"), True)
    config = Config.from_name(
        CONFIG, lora_r=16, lora_alpha=32, lora_dropout=0.0, **{f"lora_{name}": on for name, on in layers.items()}
    )
    with fabric.init_module():
        model = GPT(config)
    weights: dict[str, Tensor] = {}
    copy_weights_hf_llama(config, {}, weights, load_file(job.model / "model.safetensors"))
    found = model.load_state_dict(weights, strict=False)
    if found.unexpected_keys or any("lora" not in key for key in found.missing_keys):
        raise SystemExit("LitGPT's model has other weights than the model's folder")
    saved = load_file(job.adapter / "adapter_model.safetensors")
    with torch.no_grad():
        for name, part in places(model):
            part.copy_(saved.pop(name))
    if saved:
        raise SystemExit(f"LitGPT has no place for {sorted(saved)[:3]}")
    mark_only_lora_as_trainable(model)
    return model


def batch_of(rows: list[Row], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and labels padded right [B, L]; LitGPT's attention is causal, so what stands before never sees padding."""
    longest = max(len(row.ids) for row in rows)
    ids = [row.ids + [0] * (longest - len(row.ids)) for row in rows]
    labels = [row.labels + [-100] * (longest - len(row.ids)) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(labels, device=device)


def train(job: Job, meter: Meter) -> None:
    """LitGPT's loop: forward with a chunked head, chunked loss, backward through Fabric."""
    fabric = lightning.Fabric(accelerator=job.device, devices=1, precision=job.settings["precision"])
    fabric.seed_everything(job.seed, verbose=False)
    bare = load(job, fabric)
    bare.max_seq_length = max(len(row.ids) for row in job.rows)
    model = fabric.setup_module(bare)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = fabric.setup_optimizers(
        torch.optim.AdamW(parameters, lr=job.learning_rate, weight_decay=0.0, fused=True)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: (job.steps - step) / job.steps)
    micro = job.settings["micro_batch"]
    model.train()
    meter.begin()
    for rows in job.batches:
        trained = sum(sum(row.trained[1:]) for row in rows)
        total = 0.0
        for start in range(0, len(rows), micro):
            ids, labels = batch_of(rows[start : start + micro], fabric.device)
            logits = model(ids, lm_head_chunk_size=128)
            logits[-1] = logits[-1][..., :-1, :]
            mean = chunked_cross_entropy(logits, labels[..., 1:])
            loss = mean * ((labels[..., 1:] != -100).sum() / trained)
            fabric.backward(loss)
            total += loss.item()
        fabric.clip_gradients(model, optimiser, max_norm=job.clip_norm, error_if_nonfinite=False)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        if meter.step(total):
            break
    if job.save:
        job.save.mkdir(parents=True, exist_ok=True)
        tensors = {name: part.detach().float().contiguous().clone() for name, part in places(bare)}
        save_file(tensors, job.save / "adapter_model.safetensors")
        config = (job.adapter / "adapter_config.json").read_text("utf-8")
        (job.save / "adapter_config.json").write_text(config, "utf-8")


if __name__ == "__main__":
    logging.getLogger("lightning").setLevel(logging.ERROR)
    the_job = read_job(Path(sys.argv[1]))
    the_meter = Meter(the_job)
    train(the_job, the_meter)
    the_meter.write()
