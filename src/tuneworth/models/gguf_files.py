"""A GGUF file as a source of a model: what it holds, whether it can be read, and its folder in the cache.

Weights are dequantised with the `gguf` library (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, the K quantisations, F16, BF16, F32).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from gguf import GGMLQuantizationType, GGUFReader

from tuneworth.errors import InputError, MachineError
from tuneworth.models.architecture import Architecture
from tuneworth.store.cache import cached_folder, sha256_of

SUFFIX = ".gguf"
READABLE = frozenset(
    ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
)
PRE_TOKENIZERS = frozenset(["smollm", "llama-bpe", "qwen2"])
"""Names of byte-level pre-tokenizers that are rebuilt (models/dequantise); GGUF holds no more than the name."""
_FAMILIES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "phi3": "phi3",
    "olmo2": "olmo2",
    "granite": "granite",
}
_KEYS = {
    "layers": "block_count",
    "width": "embedding_length",
    "inner": "feed_forward_length",
    "heads": "attention.head_count",
    "kv_heads": "attention.head_count_kv",
    "head_size": "attention.key_length",
    "context": "context_length",
}
_CURE = "give the model's folder (config.json, tokenizer.json, *.safetensors) or its hub id instead"
_BYTES_A_PARAMETER = 2


def gguf_architecture(path: Path) -> Architecture:
    """Layers, widths and context from the file's header. Raises InputError when it cannot be used, and why."""
    reader = _reader(path)
    family = str(_value(reader, "general.architecture") or "")
    if family not in _FAMILIES:
        raise InputError(f"models of the architecture '{family}' cannot be read from GGUF", where=str(path), cure=_CURE)
    wrong = sorted({_type_name(tensor) for tensor in reader.tensors} - READABLE)
    if wrong:
        raise InputError(f"its quantisation ({', '.join(wrong)}) is not read", where=str(path), cure=_CURE)
    before = _value(reader, "tokenizer.ggml.pre")
    if _value(reader, "tokenizer.ggml.model") == "gpt2" and before not in PRE_TOKENIZERS:
        told = f"its tokenizer splits texts by rules named '{before}', which are not known here"
        raise InputError(told, where=str(path), cure=_CURE)
    found = {name: _value(reader, f"{family}.{key}") for name, key in _KEYS.items()}
    numbers = {name: value for name, value in found.items() if isinstance(value, int)}
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    if not {"layers", "width", "heads", "context", "inner"} <= numbers.keys() or "token_embd.weight" not in tensors:
        raise InputError("its header lacks the numbers of the layers", where=str(path), cure=_CURE)
    numbers["vocabulary"] = int(tensors["token_embd.weight"].shape[1])
    tied = "output.weight" not in tensors
    return Architecture.of({**numbers, "family": _FAMILIES[family], "is_tied": tied})


def gguf_folder(path: Path) -> Path:
    """The file dequantised to bfloat16 as a folder in the cache, built once. Raises as `gguf_architecture`, and
    MachineError without the disk or the memory for it."""
    parameters = gguf_architecture(path).parameters
    name = f"models/{path.stem}-{sha256_of(path)[:12]}-bf16-1"
    return cached_folder(name, lambda folder: convert(path, folder), needed_bytes=2 * _BYTES_A_PARAMETER * parameters)


def convert(gguf: Path, folder: Path) -> None:
    """Dequantise in a process of its own, so that whoever only needs the tokenizer never loads torch."""
    command = [sys.executable, "-m", "tuneworth.models.dequantise", str(gguf), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise MachineError(f"the model could not be unpacked: {lines[-1]}", where=str(gguf))


def _reader(path: Path) -> GGUFReader:
    try:
        return GGUFReader(path)
    except (ValueError, OSError, IndexError, KeyError, OverflowError, UnicodeDecodeError) as error:
        raise InputError(f"no readable GGUF file: {error}", where=str(path), cure="fetch it again") from None


def _value(reader: GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()


def _type_name(tensor: Any) -> str:
    return str(GGMLQuantizationType(tensor.tensor_type).name)
