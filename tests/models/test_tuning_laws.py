"""What is trained of a model: LoRA in its forms or all weights; saved, loaded in a new process, put back (38 to 46)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from safetensors.torch import load_file, save_file
from test_adapter_laws import IDS, base_folder, logits_of
from transformers import LlamaConfig, LlamaForCausalLM

from tiny import VOCABULARY, close, hooks, random_row, settings, tiny_model, write_tokenizer
from tuneworth.errors import InputError
from tuneworth.models.attention import ATTENTION
from tuneworth.models.loading import load_model
from tuneworth.models.sources import ModelFolder, find_model
from tuneworth.models.tuning import Recipe, Tuned, saved, tune
from tuneworth.training import answer_loss, train

METHODS = ("lora", "rslora", "dora", "full")
ROWS = [random_row(f"{i}", 3, 4, i) for i in range(4)]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers for a renamed attribute


def recipe(method: str, **changes: Any) -> Recipe:
    return Recipe(**{"method": method, "rank": 3, "alpha": 6, "seed": 1} | changes)


def trained(model: Any, how: Recipe) -> Tuned:
    tuned = tune(model, how)
    train(tuned.model, tuned.parameters, ROWS, settings(steps=4), answer_loss, hooks())
    return tuned


def tied_folder(folder: Path) -> ModelFolder:
    """A tiny model whose output head is its embedding."""
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, initializer_range=0.3, tie_word_embeddings=True,
        attn_implementation=ATTENTION, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(2)
    LlamaForCausalLM(config).double().save_pretrained(folder)
    write_tokenizer(folder)
    return find_model(str(folder))


@pytest.mark.parametrize("method", METHODS)
def test_a_fresh_start_answers_as_the_base_trains_and_leaves_the_base_as_it_was(method: str) -> None:
    base = tiny_model()
    before = logits_of(base)
    tuned = tune(base, recipe(method))
    assert close(logits_of(tuned.model), before)
    train(tuned.model, tuned.parameters, ROWS, settings(steps=4), answer_loss, hooks())
    assert not close(logits_of(tuned.model), before, 1e-2)
    left = tuned.remove()
    assert torch.equal(logits_of(left), before)
    assert not any(parameter.requires_grad for parameter in left.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_law_42_what_is_saved_comes_back_with_the_same_logits(method: str, tmp_path: Path) -> None:
    folder = base_folder(tmp_path / "base")
    tuned = trained(load_model(folder, dtype="float64", device="cpu"), recipe(method))
    tuned.save(tmp_path / "saved", folder.id, folder.path)
    wanted = logits_of(tuned.model)
    back = saved(load_model(folder, dtype="float64", device="cpu"), tmp_path / "saved")
    assert torch.equal(logits_of(back.model), wanted)
    assert not close(logits_of(back.remove()), wanted, 1e-2)


@pytest.mark.parametrize("method", METHODS)
def test_law_43_every_trained_tensor_moves(method: str) -> None:
    tuned = tune(tiny_model(), recipe(method))
    before = {name: p.detach().clone() for name, p in tuned.parameters.items()}
    train(tuned.model, tuned.parameters, ROWS, settings(steps=4, batch_size=4), answer_loss, hooks())
    assert before
    assert [name for name, p in tuned.parameters.items() if torch.equal(p, before[name])] == []


def test_rslora_scales_by_the_root_of_the_rank_and_dora_has_magnitudes() -> None:
    scales = {}
    for method in ("lora", "rslora"):
        tuned = tune(tiny_model(), recipe(method, rank=4, alpha=8))
        scales[method] = {m.scaling["default"] for m in tuned.model.modules() if isinstance(m, LoraLinear)}
    assert scales == {"lora": {2.0}, "rslora": {4.0}}
    tuned = tune(tiny_model(), recipe("dora"))
    assert sum("magnitude" in name for name in tuned.parameters) == 14


_TRANSFORMERS_ALONE = """
import sys, torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
folder, ids, out = sys.argv[1:]
model, info = AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.float64, attn_implementation="sdpa", output_loading_info=True
)
assert not info["missing_keys"] and not info["unexpected_keys"], info
with torch.no_grad():
    logits = model.eval()(input_ids=torch.tensor([list(map(int, ids.split(",")))]), use_cache=False).logits[0]
shared = model.get_output_embeddings().weight is model.get_input_embeddings().weight
save_file({"logits": logits, "shared": torch.tensor(shared)}, out)
assert "tuneworth" not in sys.modules
"""


@pytest.mark.parametrize("tied", [False, True])
def test_law_38_and_46_full_weights_in_a_new_process_are_the_trained_ones(tied: bool, tmp_path: Path) -> None:
    folder = (tied_folder if tied else base_folder)(tmp_path / "base")
    model = load_model(folder, dtype="float64", device="cpu")
    tuned = trained(model, recipe("full"))
    wanted = logits_of(tuned.model)
    tuned.save(tmp_path / "saved", folder.id, folder.path)
    out = tmp_path / "logits.safetensors"
    command = [sys.executable, "-c", _TRANSFORMERS_ALONE, str(tmp_path / "saved"), ",".join(map(str, IDS)), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = load_file(out)
    assert close(found["logits"], wanted, 1e-6)
    assert bool(found["shared"]) == tied
    config = json.loads((tmp_path / "saved/config.json").read_text())
    assert config["tie_word_embeddings"] == tied
    assert ("lm_head.weight" in load_file(tmp_path / "saved/model.safetensors")) != tied
    assert model.generation_config is None


@pytest.mark.parametrize("damage", ["missing", "extra", "shape", "cut"])
def test_law_42_full_weights_that_do_not_fit_are_refused_and_change_nothing(damage: str, tmp_path: Path) -> None:
    folder = base_folder(tmp_path / "base")
    tune(load_model(folder, dtype="float64", device="cpu"), recipe("full")).save(tmp_path / "s", "x", folder.path)
    path = tmp_path / "s/model.safetensors"
    tensors = load_file(path)
    name = "model.layers.1.mlp.up_proj.weight"
    if damage == "missing":
        del tensors[name]
    elif damage == "extra":
        tensors[name + ".more"] = torch.zeros(2)
    elif damage == "shape":
        tensors[name] = torch.zeros(3, 3)
    save_file(tensors, path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    model = tiny_model(seed=4)
    before = logits_of(model)
    with pytest.raises(InputError) as caught:
        saved(model, tmp_path / "s")
    assert str(tmp_path) in str(caught.value)
    assert torch.equal(logits_of(model), before)


@pytest.mark.parametrize("method", METHODS)
def test_a_training_goes_on_from_what_an_earlier_one_saved(method: str, tmp_path: Path) -> None:
    folder = base_folder(tmp_path / "base")
    first = trained(tiny_model(), recipe(method))
    first.save(tmp_path / "first", folder.id, folder.path)
    wanted = logits_of(first.model)
    base = tiny_model()
    before = logits_of(base)
    second = tune(base, recipe(method, start=tmp_path / "first", seed=9))
    assert torch.equal(logits_of(second.model), wanted)
    assert set(second.parameters) == set(first.parameters)
    train(second.model, second.parameters, ROWS, settings(steps=3), answer_loss, hooks())
    assert not close(logits_of(second.model), wanted, 1e-3)
    assert torch.equal(logits_of(second.remove()), before)


def test_another_rank_or_another_method_to_start_from_is_refused(tmp_path: Path) -> None:
    folder = base_folder(tmp_path / "base")
    tune(tiny_model(), recipe("lora")).save(tmp_path / "adapter", folder.id, folder.path)
    tune(tiny_model(), recipe("full")).save(tmp_path / "weights", folder.id, folder.path)
    with pytest.raises(InputError, match=r"rank 3, training\.rank is 8"):
        tune(tiny_model(), recipe("lora", rank=8, start=tmp_path / "adapter"))
    with pytest.raises(InputError, match="trained an adapter, this one trains all weights"):
        tune(tiny_model(), recipe("full", start=tmp_path / "adapter"))
    with pytest.raises(InputError, match="trained all weights, this one trains an adapter"):
        tune(tiny_model(), recipe("lora", start=tmp_path / "weights"))


def test_quantised_weights_are_not_trained_in_full() -> None:
    model = tiny_model()
    model.hf_quantizer = object()
    with pytest.raises(InputError, match="quantised"):
        _ = tune(model, recipe("full")).parameters
