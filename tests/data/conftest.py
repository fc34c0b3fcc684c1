"""Where the shared data sets are: beside the checkout, or where TUNEWORTH_SHARED_DATA says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with banking77, sms_spam and the others; where it is absent, its tests are skipped."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("TUNEWORTH_SHARED_DATA", beside))
    if not (folder / "banking77" / "train.csv").is_file():
        pytest.skip(f"no shared data sets at {folder} (set TUNEWORTH_SHARED_DATA to their folder)")
    return folder
