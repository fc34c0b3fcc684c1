"""LAW 9 for data sets: versions are whole or absent, shared rows cost once, damage is named, writers take turns."""

from __future__ import annotations

import fcntl
import hashlib
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneworth.errors import InputError, MachineError, RunBusyError
from tuneworth.store import registry as registry_module
from tuneworth.store.packs import Part
from tuneworth.store.registry import Registry, Version, version_hash
from tuneworth.task import Reference

LINEAGE = {"how": "add", "parent": None, "sources": [], "note": None}


def rows(count: int, salt: str = "", start: int = 0) -> list[bytes]:
    return [json.dumps({"n": n, "text": f"row {n} {salt}"}).encode() for n in range(start, start + count)]


def put(registry: Registry, name: str = "set", **parts: list[bytes]) -> Version:
    return registry.add(name, parts, ["n", "text"], LINEAGE)[0]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "home")


def test_versions_are_named_by_content_and_give_back_their_rows(registry: Registry) -> None:
    first = put(registry, train=rows(30), test=rows(5, "test"))
    second = put(registry, train=rows(31), test=rows(5, "test"))
    assert (first.number, second.number) == (1, 2)
    assert registry.rows(first, "train") == rows(30)
    assert registry.rows(second, "test") == rows(5, "test")
    again, is_new = registry.add("set", {"test": rows(5, "test"), "train": rows(30)}, ["n"], LINEAGE)
    assert (again, is_new) == (first, False)
    assert put(registry, "other", train=rows(30), test=rows(5, "test")).version == first.version
    assert [v.number for v in registry.versions("set")] == [1, 2]
    for reference in ("latest", "v2", second.version[:6], second.version):
        assert registry.find(Reference("set", reference)) == second


def test_order_and_part_of_rows_are_content(registry: Registry) -> None:
    versions = [
        put(registry, train=rows(3)),
        put(registry, train=rows(3)[::-1]),
        put(registry, test=rows(3)),
        put(registry, train=rows(2), test=rows(1, start=2)),
    ]
    assert len({version.version for version in versions}) == 4


@settings(max_examples=15)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=1, max_size=4))
def test_whatever_versions_share_each_gives_back_exactly_its_rows(drawn: list[list[int]]) -> None:
    with tempfile.TemporaryDirectory() as home:
        registry = Registry(Path(home))
        wanted = [[f'{{"n":{n}}}'.encode() for n in numbers] for numbers in drawn]
        versions = [put(registry, train=part) for part in wanted]
        assert [registry.rows(version, "train") for version in versions] == wanted
        assert [Version.from_json(version.to_json()) for version in versions] == versions
        assert registry.verify() == []


def test_a_version_that_differs_in_10_of_10000_rows_costs_those_rows_and_a_record(registry: Registry) -> None:
    base = rows(10_000, "with about as many letters as a short question to a bank has")
    put(registry, train=base)
    before = registry.stored_bytes()
    changed = list(base)
    for place in random.Random(0).sample(range(10_000), 10):
        changed[place] = json.dumps({"n": place, "text": f"changed {place}"}).encode()
    put(registry, train=changed)
    grown = registry.stored_bytes() - before
    assert grown < 0.01 * before, f"{grown:,} of {before:,} bytes"


def test_law_9_one_flipped_bit_anywhere_is_found_and_the_version_and_file_are_named(registry: Registry) -> None:
    put(registry, "mine", train=rows(20), test=rows(4, "test"))
    put(registry, "mine", train=rows(21))
    put(registry, "other", train=rows(5, "other"))
    files = sorted(path for path in registry.folder.rglob("*.json*"))
    assert len(files) == 1 + 3 + 3  # the format, packs, records
    chance = random.Random(1)
    for path in files:
        content = path.read_bytes()
        for _ in range(40):
            place, bit = chance.randrange(len(content)), 1 << chance.randrange(8)
            path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
            if path.name == "registry.json":
                with pytest.raises(InputError, match="damaged") as caught:
                    registry.verify()
                assert str(path) in str(caught.value)
                continue
            damaged = registry.verify()
            assert [damage.file for damage in damaged] == [str(path)]
            assert all(name.startswith(("mine@", "other@")) for name in damaged[0].versions)
            assert damaged[0].versions
        path.write_bytes(content)
    assert registry.verify() == []


def test_law_9_damaged_rows_are_never_given_out_and_name_their_version(registry: Registry) -> None:
    version = put(registry, train=rows(20))
    (pack,) = (registry.folder / "packs").glob("*.jsonl")
    pack.write_bytes(pack.read_bytes().replace(b"row 7", b"row 8"))
    with pytest.raises(InputError, match="damaged") as caught:
        registry.rows(version, "train")
    assert str(pack) in str(caught.value)
    assert str(version) in str(caught.value)
    pack.unlink()
    with pytest.raises(InputError, match="missing"):
        registry.rows(version, "train")


def test_law_9_adding_the_source_again_mends_a_damaged_version(registry: Registry) -> None:
    first = put(registry, train=rows(20))
    second = put(registry, train=rows(21))
    record = registry.folder / "names" / "set" / f"{first.version}.json"
    pack = registry.packs.path(next(iter(first.packs)))
    for path in (record, pack):
        path.write_bytes(path.read_bytes().replace(b"row 1", b"row 2").replace(b"lineage", b"linkage"))
        assert registry.verify()
    put(registry, train=rows(20))
    put(registry, train=rows(21))
    assert registry.verify() == []
    assert {v.version for v in registry.versions("set")} == {first.version, second.version}


KILLER = """
import os, shutil, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from store.test_registry_laws import put, rows
from tuneworth.store.registry import Registry

base, place = Path({base!r}), Path({place!r})
left = 0
fdopen = os.fdopen

def event():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def guarded(call):
    def called(*args, **kwargs):
        event()
        return call(*args, **kwargs)
    return called

class HalfWriter:
    def __init__(self, file): self.file = file
    def __enter__(self): return self
    def __exit__(self, *error): self.file.close()
    def write(self, content):
        self.file.write(content[: len(content) // 2]); self.file.flush()
        event()
        self.file.write(content[len(content) // 2 :])
    def __getattr__(self, name): return getattr(self.file, name)

points = 0
while True:
    points += 1
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(base, place)
    child = os.fork()
    if child == 0:
        left = points
        for name in ("fsync", "replace", "rename", "mkdir", "unlink"):
            setattr(os, name, guarded(getattr(os, name)))
        os.fdopen = lambda *args, **kwargs: HalfWriter(fdopen(*args, **kwargs))
        put(Registry(place), "set", train=rows(300, "new"), test=rows(9, "test"))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    registry = Registry(place)
    assert registry.verify() == [], (points, registry.verify())
    numbers = [v.number for v in registry.versions("set")]
    assert numbers in ([1], [1, 2]), (points, numbers)
    assert registry.rows(registry.versions("set")[0], "train") == rows(40)
    if os.WIFEXITED(status):
        assert numbers == [1, 2]
        break
    made = put(registry, "set", train=rows(300, "new"), test=rows(9, "test"))
    assert made.number == 2 and registry.rows(made, "test") == rows(9, "test")
    stray = [p for p in registry.folder.rglob("*") if p.name.endswith(".tmp")]
    assert stray == [] and len(list((registry.folder / "packs").iterdir())) == 2, (points, stray)
print(points - 1)
"""


@pytest.mark.parametrize("fresh", [False, True], ids=["into a registry", "the first version"])
def test_law_9_killed_at_any_write_rename_or_fsync_nothing_is_half_written_or_lost(tmp_path: Path, fresh: bool) -> None:
    put(Registry(tmp_path / "base"), train=rows(40))
    if fresh:  # killed while the registry itself is made
        code = KILLER.replace(
            "assert numbers in ([1], [1, 2]), (points, numbers)", "numbers = [1, *(n + 1 for n in numbers)]"
        )
        code = code.replace('assert registry.rows(registry.versions("set")[0], "train") == rows(40)', "pass")
        code = code.replace("made.number == 2", "made.number == 1").replace(")) == 2, (points", ")) == 1, (points")
        (tmp_path / "base").rename(tmp_path / "unused")
        (tmp_path / "base").mkdir()
    else:
        code = KILLER
    tests = str(Path(__file__).resolve().parents[1])
    code = code.format(tests=tests, base=str(tmp_path / "base"), place=str(tmp_path / "place"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) >= 8  # two files, each written, synced, renamed, and its folder synced


def test_law_9_writers_at_once_take_turns_and_lose_nothing(tmp_path: Path) -> None:
    code = """
import sys
import tempfile
from pathlib import Path
sys.path.insert(0, {tests!r})
from store.test_registry_laws import put, rows
from tuneworth.store.registry import Registry
for n in range(6):
    put(Registry(Path({home!r})), "set", train=rows(10, f"{{sys.argv[1]}}-{{n}}"))
"""
    code = code.format(tests=str(Path(__file__).resolve().parents[1]), home=str(tmp_path))
    running = [subprocess.Popen([sys.executable, "-c", code, str(n)]) for n in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    registry = Registry(tmp_path)
    assert [version.number for version in registry.versions("set")] == list(range(1, 19))
    assert registry.verify() == []


def test_a_writer_that_cannot_get_its_turn_says_so(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    put(registry, train=rows(3))
    monkeypatch.setattr(registry_module, "WAIT_SECONDS", 0.0)
    with (registry.folder / ".lock").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(RunBusyError, match="another process works on the registry") as caught:
            put(registry, train=rows(4))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("limit", [0, 300, 5000])
def test_law_9_a_full_disk_leaves_the_registry_as_it_was_and_names_path_and_bytes(tmp_path: Path, limit: int) -> None:
    registry = Registry(tmp_path)
    put(registry, train=rows(10))
    before = {path: path.read_bytes() for path in registry.folder.rglob("*") if path.is_file()}
    code = f"""
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).resolve().parents[1])!r})
from store.test_registry_laws import put, rows
from tuneworth.errors import MachineError
from tuneworth.store.registry import Registry
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    put(Registry(Path({str(tmp_path)!r})), "set", train=rows(2000))
except MachineError as error:
    print(error.exit_code, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("3 "), done.stderr
    assert str(registry.folder / "packs") in done.stdout
    assert "bytes" in done.stdout
    assert {path: path.read_bytes() for path in registry.folder.rglob("*") if path.is_file()} == before
    assert registry.verify() == []


def test_a_removed_version_is_explained_and_rows_of_others_stay(registry: Registry) -> None:
    first, second = put(registry, train=rows(20)), put(registry, train=rows(25))
    registry.remove(first)
    assert registry.versions("set") == [second]
    with pytest.raises(InputError, match="was removed on") as caught:
        registry.find(Reference("set", "v1"))
    assert "v2" in str(caught.value)
    assert registry.rows(second, "train") == rows(25)
    assert registry.verify() == []
    assert put(registry, train=rows(3)).number == 3  # numbers are never given twice
    before = registry.stored_bytes()
    registry.remove(second)
    assert registry.stored_bytes() < before
    assert put(registry, train=rows(20)).number == 4


@pytest.mark.parametrize(
    "name", ["", "../x", "a/b", "a\0b", "x" * 300, "Häuser", "Upper", "a.b", "-x", ".", "con:", "a b", "a\n"]
)
def test_hostile_names_are_refused_with_the_rule_and_touch_nothing(registry: Registry, name: str) -> None:
    with pytest.raises(InputError, match="cannot name a data set") as caught:
        put(registry, name, train=rows(3))
    assert "lower-case letters" in str(caught.value)
    assert len(str(caught.value)) < 400
    assert not registry.folder.exists()


def test_what_does_not_exist_is_an_input_error_that_names_what_does(registry: Registry) -> None:
    with pytest.raises(InputError, match="none is registered yet"):
        registry.find(Reference("snips"))
    first = put(registry, "snips", train=rows(3))
    with pytest.raises(InputError, match="did you mean 'snips'"):
        registry.find(Reference("snip"))
    with pytest.raises(InputError, match=rf"there is no such version.*v1 \({first.version[:12]}\)"):
        registry.find(Reference("snips", "v9"))
    assert not registry.folder.with_name("names").exists()


def test_a_registry_of_a_newer_format_is_refused_politely_and_left_alone(registry: Registry) -> None:
    version = put(registry, train=rows(3))
    for path, schema in (
        (registry.folder / "registry.json", "tuneworth.registry/2"),
        (registry.folder / "names" / "set" / f"{version.version}.json", "tuneworth.dataset/7"),
    ):
        content = path.read_bytes()
        later = {**json.loads(content), "schema": schema}
        later.pop("sha256")
        registry_module._write_sealed(path, later)
        for attempt in (lambda: registry.versions("set"), registry.verify):
            with pytest.raises(MachineError, match="newer tuneworth") as caught:
                attempt()
            assert "update tuneworth" in str(caught.value)
        with pytest.raises(MachineError, match="newer tuneworth"):
            put(registry, train=rows(4))
        assert json.loads(path.read_bytes())["schema"] == schema
        path.write_bytes(content)
    assert registry.verify() == []


def test_symbolic_links_inside_the_registry_are_not_followed(registry: Registry, tmp_path: Path) -> None:
    put(registry, train=rows(3))
    outside = tmp_path / "outside"
    outside.mkdir()
    (registry.folder / "names" / "linked").symlink_to(outside)
    with pytest.raises(InputError, match="symbolic link"):
        put(registry, "linked", train=rows(3))
    assert list(outside.iterdir()) == []


def test_a_record_cannot_name_a_file_outside_the_packs(registry: Registry) -> None:
    part = put(registry, train=rows(3)).parts["train"].to_json()
    with pytest.raises(ValueError, match="no SHA-256"):
        Part.from_json({**part, "packs": ["../../etc/passwd"]})


def test_the_hash_of_a_version_is_the_documented_one(registry: Registry) -> None:
    version = put(registry, train=[b'{"a":1}'], test=[b'{"a":2}'])
    train, test = (hashlib.sha256(row + b"\n").hexdigest() for row in (b'{"a":1}', b'{"a":2}'))
    document = json.dumps({"test": test, "train": train}, separators=(",", ":"))
    assert version.version == version_hash(version.parts) == hashlib.sha256(document.encode()).hexdigest()


def test_reading_a_registry_that_is_not_there_makes_none(registry: Registry) -> None:
    assert registry.names() == []
    assert registry.verify() == []
    assert not registry.folder.parent.exists()
