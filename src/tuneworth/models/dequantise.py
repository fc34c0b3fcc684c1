"""A GGUF file becomes a folder in the layout of transformers: `python -m tuneworth.models.dequantise FILE FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from gguf import GGUFReader
from safetensors.torch import save_file
from tokenizers import Regex, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

# GGUF only names its pre-tokenizer, and transformers 5.23 builds the plain GPT-2 one for all of them. Their own split
# digits, contractions and line ends otherwise: "  12" would become other tokens than the model was trained with.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def dequantise(gguf: Path, folder: Path) -> None:
    """Dequantise to bfloat16 safetensors and write configuration, tokenizer and template beside them."""
    transformers_logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    name = GGUFReader(gguf).get_field("tokenizer.ggml.pre")
    splitter = pre_tokenizer(str(name.contents())) if name is not None else None
    if splitter is not None:
        tokenizer.backend_tokenizer.pre_tokenizer = splitter
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.save_pretrained(folder)
    config = model.config.to_dict()
    for key in ("quantization_config", "_name_or_path"):
        config.pop(key, None)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head.weight is embedding.weight or torch.equal(head.weight, embedding.weight)
    config |= {"architectures": [type(model).__name__], "dtype": "bfloat16", "tie_word_embeddings": tied}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = {
        name: tensor.to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if not (tied and name == "lm_head.weight")  # safetensors holds each tensor once
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def pre_tokenizer(name: str) -> pre_tokenizers.PreTokenizer | None:
    """The pre-tokenizer that GGUF calls `name`; None for other tokenizers (SentencePiece), which need none."""
    if name == "smollm":
        # Digits stand alone before the byte-level split.
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    digits = {"llama-bpe": r"\p{N}{1,3}", "qwen2": r"\p{N}"}.get(name)
    if digits is None:
        return None
    split = pre_tokenizers.Split(Regex(_WORDS % digits), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


if __name__ == "__main__":
    dequantise(Path(sys.argv[1]), Path(sys.argv[2]))
