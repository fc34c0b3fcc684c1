"""LAW 9: files are whole or absent, the cache is built once, and a damaged thing is named."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tuneworth.errors import InputError, MachineError
from tuneworth.store import atomic, cache
from tuneworth.store.atomic import read_json, read_jsonl, write_bytes, write_json, write_jsonl, write_text
from tuneworth.store.cache import MANIFEST, cached_folder, manifest_problem, sha256_of, write_manifest


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read_and_folders_are_made(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b.json", {"x": [1, "é", None], "y": {"z": 0.1}})
    write_jsonl(tmp_path / "a" / "c.jsonl", [{"i": i, "text": "line\nend\u2028"} for i in range(3)])
    write_text(tmp_path / "a" / "d.txt", "é\n")
    assert read_json(tmp_path / "a" / "b.json") == {"x": [1, "é", None], "y": {"z": 0.1}}
    assert read_jsonl(tmp_path / "a" / "c.jsonl") == [{"i": i, "text": "line\nend\u2028"} for i in range(3)]
    assert (tmp_path / "a" / "d.txt").read_bytes() == "é\n".encode()
    assert names(tmp_path / "a") == ["b.json", "c.jsonl", "d.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_law_9_a_failing_disk_keeps_the_old_file_and_leaves_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, at: str
) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"old": True})

    def fail(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as broken:
        if at == "fsync":
            broken.setattr(atomic.os, "fsync", fail)
        else:
            broken.setattr(Path, "replace", fail)
        with pytest.raises(MachineError) as caught:
            write_json(path, {"new": True})
    assert str(path) in str(caught.value)
    assert read_json(path) == {"old": True}
    assert names(tmp_path) == ["file.json"]
    assert ("no space" in str(caught.value)) == (number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def test_law_9_a_really_full_file_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    code = f"""
import resource, signal
from pathlib import Path
from tuneworth.errors import MachineError
from tuneworth.store.atomic import write_bytes
path = Path({str(path)!r})
write_bytes(path, b"old")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    write_bytes(path, b"x" * 100_000)
except MachineError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "no space left" in done.stdout, done.stderr
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file.bin"]


def test_law_9_an_interrupted_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_law_9_readers_beside_writers_see_whole_files_only(tmp_path: Path) -> None:
    path, seen = tmp_path / "file.json", set()
    write_json(path, {"text": "0" * 50_000})
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(len(read_json(path)["text"]))

    reader = threading.Thread(target=read)
    reader.start()
    for digit in range(1, 15):
        write_json(path, {"text": str(digit % 10) * 50_000})
    stop.set()
    reader.join()
    assert seen == {50_000}


@pytest.mark.parametrize("content", [b'{"half": ', b"", b"[1, 2]", b"\xff\xfe", b"null"])
def test_law_9_a_damaged_json_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "arm.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged") as caught:
        read_json(path)
    assert str(path) in str(caught.value)


def test_law_9_a_damaged_line_and_a_missing_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n{"a": ')
    with pytest.raises(InputError, match=r"answers\.jsonl:3"):
        read_jsonl(path)
    for read in (read_json, read_jsonl):
        with pytest.raises(InputError, match="missing"):
            read(tmp_path / "nothing")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWORTH_CACHE", str(tmp_path))
    return tmp_path


def fill(folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"content of a")
    (folder / "b.txt").write_text("b")


def test_a_cached_folder_is_built_once_and_carries_its_manifest(root: Path) -> None:
    folder = cached_folder("models/x", fill, needed_bytes=10)
    assert folder == root / "models" / "x"
    assert names(folder) == ["a.bin", "b.txt", MANIFEST]
    assert manifest_problem(folder) == ""
    assert cached_folder("models/x", lambda folder: pytest.fail("built twice"), needed_bytes=10) == folder


@pytest.mark.parametrize("fault", [RuntimeError("no"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_law_9_a_failed_build_leaves_nothing_and_the_next_one_succeeds(root: Path, fault: BaseException) -> None:
    def half(folder: Path) -> None:
        fill(folder)
        raise fault

    with pytest.raises(MachineError if isinstance(fault, OSError) else type(fault)):
        cached_folder("x", half, needed_bytes=10)
    assert names(root) == [".x.lock"]
    assert manifest_problem(cached_folder("x", fill, needed_bytes=10)) == ""


def test_law_9_leftovers_of_a_killed_build_are_cleaned(root: Path) -> None:
    leftover = root / ".x.tmp-12345678"
    leftover.mkdir()
    (leftover / "half").write_text("half")
    unfinished = root / "x"  # a folder without a manifest is not finished
    unfinished.mkdir()
    (unfinished / "old").write_text("old")
    other = root / ".xyz.tmp-1"
    other.mkdir()
    cached_folder("x", fill, needed_bytes=10)
    assert names(root) == [".x.lock", ".xyz.tmp-1", "x"]
    assert names(root / "x") == ["a.bin", "b.txt", MANIFEST]


def test_too_little_disk_is_a_machine_error_before_anything_is_built(root: Path) -> None:
    with pytest.raises(MachineError, match=r"are needed here.*TUNEWORTH_CACHE") as caught:
        cached_folder("x", lambda folder: pytest.fail("built"), needed_bytes=10**18)
    assert caught.value.exit_code == 3
    assert names(root) == []


def test_law_9_two_processes_at_once_build_once(root: Path) -> None:
    code = f"""
import time
from pathlib import Path
from tuneworth.store.cache import cached_folder, manifest_problem
def build(folder):
    with open({str(root / "builds")!r}, "a") as log:
        log.write("built\\n")
    time.sleep(0.4)
    (folder / "a").write_text("x")
folder = cached_folder("x", build, needed_bytes=1)
assert manifest_problem(folder) == ""
"""
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert (root / "builds").read_text() == "built\n"


@pytest.mark.parametrize("damage", ["flipped", "shorter", "gone"])
def test_law_9_a_damaged_file_of_a_manifest_is_named(tmp_path: Path, damage: str) -> None:
    fill(tmp_path)
    write_manifest(tmp_path)
    assert manifest_problem(tmp_path) == ""
    path = tmp_path / "a.bin"
    if damage == "flipped":
        path.write_bytes(b"Content of a")
    elif damage == "shorter":
        path.write_bytes(b"content")
    else:
        path.unlink()
    assert manifest_problem(tmp_path) == ("a.bin is missing" if damage == "gone" else "a.bin is damaged")


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    fill(tmp_path)
    write_manifest(tmp_path)
    (tmp_path / MANIFEST).write_bytes((tmp_path / MANIFEST).read_bytes()[:40])
    with pytest.raises(InputError, match="damaged") as caught:
        manifest_problem(tmp_path)
    assert MANIFEST in str(caught.value)


def test_sha256_is_the_standard_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_CHUNK_BYTES", 2)
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(tmp_path / "x").startswith("ba7816bf8f01cfea414140de5dae2223b00361a3")
