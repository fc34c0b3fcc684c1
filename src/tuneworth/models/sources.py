"""Where models come from: the embedded one, a folder, a GGUF file, or the Hugging Face hub (network or its cache)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub  # its parts are loaded when they are used, which takes 0.2 s and is seldom needed

from tuneworth.errors import InputError, MachineError, nearest
from tuneworth.models.architecture import Architecture
from tuneworth.models.catalogue import catalogue, entry_of
from tuneworth.models.embedded import EMBEDDED_ID, LICENCE, embedded_at_hand, embedded_folder
from tuneworth.models.gguf_files import SUFFIX, gguf_architecture, gguf_folder
from tuneworth.store.atomic import read_json
from tuneworth.store.cache import MANIFEST, sha256_of

_NEEDED = ("config.json", "tokenizer.json")
_PATTERNS = ["*.json", "*.safetensors", "*.jinja"]


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model on this disk in the layout of transformers. `sha256` is that of its weights."""

    id: str
    path: Path
    sha256: str
    licence: str | None
    context_tokens: int


def known_models() -> tuple[str, ...]:
    """The ids of the catalogue; the first needs no hub."""
    return (EMBEDDED_ID, *(entry.id for entry in catalogue() if entry.id != EMBEDDED_ID))


def check_model_id(model: str) -> None:
    """Refuse an id that can be no model before any work starts. Raises InputError with the nearest known one."""
    if model not in known_models() and not _looks_like_path(model) and model.count("/") != 1:
        raise InputError(
            f"there is no model '{model}'",
            where="models",
            cure=_nearest(model)
            + " `tuneworth models` lists what is known; a hub id (owner/name) or a folder works too.",
        )
    if _looks_like_path(model) and not (Path(model).expanduser().is_dir() or _is_gguf(model)):
        raise InputError("there is no such model folder or GGUF file", where=model, cure="check the path")


def find_model(model: str) -> ModelFolder:
    """The folder of `model`, fetched first if need be.

    Raises InputError for a model that does not exist, MachineError when it cannot be fetched from here.
    """
    check_model_id(model)
    if model == EMBEDDED_ID:
        return _described(model, embedded_folder(), LICENCE)
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _described(model, folder, None)
    if _is_gguf(model):
        return _described(model, gguf_folder(folder), None)
    entry = entry_of(model)
    with _hub_errors(model):
        path = Path(huggingface_hub.snapshot_download(_hub_id(model), allow_patterns=_PATTERNS))
    return _described(model, path, entry.licence.id if entry else None)


def find_architecture(model: str) -> Architecture:
    """Layers, widths and context of `model` without its weights: from the catalogue, or from its config.json.

    Raises as `find_model` does.
    """
    check_model_id(model)
    folder = Path(model).expanduser()
    if folder.is_dir():
        return Architecture.of_config(read_json(folder / _NEEDED[0]), str(folder))
    if _is_gguf(model):
        return gguf_architecture(folder)
    entry = entry_of(model)
    if entry is not None:
        return entry.architecture
    with _hub_errors(model):
        path = huggingface_hub.hf_hub_download(model, _NEEDED[0])
    return Architecture.of_config(read_json(Path(path)), model)


def folder_at_hand(model: str) -> Path | None:
    """The folder of `model` if it is on this disk already; nothing is fetched."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if _is_gguf(model):
        return None
    if model == EMBEDDED_ID:
        return embedded_at_hand()
    try:
        found = Path(huggingface_hub.snapshot_download(_hub_id(model), allow_patterns=_PATTERNS, local_files_only=True))
    except (huggingface_hub.errors.HFValidationError, huggingface_hub.errors.LocalEntryNotFoundError, OSError):
        return None
    return found if all((found / name).is_file() for name in _NEEDED) else None


def _hub_id(model: str) -> str:
    """The repository of a catalogue's id; a base model is named by its own repository."""
    entry = entry_of(model)
    return entry.hub if entry is not None and "/" not in model else model


@contextmanager
def _hub_errors(model: str) -> Iterator[None]:
    try:
        yield
    except huggingface_hub.errors.GatedRepoError:
        raise InputError(
            "the maker gives this model only to accounts that have agreed to its terms",
            where=model,
            cure=f"agree at https://huggingface.co/{_hub_id(model)}, create a token at "
            "https://huggingface.co/settings/tokens, and put it into HF_TOKEN (or run `hf auth login`)",
        ) from None
    except (huggingface_hub.errors.HFValidationError, huggingface_hub.errors.HfHubHTTPError) as error:
        raise InputError(f"the hub has no such model for you: {str(error).splitlines()[0]}", where=model) from None
    except (huggingface_hub.errors.LocalEntryNotFoundError, OSError):
        raise MachineError(
            "the model is not in the cache and the hub cannot be reached",
            where=model,
            cure=f"connect once, give a folder, set HF_ENDPOINT to a mirror, or use '{EMBEDDED_ID}', which comes from "
            "the package index",
        ) from None


def _nearest(model: str) -> str:
    """The nearest id of the catalogue, or the smallest models: a list of all would be no help."""
    hint = nearest(model, known_models())
    return hint if hint.startswith("did") else "known: " + ", ".join(known_models()[:4]) + ", ..."


def _looks_like_path(model: str) -> bool:
    return model.startswith((".", "/", "~")) or model.endswith(SUFFIX) or Path(model).is_dir()


def _is_gguf(model: str) -> bool:
    return model.endswith(SUFFIX) and Path(model).expanduser().is_file()


def _described(model: str, folder: Path, licence: str | None) -> ModelFolder:
    for name in _NEEDED:
        if not (folder / name).is_file():
            raise InputError(f"{name} is missing in the model's folder", where=str(folder))
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise InputError(
            "no *.safetensors in the model's folder",
            where=str(folder),
            cure="pickled weights (.bin, .pt) are not read",
        )
    config = read_json(folder / "config.json")
    text = config.get("text_config", config)
    context = text.get("max_position_embeddings")
    if not isinstance(context, int) or context <= 0:
        raise InputError("config.json states no max_position_embeddings", where=str(folder))
    return ModelFolder(model, folder, _weights_sha256(folder, weights), licence, context)


def _weights_sha256(folder: Path, weights: list[Path]) -> str:
    if (folder / MANIFEST).is_file() and len(weights) == 1:
        return str(read_json(folder / MANIFEST)["files"][weights[0].name]["sha256"])
    return sha256_of(weights[0]) if len(weights) == 1 else "+".join(sha256_of(path)[:12] for path in weights)
