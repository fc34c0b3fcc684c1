"""A GGUF file of any common quantisation becomes the model it holds; what cannot be rebuilt exactly is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quants
from safetensors.torch import load_file

from tiny import LLAMA3, tiny_tokenizer
from tuneworth.errors import InputError
from tuneworth.models.dequantise import dequantise, pre_tokenizer
from tuneworth.models.gguf_files import gguf_architecture
from tuneworth.models.loading import load_model
from tuneworth.models.sources import ModelFolder, check_model_id, find_architecture

WIDTH, TOKENS = 256, 300
# Where each K quantisation keeps the float16 scales of a block: (bytes of a block, places).
_SCALES = {"Q4_K": (144, (0, 2)), "Q5_K": (176, (0, 2)), "Q6_K": (210, (208,))}


def raw(kind: str, rows: int, seed: int) -> np.ndarray:
    """Quantised rows of WIDTH values: made by the library, or random blocks with small scales for K quantisations."""
    chance = np.random.default_rng(seed)
    if kind not in _SCALES:
        return quants.quantize(chance.normal(0, 0.1, (rows, WIDTH)).astype(np.float32), GGMLQuantizationType[kind])
    size, places = _SCALES[kind]
    blocks = chance.integers(0, 256, (rows, WIDTH // 256 * size), dtype=np.uint8)
    for place in places:
        blocks[:, place : place + 2] = np.array([0.001], np.float16).view(np.uint8)
    return blocks


def write(path: Path, kind: str, pre: str = "llama-bpe", architecture: str = "llama") -> dict[str, np.ndarray]:
    """A model of one layer, its matrices of `kind`; returns them as they are quantised."""
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_context_length(512)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(TOKENS)
    tokenizer = tiny_tokenizer(LLAMA3)
    names = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([*names, *(f"[unused{i}]" for i in range(len(names), TOKENS))])
    writer.add_token_types([1] * TOKENS)
    writer.add_token_merges(["t h", "th e"])
    writer.add_eos_token_id(tokenizer.token_to_id("<|eot_id|>"))
    shapes = {
        "token_embd": TOKENS, "blk.0.attn_q": WIDTH, "blk.0.attn_k": 128, "blk.0.attn_v": 128,
        "blk.0.attn_output": WIDTH, "blk.0.ffn_gate": WIDTH, "blk.0.ffn_up": WIDTH, "blk.0.ffn_down": WIDTH,
    }  # fmt: skip
    written = {name: raw(kind, rows, seed) for seed, (name, rows) in enumerate(shapes.items())}
    for name, data in written.items():
        writer.add_tensor(f"{name}.weight", data, raw_dtype=GGMLQuantizationType[kind])
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "F16"])
def test_the_weights_are_those_of_the_file_and_load_as_a_model(tmp_path: Path, kind: str) -> None:
    written = write(tmp_path / "model.gguf", kind)
    out = tmp_path / "out"
    out.mkdir()
    dequantise(tmp_path / "model.gguf", out)
    found = load_file(out / "model.safetensors")
    for theirs, ours in {"token_embd": "embed_tokens", "blk.0.ffn_down": "layers.0.mlp.down_proj",
                         "blk.0.attn_v": "layers.0.self_attn.v_proj"}.items():  # fmt: skip
        wanted = quants.dequantize(written[theirs], GGMLQuantizationType[kind])
        assert torch.equal(found[f"model.{ours}.weight"], torch.from_numpy(wanted).to(torch.bfloat16)), theirs
    model = load_model(ModelFolder("x", out, "", None, 512), dtype="bfloat16", device="cpu")
    facts = gguf_architecture(tmp_path / "model.gguf")
    assert sum(p.numel() for p in model.parameters()) == facts.parameters
    assert facts.is_tied


def test_the_header_tells_the_architecture_before_anything_is_unpacked(tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", "Q8_0")
    check_model_id(str(tmp_path / "model.gguf"))
    found = find_architecture(str(tmp_path / "model.gguf"))
    assert (found.family, found.layers, found.width, found.kv_heads, found.context) == ("llama", 1, WIDTH, 2, 512)
    assert found.vocabulary == TOKENS


@pytest.mark.parametrize(
    ("change", "told"),
    [({"pre": "unheard-of"}, "splits texts by rules named 'unheard-of'"), ({"architecture": "mamba"}, "'mamba'")],
)
def test_what_cannot_be_rebuilt_exactly_is_refused(tmp_path: Path, change: dict[str, str], told: str) -> None:
    write(tmp_path / "model.gguf", "F16", **change)
    with pytest.raises(InputError, match=told):
        find_architecture(str(tmp_path / "model.gguf"))


def test_damaged_and_missing_files_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", "Q8_0")
    whole = (tmp_path / "model.gguf").read_bytes()
    for damage in (b"", b"GGUF", b"not a model at all", whole[:2000]):
        (tmp_path / "model.gguf").write_bytes(damage)
        with pytest.raises(InputError, match="no readable GGUF"):
            find_architecture(str(tmp_path / "model.gguf"))
    with pytest.raises(InputError, match="no such model folder or GGUF file"):
        check_model_id(str(tmp_path / "other.gguf"))


def test_digits_and_line_ends_are_split_as_the_named_rules_say() -> None:
    def parts(name: str, text: str) -> list[str]:
        splitter = pre_tokenizer(name)
        assert splitter is not None
        return [part for part, _ in splitter.pre_tokenize_str(text)]

    assert parts("smollm", "a 123") == ["a", "Ġ", "1", "2", "3"]
    assert parts("llama-bpe", "a 12345") == ["a", "Ġ", "123", "45"]
    assert parts("qwen2", "a 123") == ["a", "Ġ", "1", "2", "3"]
    assert pre_tokenizer("default") is None
