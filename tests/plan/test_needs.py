"""What a training keeps is what the formulas say, counted on real passes; advice refuses what cannot fit."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from tiny import VOCABULARY, random_ids, random_row
from tuneworth.models.architecture import Architecture
from tuneworth.models.attention import ATTENTION
from tuneworth.models.catalogue import catalogue, entry_of
from tuneworth.models.recompute import recomputed
from tuneworth.models.tuning import Recipe, tune
from tuneworth.plan import training_plan
from tuneworth.plan.advice import Job, Lengths, Means, find_fit, stage_seconds, too_long, what_would_fit
from tuneworth.plan.needs import (
    Batch,
    Method,
    activation_bytes_a_token,
    cache_bytes,
    kept_bytes,
    largest_batch,
    request_memory,
    training_memory,
    training_operations,
)
from tuneworth.task import Training
from tuneworth.training import answer_loss, micro_batches, pack

WIDE = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 6, "num_attention_heads": 4,
        "vocab_size": VOCABULARY, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
        "max_position_embeddings": 4096}  # fmt: skip
SMOL = entry_of("smollm2-135m-instruct")
assert SMOL is not None
MODEL = SMOL.architecture


def model_of(family: str) -> tuple[Any, Architecture]:
    config = AutoConfig.for_model(family, **WIDE, num_key_value_heads=2, head_dim=16)
    config._attn_implementation = ATTENTION
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation=ATTENTION)
    return model.requires_grad_(False).eval(), Architecture.of_config(config.to_dict(), family)


def really_kept(model: Any, rows: int, length: int, shared: int, recompute: bool) -> int:
    """Bytes of all tensors that a pass saves for its backward pass, each once, the weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, int] = {}
    alive = []

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(storage)
        return tensor

    start = random_ids(shared, 9)
    packed = pack([random_row(str(i), length - 2, 3, i, start) for i in range(rows)])
    with torch.autograd.graph.saved_tensors_hooks(save, lambda t: t), recomputed(model) if recompute else nullcontext():
        answer_loss(model, packed)
    return sum(found.values())


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma3_text", "olmo2", "mistral"])
@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize(("rows", "length", "shared"), [(8, 32, 0), (2, 300, 0), (6, 24, 200)])
def test_what_a_pass_keeps_is_what_the_formula_counts(
    family: str, method: str, rows: int, length: int, shared: int
) -> None:
    model, facts = model_of(family)
    tuned = tune(model, Recipe(method, 4, 8, 0))
    assert tuned.parameters
    found = really_kept(tuned.model, rows, length, shared, False)
    batch = Batch(rows, length, 3 * rows, shared)
    assert kept_bytes(facts, Method(method, 4), batch, "bf16") == pytest.approx(found, rel=0.08)


def test_recomputed_blocks_keep_their_inputs_alone() -> None:
    model, facts = model_of("llama")
    tuned = tune(model, Recipe("lora", 4, 8, 0))
    batch = Batch(8, 32, 24)
    whole, again = (kept_bytes(facts, Method("lora", 4, on), batch, "bf16") for on in (False, True))
    inputs = (facts.layers + 2) * facts.width * 2 * batch.tokens  # of the blocks, and around the last norm
    assert really_kept(tuned.model, 8, 32, 0, True) == pytest.approx(inputs, rel=0.1)
    assert again == pytest.approx(inputs, rel=0.01)
    assert again < whole / 4


@given(
    st.lists(st.integers(2, 600), min_size=1, max_size=40),
    st.integers(1, 32),
    st.sampled_from([600, 1024, 4096]),
)
def test_no_micro_batch_of_the_training_is_larger_than_the_one_that_is_planned_with(
    lengths: list[int], batch_size: int, most: int
) -> None:
    planned = largest_batch(lengths, [1] * len(lengths), batch_size, most)
    rows = [random_row(str(i), length - 1, 1, i) for i, length in enumerate(lengths)]
    for start in range(0, len(rows), batch_size):
        for part in micro_batches(rows[start : start + batch_size], most):
            slots = len(part) * max(len(row.ids) for row in part)
            assert slots <= max(most, planned.length)
            assert max(len(row.ids) for row in part) <= planned.length


def test_needs_grow_with_what_is_asked_and_the_parts_add_up() -> None:
    small, large = Batch(4, 64, 32), Batch(8, 128, 64)
    lora, full = Method("lora"), Method("full")
    assert training_memory(MODEL, lora, large, "bf16").peak > training_memory(MODEL, lora, small, "bf16").peak
    assert training_memory(MODEL, full, small, "bf16").peak > training_memory(MODEL, lora, small, "bf16").peak
    assert training_memory(MODEL, lora, small, "fp32").peak > training_memory(MODEL, lora, small, "bf16").peak
    memory = training_memory(MODEL, full, small, "bf16")
    assert memory.peak == sum(memory.parts.values())
    assert memory.parts["optimiser"] == 16 * MODEL.parameters
    assert cache_bytes(MODEL, "bf16") == 2 * 2 * 3 * 64 * 30
    assert request_memory(MODEL, 2000, "bf16").peak > request_memory(MODEL, 100, "bf16").peak
    assert training_operations(MODEL, full, small) > training_operations(MODEL, lora, small) > 0


def test_a_training_pass_needs_more_memory_in_float32_and_with_more_layers() -> None:
    half, whole = (activation_bytes_a_token(MODEL, Method("lora"), 64, precision) for precision in ("bf16", "fp32"))
    assert whole == pytest.approx(2 * half, rel=0.01)
    deeper = replace(MODEL, layers=3 * MODEL.layers)
    assert 2 * half < activation_bytes_a_token(deeper, Method("lora"), 64, "bf16") < 3 * half


def job(longest: int = 120, rows: int = 1000) -> Job:
    lengths = Lengths((40,) * 50 + (longest,) * 32, (6,) * 82, 10)
    return Job(rows, 100, 400, {"short": lengths}, True)


def means(free: float) -> Means:
    return Means(int(free), 4e11, 2e10, "bf16", "cpu", 0.1)


def test_the_first_way_that_fits_is_taken_and_each_needs_less() -> None:
    settings = training_plan(Training(), train_rows=1000, width=MODEL.width)
    ways = [find_fit(job(1000), MODEL, settings, means(free)) for free in (3e10, 2.6e9, 1.75e9, 1e9)]
    assert [fit.fits for fit in ways] == [True, True, True, False]
    assert [fit.batch.rows for fit in ways] == [4, 1, 1, 1]
    assert [fit.method.recompute for fit in ways] == [False, False, True, True]
    peaks = [fit.memory.peak for fit in ways]
    assert peaks[0] > peaks[1] > peaks[2] == peaks[3]


def test_what_would_fit_is_named_and_fits() -> None:
    large = entry_of("qwen3-1.7b")
    assert large is not None
    settings = training_plan(Training(method="full"), train_rows=1000, width=2048)
    found = what_would_fit(job(), settings, large.architecture, means(8e9), catalogue())
    assert found[0].startswith("training.method=lora")
    named = found[1].removeprefix("a smaller model: ").split(" (")[0]
    entry = entry_of(named)
    assert entry is not None
    assert find_fit(job(), entry.architecture, settings, means(8e9)).fits
    assert what_would_fit(job(), settings, large.architecture, means(1e8), catalogue()) == []


def test_more_rows_and_slower_machines_take_longer_and_long_rows_are_counted() -> None:
    settings = training_plan(Training(), train_rows=1000, width=MODEL.width)

    def seconds(rows: int, flops: float) -> float:
        some = replace(means(1e11), flops=flops)
        fit = find_fit(job(rows=rows), MODEL, settings, some)
        return stage_seconds(job(rows=rows), MODEL, settings, some, fit)["train, short prompt"]

    assert seconds(2000, 4e11) > seconds(1000, 4e11) * 1.5
    assert seconds(1000, 2e11) > seconds(1000, 4e11) * 1.5
    assert too_long(job(9000), MODEL) == {"short": 32}
    assert too_long(job(), MODEL) == {}
