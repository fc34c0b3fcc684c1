"""LAW 43: blocks computed again in the backward pass give the same loss and gradients; and when that is asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from tiny import (
    KINDS,
    all_parameters,
    close,
    hooks,
    plain_greedy,
    plain_twin,
    random_ids,
    random_row,
    settings,
    tiny_model,
)
from tuneworth.inference import Engine
from tuneworth.models.adapters import add_lora, trainable
from tuneworth.models.recompute import memory_plan, recomputed
from tuneworth.training import answer_loss, pack, train

ROWS = [random_row(f"{i}", 3 + i, 2 + i, i, (290, 291)) for i in range(4)]


def gradients(model: Any, parameters: dict[str, torch.nn.Parameter]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    loss = answer_loss(model, pack(ROWS))
    loss.backward()
    found = {}
    for name, parameter in parameters.items():
        assert parameter.grad is not None, name
        found[name], parameter.grad = parameter.grad, None
    return loss.detach(), found


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_law_43_recomputed_gradients_equal_kept_ones(kind: str, method: str) -> None:
    model: Any = tiny_model(kind)
    if method == "lora":
        model = add_lora(model, rank=2, alpha=4, seed=0)
        for name, parameter in trainable(model).items():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.2)
    parameters = trainable(model) if method == "lora" else all_parameters(model)
    loss, wanted = gradients(model, parameters)
    with recomputed(model):
        again, found = gradients(model, parameters)
    assert close(again, loss)
    assert all(close(found[name], wanted[name]) for name in wanted)


def test_law_43_each_block_runs_twice_inside_and_once_again_afterwards() -> None:
    model = tiny_model()
    parameters = all_parameters(model)
    calls: list[int] = []
    for block in model.modules():
        if isinstance(block, GradientCheckpointingLayer):
            block.mlp.register_forward_pre_hook(lambda *args: calls.append(1))
    gradients(model, parameters)
    assert len(calls) == 2
    with recomputed(model):
        gradients(model, parameters)
    assert len(calls) == 2 + 4
    gradients(model, parameters)
    assert len(calls) == 2 + 4 + 2


def test_law_43_every_adapter_tensor_moves_when_recomputed_and_answers_between_stay_the_same() -> None:
    model = add_lora(tiny_model(), rank=2, alpha=4, seed=0)
    asked = random_ids(6, seed=3)
    written: list[tuple[int, ...]] = []

    def evaluate() -> dict[str, float]:
        written.append(Engine(model, end_id=299).generate([asked], max_new_tokens=5)[0].ids)
        return {"validation_loss": 0.0, "validation_score": 0.0}

    before = {name: p.detach().clone() for name, p in trainable(model).items()}
    with recomputed(model):
        chosen = settings(steps=3, learning_rate=1e-9)
        train(model, trainable(model), ROWS, chosen, answer_loss, hooks(evaluate=evaluate))
    assert [name for name, p in trainable(model).items() if torch.equal(p, before[name])] == []
    assert list(written[0]) == plain_greedy(plain_twin(tiny_model()), asked, 5, 299)


def test_blocks_are_recomputed_only_when_not_even_the_longest_row_fits() -> None:
    def plan(free: float, longest: int) -> tuple[int, bool]:
        found = memory_plan(int(free), 1_000_000, longest, 4096)
        assert found.why
        return found.micro_batch_tokens, found.recompute

    assert plan(20e9, 100) == (4096, False)
    assert plan(2e9, 100) == (1000, False)
    assert plan(20e9, 6000) == (4096, False)
    assert plan(2e9, 1001) == (1001, True)
