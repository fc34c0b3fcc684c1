"""Gradient checkpointing (Chen et al. 2016, arXiv:1604.06174), put on a model from outside, and when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

_FREE_SHARE = 0.5  # of the free memory that one micro-batch may take: the rest is for what is not counted here
_MASTER_BYTES = 20  # of each trained parameter: master, gradient, two moments, the best so far, in float32


@contextmanager
def recomputed(model: torch.nn.Module) -> Iterator[None]:
    """Inside the block every decoder block keeps its input alone and is computed again in the backward pass.

    Loss and gradients stay the same (LAW 43); a step takes about a third longer.
    """
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    before = [vars(block).get("forward") for block in blocks]
    for block in blocks:
        block.forward = _recomputing(block.forward)
    try:
        yield
    finally:
        for block, forward in zip(blocks, before, strict=True):
            del block.forward
            if forward is not None:
                block.forward = forward


def _recomputing(plain: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return plain(*args, **kwargs)
        # Nothing random is inside (LAW 22), so the state of the generators need not be kept.
        return checkpoint(plain, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return forward


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Most tokens of a micro-batch, and whether blocks must be computed again; `why` is for people.

    `peak_bytes` is what the process is predicted to need at most (plan.needs).
    """

    micro_batch_tokens: int
    recompute: bool
    why: str
    peak_bytes: int = 0


def memory_plan(free_bytes: int, bytes_a_token: int, longest_tokens: int, wanted_tokens: int) -> MemoryPlan:
    """Micro-batches as large as wanted, or as fit; blocks computed again only when not even the longest row fits."""
    room = int(_FREE_SHARE * free_bytes / bytes_a_token)
    told = f"{bytes_a_token * wanted_tokens / 1e9:.1f} GB for {wanted_tokens:,} tokens, {free_bytes / 1e9:.1f} GB free"
    if room >= max(longest_tokens, wanted_tokens):
        return MemoryPlan(wanted_tokens, False, f"enough memory: {told}")
    if room >= longest_tokens:
        return MemoryPlan(room, False, f"as many tokens as fit at once: {told}")
    return MemoryPlan(longest_tokens, True, f"the longest row ({longest_tokens:,} tokens) alone is too much: {told}")


def free_bytes(device: str, trained_parameters: int) -> int:
    """Memory that is free now, less what the optimiser will take."""
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available
    return max(0, int(free) - _MASTER_BYTES * trained_parameters)
