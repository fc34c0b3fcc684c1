"""tuneworth's engine as evaluation uses it. Settings: precision."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("GOMP_SPINCOUNT", "50000")  # as the command line sets it

from collections.abc import Sequence

import torch
from measured import Job

from tuneworth.inference import Engine, Request
from tuneworth.inference.choosing import ChoiceTree
from tuneworth.models.kernels import compile_kernels
from tuneworth.models.loading import load_model
from tuneworth.models.machine import compiled_folder
from tuneworth.models.sources import find_model


def main() -> None:
    """Run the job named on the command line."""
    job = Job(sys.argv[1])
    torch.set_num_threads(job.threads)
    model = load_model(find_model(str(job.model)), dtype=job.settings["precision"], device="cpu")
    compile_kernels(True, compiled_folder())
    engine = Engine(model, end_id=job.end_id)

    def answer(prompts: Sequence[list[int]], limits: Sequence[int]) -> list[list[int]]:
        tree = ChoiceTree.of(job.choices, job.end_id) if job.choices else None
        requests = [Request(prompt, limit) for prompt, limit in zip(prompts, limits, strict=True)]
        if job.one_by_one:
            return [list(engine.answer([request], tree=tree)[0].ids) for request in requests]
        return [list(found.ids) for found in engine.answer(requests, tree=tree)]

    job.measure(answer)


main()
