"""Fused decoder blocks compute what transformers and peft compute, to the last digits of float64."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel

from tiny import close, random_ids, random_row, tiny_model
from tuneworth.inference import Engine
from tuneworth.models import kernels
from tuneworth.models.adapters import add_lora, remove_adapter, trainable
from tuneworth.models.blocks import fuse_blocks, release_blocks
from tuneworth.training import answer_loss, pack

LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


KINDS = ("gqa", "mha", "window", "bias", "head norms", "alternating")


def frozen(kind: str) -> PreTrainedModel:
    return tiny_model(kind).requires_grad_(False)


def tuned(kind: str, layers: tuple[str, ...] = LAYERS, **changes: object) -> torch.nn.Module:
    config = LoraConfig(r=3, lora_alpha=7, target_modules=list(layers), task_type="CAUSAL_LM", **changes)  # type: ignore[arg-type]
    torch.manual_seed(3)
    model = get_peft_model(frozen(kind), config, autocast_adapter_dtype=False)
    for parameter in trainable(model).values():  # B starts at zero; nothing would be shown with it
        with torch.no_grad():
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def outcome(model: torch.nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    rows = [random_row(str(n), 4 + 3 * n, 3, seed=n, shared=random_ids(5, seed=1)) for n in range(4)]
    loss = answer_loss(model, pack(rows))
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def fused_layers(model: torch.nn.Module) -> int:
    return sum("forward" in vars(module) for module in model.modules() if type(module).__name__.endswith("Layer"))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers for a renamed attribute
@pytest.mark.parametrize("kind", KINDS)
def test_law_3_loss_and_gradients_of_fused_blocks_are_those_of_plain_ones(kind: str) -> None:
    plain, fused = tuned(kind), tuned(kind)
    fuse_blocks(fused)
    assert fused_layers(fused) == 2
    (wanted, wanted_gradients), (found, gradients) = outcome(plain), outcome(fused)
    assert close(found, wanted)
    assert gradients.keys() == wanted_gradients.keys()
    for parameter, gradient in gradients.items():
        assert close(gradient, wanted_gradients[parameter]), parameter


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_law_41_any_set_of_layers_may_have_adapters() -> None:
    subsets = [s for size in (1, 2, 6) for s in itertools.combinations(LAYERS, size)]
    for layers in subsets:
        plain, fused = tuned("bias", layers), tuned("bias", layers)
        fuse_blocks(fused)
        (wanted, wanted_gradients), (found, gradients) = outcome(plain), outcome(fused)
        assert close(found, wanted), layers
        assert all(close(gradients[p], wanted_gradients[p]) for p in wanted_gradients), layers


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "changes", [{"rank_pattern": {"k_proj": 2}, "alpha_pattern": {"up_proj": 1}}, {"use_rslora": True}]
)
def test_each_adapter_keeps_its_own_rank_and_scale(changes: dict[str, object]) -> None:
    plain, fused = tuned("gqa", **changes), tuned("gqa", **changes)
    fuse_blocks(fused)
    assert close(outcome(fused)[0], outcome(plain)[0])


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_changed_adapter_is_seen_at_the_next_pass() -> None:
    model = add_lora(tiny_model(), rank=2, alpha=4, seed=1)
    before = outcome(model)[0]
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(0.3)
    changed = outcome(model)[0]
    assert not close(changed, before, 1e-3)
    release_blocks(model)
    assert close(outcome(model)[0], changed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("changes", [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}])
def test_blocks_with_anything_else_on_them_keep_their_own_forward_pass(changes: dict[str, object]) -> None:
    model = tuned("gqa", **changes)
    fuse_blocks(model)
    assert fused_layers(model) == 0


def test_blocks_of_other_families_and_trained_weights_keep_their_own_forward_pass() -> None:
    other = tiny_model("other").requires_grad_(False)
    trained = tiny_model().requires_grad_(True)
    for model in (other, trained):
        fuse_blocks(model)
        assert fused_layers(model) == 0


def test_law_8_weights_are_lent_and_given_back_bit_for_bit() -> None:
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapted = add_lora(model, rank=2, alpha=4, seed=1)
    for name, tensor in adapted.get_base_model().state_dict().items():
        plain = name.replace(".base_layer", "")
        assert plain not in before or torch.equal(tensor, before[plain])
    back = remove_adapter(adapted)
    assert fused_layers(back) == 0
    for name, tensor in back.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.is_contiguous()


@pytest.mark.parametrize("kind", KINDS)
def test_law_6_fused_blocks_generate_what_plain_ones_do(kind: str) -> None:
    prompts = [random_ids(length, seed=length) for length in (2, 9, 14)]
    plain = Engine(frozen(kind), end_id=4).generate(prompts, max_new_tokens=8)
    model = frozen(kind)
    fuse_blocks(model)
    assert fused_layers(model) == 2
    found = Engine(model, end_id=4).generate(prompts, max_new_tokens=8)
    assert [answer.ids for answer in found] == [answer.ids for answer in plain]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler, at its import
@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_a_compiled_kernel_computes_what_it_says(compiled: None, activation: str) -> None:
    torch.manual_seed(0)
    for tokens in (5, 9):
        gate_up, gradient = torch.randn(tokens, 12), torch.randn(tokens, 6)
        found = torch.zeros(tokens, 14)[:, :12]  # a part of something wider, as in use
        opened = kernels.gate_backward(*found.chunk(2, -1), gradient, *gate_up.chunk(2, -1), activation)
        leaf = gate_up.clone().requires_grad_()
        gate, up = leaf.chunk(2, -1)
        wanted = kernels.activated(gate, activation) * up
        wanted.backward(gradient)
        torch.testing.assert_close(opened, wanted.detach())
        torch.testing.assert_close(found, leaf.grad)
    assert not kernels._Compiling.failed


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_kernel_is_compiled_once_for_all_lengths_and_kinds_of_tensor(compiled: None) -> None:
    weight = torch.nn.Parameter(torch.randn(11))
    before = len(kernels.norm_into._compiled)  # type: ignore[attr-defined]
    for tokens in (7, 11, 7, 30):
        x = torch.randn(tokens, 11, requires_grad=tokens > 7)
        own = weight if tokens < 11 else weight.detach()
        with torch.no_grad():
            found = torch.zeros_like(x)
            kernels.norm_into(found, x, own, 1e-5)
            torch.testing.assert_close(found, torch.nn.functional.rms_norm(x, (11,), own, 1e-5))
    assert len(kernels.norm_into._compiled) == before + 1  # type: ignore[attr-defined]
    assert not kernels._Compiling.failed


def test_compiled_kernels_are_kept_in_the_folder_that_is_named_whatever_was_imported_before(tmp_path: Path) -> None:
    script = """if True:
        import sys
        import torch
        import torch._dynamo.package  # names PyTorch's own place
        from pathlib import Path
        from tuneworth.models import kernels
        assert kernels.compile_kernels(True, Path(sys.argv[1]))
        kernels.gate_into(torch.zeros(5, 6), torch.randn(5, 12), "silu")
    """
    kept = tmp_path / "kept"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-c", script, str(kept)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert any(kept.rglob("*.so"))


@pytest.mark.parametrize(("version", "known"), [("10", False), ("11", True), ("14.2.0", True), ("none", False)])
def test_what_an_old_compiler_knows_is_tried_out(tmp_path: Path, version: str, known: bool) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text(f"#!/bin/sh\necho {version}\n", "utf-8")
    compiler.chmod(0o755)
    assert kernels._knows_all_instructions(str(compiler)) is known
    assert not kernels._knows_all_instructions(str(tmp_path / "absent"))


def test_a_kernel_that_cannot_be_compiled_still_computes(tmp_path: Path) -> None:
    script = """if True:
        import torch
        from tuneworth.models import kernels
        assert kernels.compile_kernels(True)
        out, x = torch.zeros(5, 6), torch.randn(5, 12)
        kernels.gate_into(out, x, "silu")
        torch.testing.assert_close(out, torch.nn.functional.silu(x[:, :6]) * x[:, 6:])
        assert not kernels.compile_kernels(True), "it was compiled after all"
    """
    broken = os.environ | {"CXX": "/bin/false", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=broken, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "kernels run uncompiled" in done.stderr
