"""The limit: how fast this machine multiplies the model's own linear layers, with nothing in between.

FLOPs are those of the frozen weights of every linear layer but the head, forward (x W') and gradient of the input
(g W): 2 x 2 x inputs x outputs a token. The head, the adapters, attention and everything elementwise are not
counted, so the share of the limit that a training reaches is a lower bound of how busy the machine is.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch

TOKENS = 2048
Shapes = Mapping[tuple[int, int], int]


def linear_shapes(model: torch.nn.Module) -> Shapes:
    """{(outputs, inputs): how many} of every linear layer but the output head."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    return Counter(
        (module.out_features, module.in_features)
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    )


def flops_per_token(shapes: Shapes) -> int:
    """Forward and input gradient of one token through all linear layers."""
    return sum(4 * outputs * inputs * count for (outputs, inputs), count in shapes.items())


def share(rows_per_second: float, tokens_a_row: float, flops: int, limit: float) -> float:
    """The linear layers' FLOPs per second at `rows_per_second`, as a share of `limit` (FLOPs per second)."""
    return rows_per_second * tokens_a_row * flops / limit


def matrix_rate(shapes: Shapes, dtype: torch.dtype, device: str, repeats: int = 12) -> float:
    """FLOPs per second over all `shapes` at 2,048 tokens: the fastest of `repeats` for each product."""
    seconds = 0.0
    for (outputs, inputs), count in shapes.items():
        weight = torch.randn(outputs, inputs, device=device).to(dtype)
        x = torch.randn(TOKENS, inputs, device=device).to(dtype)
        gradient = torch.randn(TOKENS, outputs, device=device).to(dtype)
        for left, right in ((x, weight.t()), (gradient, weight)):
            seconds += count * min(_seconds(left, right, device) for _ in range(repeats))
    return flops_per_token(shapes) * TOKENS / seconds


def _seconds(left: torch.Tensor, right: torch.Tensor, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    left @ right
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main(folder: Path, device: str, threads: int, result: Path) -> None:
    """Measure and write {"flops_per_token", "shapes", "bfloat16", "float32", "flops_per_second"}."""
    from transformers import AutoConfig, AutoModelForCausalLM  # the pure parts need no transformers

    torch.set_num_threads(threads)
    with torch.device("meta"):
        shapes = linear_shapes(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)))
    rates = {name: matrix_rate(shapes, getattr(torch, name), device) for name in ("bfloat16", "float32")}
    found = {
        "flops_per_token": flops_per_token(shapes),
        "shapes": [[*shape, count] for shape, count in sorted(shapes.items())],
        **rates,
        "flops_per_second": max(rates.values()),
    }
    result.write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
