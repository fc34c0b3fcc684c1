"""Advice comes before any download, says what it rests on, and refuses what cannot fit or cannot be used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from commands import command
from tiny import tiny_model, write_tokenizer
from topics import TOPICS
from tuneworth.errors import InputError, MachineError
from tuneworth.models.machine import this_machine
from tuneworth.models.rates import Rates
from tuneworth.pipeline import advising
from tuneworth.pipeline.advising import advise, check_fits
from tuneworth.task import load_task


@pytest.fixture(autouse=True)
def steady(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The same machine in every test, and nothing fetched."""
    monkeypatch.setattr(advising, "machine_rates", lambda machine: Rates(2e11, 4e11, 2e10, "2026-11-25T00:00:00Z", 0.0))
    free = [16 * 10**9]
    monkeypatch.setattr(advising, "this_machine", lambda: replace(this_machine(), memory_bytes=free[0], gpus=()))
    monkeypatch.setattr(advising.psutil, "virtual_memory", lambda: SimpleNamespace(available=10**12, total=10**12))

    def fetch(*args: Any, **options: Any) -> str:
        if options.get("local_files_only"):
            raise huggingface_hub.errors.LocalEntryNotFoundError("not here")
        raise AssertionError("advice must fetch nothing")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    yield free


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "tickets.csv"
    lines = [f"about {words[i % 10]} number {i},{topic}" for topic, words in TOPICS.items() for i in range(100)]
    path.write_text("text,label\n" + "\n".join(lines) + "\n")
    return path


def advice(rows: Path, **changes: Any) -> dict[str, Any]:
    return advise(
        load_task(None, {"data.train": str(rows), **{key.replace("__", "."): v for key, v in changes.items()}})
    )


def test_a_model_that_is_not_here_is_advised_on_without_fetching_it(rows: Path) -> None:
    found = advice(rows, models=["qwen3-0.6b"])
    assert not found["tokens_counted"]
    assert found["rows"] == {"train": 288, "validation": 32, "test": 80}
    assert found["memory"]["fits"]
    assert found["memory"]["peak_bytes"] == sum(found["memory"]["parts"].values()) == found["predicted"]["peak_bytes"]
    assert found["model"]["licence"] == "apache-2.0"
    assert all(setting["reason"] for setting in found["settings"].values())
    assert set(found["seconds"]) == {
        "train, short prompt", "answer test, short prompt", "train, full prompt", "answer test, full prompt",
        "one request alone",
    }  # fmt: skip
    assert 0 < found["test_shows"] < 1


def test_a_model_that_is_here_counts_its_own_tokens(rows: Path, tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    found = advice(rows, models=[str(tmp_path)])
    assert found["tokens_counted"]
    assert found["tokens"]["full"]["shared"] > found["tokens"]["short"]["shared"] > 0
    assert found["tokens"]["full"]["mean"] > found["tokens"]["short"]["mean"]


def test_what_cannot_fit_is_refused_with_what_would(rows: Path, steady: list[int]) -> None:
    with pytest.raises(MachineError, match=r"even one row at a time.*what would fit: a smaller model") as caught:
        advice(rows, models=["qwen2.5-32b-instruct"])
    assert caught.value.exit_code == 3
    with pytest.raises(MachineError, match=r"training\.method=lora, which needs"):
        advice(rows, models=["qwen3-1.7b"], training__method="full")
    steady[0] = 10**8
    with pytest.raises(MachineError, match="close other programs"):
        advice(rows)


def test_a_model_too_large_for_the_machine_is_refused_before_it_is_fetched(rows: Path) -> None:
    def check(**changes: Any) -> None:
        check_fits(load_task(None, {"data.train": str(rows), **changes}))

    check()
    check(models=["owner/unknown"])
    with pytest.raises(MachineError, match="this machine has 16 GB"):
        check(models=["qwen2.5-32b-instruct"])


def test_attention_that_is_not_supported_and_a_context_that_holds_no_row_are_refused(
    rows: Path, tmp_path: Path
) -> None:
    with pytest.raises(MachineError, match="softcap"):
        advice(rows, models=["gemma-2-2b-it"])
    tiny_model().save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 20}))
    with pytest.raises(InputError, match=r"none of \d+ sampled rows fits .* 20 tokens"):
        advice(rows, models=[str(tmp_path)])


def test_the_command_reads_like_advice_and_has_a_document(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("plan", rows, "--quick", "--model", "qwen3-0.6b") == 0
    shown = capsys.readouterr().out
    for title in ("Model", "Rows", "Method", "Rate", "Rank", "Memory", "Time", "Cost", "Budget", "Test", "Change"):
        assert f"\n{title} " in shown
    assert "(override" not in shown
    assert command("plan", rows, "--quick", "--model", "qwen3-0.6b", "--json") == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "tuneworth.advice/1"
    assert command("plan", rows, "--quick", "--model", "qwen2.5-32b-instruct") == 3
    assert command("plan", rows, "--quick", "--model", "qwen3-0.5b") == 2


def test_models_are_listed_filtered_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("models", "--size", "1B", "--licence", "apache-2.0", "--tools", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [model["id"] for model in found["models"]] == ["qwen2.5-0.5b-instruct", "qwen3-0.6b"]
    assert command("models", "qwen2.5-3b-instruct", "--use", "commercial") == 2
    assert "forbids commercial use" in capsys.readouterr().err
    assert command("models", "qwen3-0.6b") == 0
    assert "40,960" in capsys.readouterr().out
    for wrong in (["--size", "big"], ["--licence", "gpl"], ["--use", "war"]):
        assert command("models", *wrong) == 2
