"""Looks at test rows: each set of answers counts once, whoever asks, and nothing is forgotten."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tuneworth.store import looks
from tuneworth.store.looks import digest, look


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "cache_folder", lambda: tmp_path)


def test_other_answers_on_the_same_rows_are_another_look_and_the_same_answers_are_not() -> None:
    rows = digest(["a", "b"])
    assert [look(rows, digest([answer])) for answer in ("x", "y", "x", "z", "z")] == [1, 2, 1, 3, 3]
    assert look(digest(["other rows"]), digest(["x"])) == 1


def test_a_digest_tells_where_a_text_ends() -> None:
    assert digest(["ab", "c"]) != digest(["a", "bc"]) and digest(["\ud800"]) == digest(["\ud800"])


def test_a_line_cut_short_is_no_look_and_spoils_no_later_one(tmp_path: Path) -> None:
    rows = digest(["a"])
    look(rows, digest(["x"]))
    path = tmp_path / "looks" / rows
    path.write_bytes(path.read_bytes() + digest(["y"])[:20].encode())
    assert look(rows, digest(["y"])) == 2
    assert look(rows, digest(["z"])) == 3


def test_looks_at_once_are_all_counted() -> None:
    rows = digest(["a"])
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda n: look(rows, digest([str(n)])), range(40)))
    assert sorted(numbers) == list(range(1, 41))
