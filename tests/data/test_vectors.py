"""Sentence vectors: unit rows that depend on their own text alone."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from tuneworth.data import vectors as module
from tuneworth.data.vectors import TokenVectors, default_vectors, read_vectors
from tuneworth.errors import MachineError
from tuneworth.store.cache import sha256_of

WORDS = {"<unk>": 0, "card": 1, "lost": 2, "weather": 3, "rain": 4}


def table_in(folder: Path) -> Path:
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    table = np.eye(len(WORDS), dtype=np.float16)
    table[0] = 0
    save_file({"embedding.weight": table}, folder / "model.safetensors")
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> TokenVectors:
    return read_vectors(table_in(tmp_path))


def test_rows_are_the_mean_of_their_tokens_scaled_to_length_one(tiny):
    rows = tiny(["card lost", "card card lost", "rain"])
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows[0], [0, 0.5**0.5, 0.5**0.5, 0, 0], atol=1e-6)
    np.testing.assert_allclose(rows[1], [0, 0.8**0.5, 0.2**0.5, 0, 0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_a_row_depends_on_its_text_alone_to_the_bit(tiny, monkeypatch):
    texts = ["card lost", "rain", "weather rain card card", "lost lost rain"] * 5
    together = tiny(texts)
    monkeypatch.setattr(module, "_BATCH", 3)
    assert np.array_equal(tiny(texts), together)
    assert np.array_equal(tiny(texts[::-1])[::-1], together)


def test_texts_without_a_known_token_are_zeros_and_broken_unicode_is_read(tiny):
    rows = tiny(["", "nothing known", "card \ud800"])
    assert np.array_equal(rows[:2], np.zeros((2, 5)))
    assert rows[2, 1] == 1
    assert tiny([]).shape == (0, 5)


def test_the_table_is_taken_out_of_the_wheel_without_running_it(tmp_path, monkeypatch):
    wheel = tmp_path / "made.whl"
    source = tmp_path / "source"
    source.mkdir()
    table_in(source)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("wordllama/__init__.py", "raise SystemExit")
        for member, name in module._MEMBERS.items():
            archive.write(source / name, member)
    monkeypatch.setenv("TUNEWORTH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_WHEEL_SHA256", sha256_of(wheel))
    monkeypatch.setattr(module, "download_wheel", lambda *_, **__: wheel)
    assert np.array_equal(default_vectors()(["card"]), [[0, 1, 0, 0, 0]])


def test_offline_with_an_empty_cache_is_a_machine_error_with_a_cure(tmp_path, monkeypatch):
    def no_pip(*_: object, **__: object) -> None:
        raise FileNotFoundError("pip")

    monkeypatch.setenv("TUNEWORTH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tuneworth.store.index.subprocess.run", no_pip)
    with pytest.raises(MachineError, match="TUNEWORTH_CACHE"):
        default_vectors()
