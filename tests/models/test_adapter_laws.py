"""Adapters: what is saved is what plain peft reads; what does not fit is refused (LAWS 42, 46)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from tiny import close, hooks, plain_logits, random_ids, random_row, settings, tiny_model, write_tokenizer
from tuneworth.errors import InputError
from tuneworth.models.adapters import add_lora, load_adapter, save_adapter, trainable
from tuneworth.models.loading import load_model
from tuneworth.models.rows import Tree
from tuneworth.models.sources import ModelFolder, find_model
from tuneworth.training import answer_loss, train

IDS = random_ids(14, seed=5)


def logits_of(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(
            input_ids=torch.tensor([IDS]),
            position_ids=torch.arange(len(IDS))[None],
            layout=Tree.of(len(IDS), []),
            use_cache=False,
        ).logits[0]


def trained_adapter(seed: int = 0) -> PeftModel:
    model = add_lora(tiny_model(), rank=3, alpha=6, seed=seed)
    rows = [random_row(f"{i}", 3, 4, i) for i in range(4)]
    train(model, trainable(model), rows, settings(steps=4), answer_loss, hooks())
    return model


def base_folder(folder: Path) -> ModelFolder:
    folder.mkdir(exist_ok=True)
    tiny_model().save_pretrained(folder)
    write_tokenizer(folder)
    return find_model(str(folder))


_PLAIN_PEFT = """
import sys, torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
base, adapter, ids, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64, attn_implementation="sdpa")
model = PeftModel.from_pretrained(model, adapter).eval()
with torch.no_grad():
    logits = model(input_ids=torch.tensor([list(map(int, ids.split(",")))]), use_cache=False).logits[0]
save_file({"logits": logits}, out)
assert "tuneworth" not in sys.modules
"""


def test_law_46_plain_peft_and_transformers_in_a_new_process_give_our_logits(tmp_path: Path) -> None:
    base, adapter, out = base_folder(tmp_path / "base"), tmp_path / "adapter", tmp_path / "logits.safetensors"
    rows = [random_row(f"{i}", 3, 4, i) for i in range(4)]
    model = add_lora(load_model(base, dtype="float64", device="cpu"), rank=3, alpha=6, seed=1)
    before = logits_of(model)
    train(model, trainable(model), rows, settings(steps=4), answer_loss, hooks())
    save_adapter(model, adapter, base="someone/a-model")
    wanted = logits_of(model)
    names = ",".join(map(str, IDS))
    command = [sys.executable, "-c", _PLAIN_PEFT, str(base.path), str(adapter), names, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert close(load_file(out)["logits"], wanted, 1e-6)  # transformers' norms are float32 inside
    assert not close(before, wanted, 1e-2)
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == "someone/a-model"
    assert sorted(path.name for path in adapter.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_law_42_a_saved_adapter_comes_back_with_the_same_logits_and_not_the_bases(tmp_path: Path) -> None:
    trained = trained_adapter()
    save_adapter(trained, tmp_path, base="x")
    loaded = load_adapter(tiny_model(), tmp_path)
    assert torch.equal(logits_of(loaded), logits_of(trained))
    assert not close(logits_of(loaded), logits_of(tiny_model()), 1e-2)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("damage", ["renamed", "missing", "extra", "shape", "cut", "gone", "configuration"])
def test_law_42_an_adapter_that_does_not_fit_is_refused(tmp_path: Path, damage: str) -> None:
    save_adapter(trained_adapter(), tmp_path, base="x")
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    name = sorted(name for name in tensors if "lora_B" in name)[0]
    if damage in ("renamed", "missing"):
        tensor = tensors.pop(name)
        if damage == "renamed":
            tensors[name.replace("layers.0", "blocks.0")] = tensor
    elif damage == "extra":
        tensors[name.replace("layers.0", "layers.9")] = tensors[name].clone()
    elif damage == "shape":
        tensors[name] = tensors[name][:, :1].contiguous()
    save_file(tensors, path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "gone":
        path.unlink()
    elif damage == "configuration":
        (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", ')
    with pytest.raises(InputError) as caught:
        load_adapter(tiny_model(), tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_fresh_adapter_answers_as_its_base_and_follows_its_seed() -> None:
    first, again, other = (add_lora(tiny_model(), rank=2, alpha=4, seed=seed) for seed in (1, 1, 2))
    assert close(logits_of(first), logits_of(tiny_model()))
    pairs = list(zip(trainable(first).values(), trainable(again).values(), trainable(other).values(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert any(not torch.equal(a, c) for a, _, c in pairs)


def test_an_adapter_does_not_touch_the_global_random_state() -> None:
    torch.manual_seed(4)
    wanted = torch.rand(3)
    torch.manual_seed(4)
    add_lora(tiny_model(), rank=2, alpha=4, seed=1)
    assert torch.equal(torch.rand(3), wanted)


def test_a_loaded_model_gives_transformers_logits_and_has_nothing_to_train(tmp_path: Path) -> None:
    folder = base_folder(tmp_path)
    model = load_model(folder, dtype="float64", device="cpu")
    reference = type(model).from_pretrained(tmp_path, dtype=torch.float64, attn_implementation="sdpa").eval()
    with torch.no_grad():
        assert close(logits_of(model), plain_logits(reference, IDS), 1e-6)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("damage", ["missing", "extra", "shape", "cut", "architecture", "configuration"])
def test_law_46_weights_that_do_not_fit_are_refused(tmp_path: Path, damage: str) -> None:
    folder = base_folder(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.1.mlp.up_proj.weight"
    if damage == "missing":
        del tensors[name]
    elif damage == "extra":
        tensors[name.replace("up_proj", "side_proj")] = torch.zeros(3)
    elif damage == "shape":
        tensors[name] = torch.zeros(3, 3)
    save_file(tensors, path, metadata={"format": "pt"})
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    elif damage == "architecture":
        config = json.loads((tmp_path / "config.json").read_text())
        config |= {"model_type": "nobody-knows", "architectures": ["NobodyForCausalLM"]}
        (tmp_path / "config.json").write_text(json.dumps(config))
    elif damage == "configuration":
        (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError) as caught:
        load_model(folder, dtype="float32", device="cpu")
    assert str(tmp_path) in str(caught.value)


def test_a_model_whose_code_is_remote_is_refused(tmp_path: Path) -> None:
    folder = base_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
    with pytest.raises(InputError):
        load_model(folder, dtype="float32", device="cpu")
    assert not ran.exists()
