"""The fused LoRA layer is peft's, to the last digits of float64, and is only put where it fits."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear as LoraLinear

from tiny import random_ids, random_row, tiny_model
from tuneworth.models import fused
from tuneworth.models.adapters import add_lora, trainable
from tuneworth.training import answer_loss, pack


def peft_model(**changes: object) -> torch.nn.Module:
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **changes)  # type: ignore[arg-type]
    torch.manual_seed(3)
    return get_peft_model(tiny_model(), config, autocast_adapter_dtype=False)


def gradients(model: torch.nn.Module) -> tuple[float, dict[str, torch.Tensor]]:
    shared = random_ids(5, seed=1)
    rows = [random_row(str(n), 4 + n, 3, seed=n, shared=shared) for n in range(4)]
    loss = answer_loss(model, pack(rows))
    loss.backward()
    return loss.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers for a renamed attribute
@pytest.mark.parametrize("block", [512, 3])
def test_law_3_fused_loss_and_gradients_equal_pefts(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(fused, "_BLOCK_ROWS", block)
    ours = add_lora(tiny_model(), rank=4, alpha=8, seed=3)
    theirs = peft_model()
    for name, parameter in trainable(ours).items():  # B starts at zero; nothing would be shown with it
        with torch.no_grad():
            torch.nn.init.normal_(parameter, std=0.2)
            dict(theirs.named_parameters())[name].copy_(parameter)
    (loss, grads), (their_loss, their_grads) = gradients(ours), gradients(theirs)
    assert loss == pytest.approx(their_loss, rel=1e-12)
    assert grads.keys() == their_grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, their_grads[name], rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("changes", [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}])
def test_layers_with_anything_else_on_them_keep_pefts_forward(changes: dict[str, object]) -> None:
    model = peft_model(**changes)
    fused.fuse_lora(model)
    layers = [module for module in model.modules() if isinstance(module, LoraLinear)]
    assert layers
    assert not any("forward" in vars(module) for module in layers)


@pytest.mark.parametrize("added", [None, "row", "all"])
def test_a_product_that_all_cores_share_is_the_product(monkeypatch: pytest.MonkeyPatch, added: str | None) -> None:
    monkeypatch.setattr(fused, "_has_matrix_units", lambda: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(fused, "_BLOCK_ROWS", 5)
    monkeypatch.setattr(fused, "_LONG_BLOCK_ROWS", 3)
    torch.manual_seed(0)
    cuts: list[int] = []
    slices = fused._slices
    monkeypatch.setattr(fused, "_slices", lambda rows, most: cuts.append(most) or slices(rows, most))
    for inputs, outputs, rows in ((8, 6, 17), (1601, 6, 17), (8, 1025, 17), (8, 6, 4)):
        # Small whole numbers: sums are exact in bfloat16, in whatever order.
        x = torch.randint(-1, 2, (rows, inputs)).bfloat16()
        weight = (torch.randint(-1, 2, (inputs, outputs)) * (torch.rand(inputs, 1) < 8 / inputs)).bfloat16()
        more = {"row": torch.randint(-3, 4, (outputs,)), "all": torch.randint(-3, 4, (rows, outputs))}.get(added or "")
        wanted = x.double() @ weight.double() + (0 if more is None else more)
        found = fused.product(x, weight, None if more is None else more.bfloat16())
        assert torch.equal(found.double(), wanted)
    assert cuts == [5, 3]  # the wide one and the short one are left whole
    many = x.repeat(5, 1)
    fused.product(many.float(), weight.float())
    monkeypatch.setattr(fused, "_has_matrix_units", lambda: False)
    fused.product(many, weight)
    assert cuts == [5, 3]
