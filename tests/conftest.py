"""One thread (tiny tensors, several workers on the machine), no network, and the embedded model where it is needed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("tuneworth", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("tuneworth")


@pytest.fixture(scope="session")
def embedded() -> Path:
    """The folder of the embedded model."""
    from tuneworth.errors import MachineError
    from tuneworth.models.embedded import embedded_folder

    try:
        return embedded_folder()
    except MachineError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def _own_looks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at test rows are written down outside the user's cache, and each test is the first to look."""
    from tuneworth.store import looks

    monkeypatch.setattr(looks, "cache_folder", lambda: tmp_path_factory.mktemp("looks"))


@pytest.fixture
def compiled() -> Iterator[None]:
    """Kernels are compiled."""
    from tuneworth.models import kernels

    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("there is no C++ compiler on this machine")
    assert kernels.compile_kernels(True)
    yield
    kernels.compile_kernels(False)
