"""Data sets of the Hugging Face hub: an id becomes a folder in the hub's own cache."""

from __future__ import annotations

import re
from pathlib import Path

import huggingface_hub  # its parts are loaded when they are used, which takes 0.2 s and is seldom needed

from tuneworth.data.opening import SUFFIXES
from tuneworth.errors import InputError, MachineError

_ID = re.compile(r"(?:hf://datasets/)?([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*?)(?:@([\w.-]+))?")
# Never code: no *.py is fetched, and nothing that comes is run.
_WANTED = ["README.md", *(f"*{suffix}{packed}" for suffix in SUFFIXES for packed in ("", ".gz", ".zst"))]


def fetch_data_set(name: str) -> Path:
    """The folder with the data files of a hub data set, fetched unless they are in the cache.

    Raises InputError when there is no such data set for you, MachineError when the hub cannot be reached.
    """
    match = _ID.fullmatch(name)
    assert match is not None
    id_, revision = match.groups()
    try:
        return Path(
            huggingface_hub.snapshot_download(id_, repo_type="dataset", revision=revision, allow_patterns=_WANTED)
        )
    except (huggingface_hub.errors.HFValidationError, huggingface_hub.errors.HfHubHTTPError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"the hub has no such data set for you: {first}", where=name, code="file-missing") from None
    except (huggingface_hub.errors.LocalEntryNotFoundError, OSError):
        raise MachineError(
            "there is no such file or folder, and the hub, which may have a data set of that name, cannot be reached",
            where=name,
            cure="check the path; or fetch the data set where there is a network, and give its folder",
        ) from None
