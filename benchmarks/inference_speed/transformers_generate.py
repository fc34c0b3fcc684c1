"""transformers' `generate`, padded left, in batches of prompts of like length.

Settings: precision, attention, batch (prompts at once), way (`generate`, or `continuous` for its continuous batching).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

import torch
from measured import Job
from transformers import AutoModelForCausalLM, GenerationConfig

warnings.simplefilter("ignore")


def main() -> None:
    """Run the job named on the command line."""
    job = Job(sys.argv[1])
    torch.set_num_threads(job.threads)
    settings = job.settings
    model = AutoModelForCausalLM.from_pretrained(
        job.model, dtype=getattr(torch, settings["precision"]), attn_implementation=settings["attention"]
    ).eval()

    @torch.inference_mode()
    def batch(prompts: Sequence[list[int]], limit: int) -> list[list[int]]:
        longest = max(map(len, prompts))
        ids = torch.tensor([[job.end_id] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        config = GenerationConfig(
            max_new_tokens=limit, do_sample=False, eos_token_id=job.end_id, pad_token_id=job.end_id, use_cache=True
        )
        out = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)[:, longest:].tolist()
        return [row[: row.index(job.end_id)] if job.end_id in row else row for row in out]

    def answer(prompts: Sequence[list[int]], limits: Sequence[int]) -> list[list[int]]:
        size = 1 if job.one_by_one else settings["batch"]
        order = sorted(range(len(prompts)), key=lambda i: (limits[i], len(prompts[i])))
        found: dict[int, list[int]] = {}
        for start in range(0, len(order), size):
            some = order[start : start + size]
            # Prompts of a batch stop together; each keeps what it was to write.
            written = batch([prompts[i] for i in some], max(limits[i] for i in some))
            found |= {i: row[: limits[i]] for i, row in zip(some, written, strict=True)}
        return [found[i] for i in range(len(prompts))]

    job.measure(answer)


main()
