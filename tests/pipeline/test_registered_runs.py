"""One registered version feeds several tasks and models, and every run says exactly which version it was."""

from __future__ import annotations

import importlib.util
import json
import random
from pathlib import Path
from typing import Any

import pytest

from commands import command
from tiny import tiny_model, write_tokenizer
from tuneworth.data.registered import data_file, pinned
from tuneworth.errors import InputError
from tuneworth.pipeline import running
from tuneworth.pipeline.datasets import add_files, difference, export
from tuneworth.store.cache import cache_folder
from tuneworth.store.registry import Registry
from tuneworth.task import Columns, Reference, load_task, parse_reference

PREPARE = Path(__file__).resolve().parents[2] / "examples" / "snips" / "prepare.py"
SLOTS = {"play": "song", "book": "table", "rate": "stars"}


def write_rows(path: Path, count: int, seed: int) -> Path:
    """Rows with a text, an intent, and the slots as JSON text, in the shape of examples/snips."""
    chance = random.Random(seed)
    rows = []
    for number in range(count):
        intent = chance.choice(sorted(SLOTS))
        value = f"{chance.choice(['red', 'blue', 'green'])} {number % 7}"
        text = f"{chance.choice(['please', 'now', 'just'])} {intent} {value} {seed}{number}"
        rows.append({"text": text, "intent": intent, "slots": json.dumps({SLOTS[intent]: [value]})})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with one set `mini`, and two tiny models."""
    place = tmp_path_factory.mktemp("registered")
    for seed in (0, 1):
        tiny_model(seed=seed).float().save_pretrained(place / f"model-{seed}")
        write_tokenizer(place / f"model-{seed}")
    write_rows(place / "train.jsonl", 140, 1)
    write_rows(place / "test.jsonl", 40, 2)
    return place


@pytest.fixture(autouse=True)
def home(place: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("TUNEWORTH_HOME", str(place / "home"))
    monkeypatch.setenv("TUNEWORTH_CACHE", str(place / "cache"))
    monkeypatch.chdir(place)
    add_files("mini", {"train": [place / "train.jsonl"], "test": [place / "test.jsonl"]}, Columns())
    return Registry()


def task(place: Path, output: str, model: int, **changes: Any) -> Any:
    settings = {
        "data.train": "mini@v1", "data.columns.input": "text", "data.columns.output": output, "training.epochs": 4,
        "models": [str(place / f"model-{model}")], "budget": "10m", "arms": ["classical", "zero-shot", "lora-short"],
    }  # fmt: skip
    return load_task(None, settings | changes)


def test_one_version_feeds_two_tasks_and_two_models_and_each_run_names_it(place: Path, home: Registry) -> None:
    version = home.find(Reference("mini"))
    intents = running.run(task(place, "intent", 0), out=place / "intents")
    other = running.run(task(place, "intent", 1), out=place / "intents-other-model")
    slots = running.run(task(place, "slots", 0, kind="generation", metric="exact-match"), out=place / "slots")
    ids = []
    for run in (intents, other, slots):
        assert run.verdict["provenance"]["data_set"] == f"mini@{version.version}"
        assert run.verdict["test_rows"] == 40
        splits = json.loads((run.folder.splits / "splits.json").read_text())
        assert splits["data_set"] == {"name": "mini", "version": version.version, "number": 1}
        assert f"train: mini@{version.version}:train" in run.folder.task.read_text()
        assert f"mini@{version.version}" in run.report.read_text()
        assert {arm["status"] for arm in run.verdict["arms"]} == {"done"}
        ids.append((run.folder.splits / "test.jsonl").read_text().count("\n"))
    assert ids == [40, 40, 40]
    assert (intents.verdict["metric"], slots.verdict["metric"]) == ("accuracy", "exact-match")
    assert intents.verdict["provenance"]["data"] == slots.verdict["provenance"]["data"]
    assert not list(place.glob("home/**/*.tmp"))


def test_a_run_keeps_its_version_when_the_set_goes_on(place: Path, home: Registry, tmp_path: Path) -> None:
    settings = {"data.train": "mini"}
    running.run(task(place, "intent", 0, **settings), out=tmp_path / "run", until="split")
    before = (tmp_path / "run/splits/train.jsonl").read_bytes()
    write_rows(tmp_path / "more.jsonl", 150, 3)
    newer, _ = add_files("mini", {"train": [tmp_path / "more.jsonl"]}, Columns())
    try:
        running.resume(tmp_path / "run", until="plan")  # latest is another version now; the run does not care
        assert (tmp_path / "run/splits/train.jsonl").read_bytes() == before
        with pytest.raises(InputError, match="another task, data or setting"):
            running.run(task(place, "intent", 0, **settings), out=tmp_path / "run", until="split")
    finally:
        home.remove(newer)


def test_a_registered_set_and_its_exported_files_give_the_same_splits(
    place: Path, home: Registry, tmp_path: Path
) -> None:
    export(home.find(Reference("mini")), "", tmp_path / "out")
    files = {"data.train": str(tmp_path / "out/train.jsonl"), "data.test": str(tmp_path / "out/test.jsonl")}
    running.run(task(place, "intent", 0), out=tmp_path / "a", until="split")
    running.run(task(place, "intent", 0, **files), out=tmp_path / "b", until="split")
    for part in ("train", "validation", "test"):
        rows = [
            [
                {**json.loads(line), "file": ""}
                for line in (tmp_path / run / f"splits/{part}.jsonl").read_text().splitlines()
            ]
            for run in ("a", "b")
        ]
        assert rows[0] == rows[1]


def test_near_twins_are_on_one_side_of_a_split(place: Path, tmp_path: Path) -> None:
    chance = random.Random(5)
    rows = []
    for number in range(60):  # sentences of random words, so that only twins are alike
        words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(7)]
        rows.append({"text": " ".join(words), "intent": "ab"[number % 2]})
        rows.append({"text": " ".join([*words, "please"]), "intent": "ab"[number % 2]})
    chance.shuffle(rows)
    (tmp_path / "twins.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = task(place, "intent", 0, **{"data.train": str(tmp_path / "twins.jsonl")})
    run = running.run(job, out=tmp_path / "r", until="split")
    sides: dict[str, set[str]] = {}
    for part in ("train", "validation", "test"):
        for line in (run.folder.splits / f"{part}.jsonl").read_text().splitlines():
            text = json.loads(line)["messages"][0]["content"]
            sides.setdefault(text.removesuffix(" please"), set()).add(part)
    assert len(sides) == 60
    assert {len(found) for found in sides.values()} == {1}
    assert set.union(*sides.values()) == {"train", "validation", "test"}


def test_a_task_file_names_a_set_a_version_and_a_part(place: Path, home: Registry, tmp_path: Path) -> None:
    version = home.find(Reference("mini")).version
    (tmp_path / "task.yaml").write_text("data: {train: mini@v1, validation: 'mini@v1:test', test: other.csv}\n")
    data = pinned(load_task(tmp_path / "task.yaml")).data
    assert data.train == f"mini@{version}:train"
    assert data.validation == f"mini@{version}:test"
    assert data.test == str(tmp_path / "other.csv")
    with pytest.raises(InputError, match=r"has no part 'unlabelled'.*train, test"):
        pinned(load_task(None, {"data.train": "mini@v1:unlabelled"}))
    assert pinned(load_task(None, {"data.train": "mini@v1:train"})).data.test is None
    (tmp_path / "mini").write_text("text,label\n")
    (tmp_path / "task.yaml").write_text("data: {train: mini}\n")
    assert load_task(tmp_path / "task.yaml").data.train == str(tmp_path / "mini")  # a file goes first


@pytest.mark.parametrize("text", ["train.csv", "a/b", "../x", "A", "x@", "x@v", "x@12", "x@v1:none", "", "a b@v1"])
def test_what_is_no_reference_is_taken_for_a_file(text: str) -> None:
    assert parse_reference(text) is None


def test_a_damaged_copy_in_the_cache_is_written_again(place: Path) -> None:
    path = data_file("mini@v1:train")
    content = path.read_bytes()
    assert cache_folder() in path.parents
    path.write_bytes(content.replace(b"please", b"pleese"))
    assert data_file("mini@v1:train").read_bytes() == content


def test_damage_in_the_registry_stops_the_run_and_names_file_and_version(
    place: Path, home: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNEWORTH_CACHE", str(tmp_path))
    (pack,) = (home.folder / "packs").glob("*.jsonl")
    content = pack.read_bytes()
    pack.write_bytes(content.replace(b"please", b"pleasf", 1))
    try:
        assert command("audit", "mini", "--model", place / "model-0", "--input", "text", "--output", "intent") == 2
        shown = capsys.readouterr().err
        assert str(pack) in shown
        assert "mini@" in shown
        assert command("data", "verify", "--json") == 3
        found = json.loads(capsys.readouterr().out)
        assert found["damaged"][0]["file"] == str(pack)
        assert found["damaged"][0]["versions"][0].startswith("mini@")
    finally:
        pack.write_bytes(content)
    assert command("data", "verify") == 0


def test_every_command_of_the_registry_prints_one_json_document(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (place / "train.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "two.jsonl").write_text("".join([*lines[:100], *lines[:5]]))
    for words, key in [
        (("add", "second", tmp_path / "two.jsonl"), "version"),
        (("list",), "data_sets"),
        (("clean", "second", "--input", "text", "--output", "intent"), "changes"),
        (("show", "second", "--changes"), "first_rows"),
        (("diff", "second@v1", "second@v2"), "parts"),
        (("export", "second@v2", tmp_path / "out.jsonl"), "files"),
        (("verify",), "sound"),
        (("remove", "second@v1"), "removed"),
    ]:
        assert command("data", *words, "--json") == 0, words
        assert key in json.loads(capsys.readouterr().out), words
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 100
    assert command("data", "show", "second@v1") == 2
    assert "was removed on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["add", "../x", "train.jsonl"], ["'../x' cannot name a data set", "lower-case letters"]),
        (["add", "x" * 300, "train.jsonl"], ["cannot name a data set"]),
        (["add", "good", "missing.jsonl", "gone.jsonl"], ["missing.jsonl", "gone.jsonl", "no such file"]),
        (["show", "minj"], ["did you mean 'mini'?"]),
        (["show", "mini@v77"], ["no such version", "v1"]),
        (["export", "mini", "out.jsonl"], ["train, test", "mini@", "give a folder"]),
        (["export", "mini:test", "out.csv"], ["JSON Lines is what is written"]),
        (["clean", "mini", "--skip", "leaks-exact"], ["there is no repair 'leaks-exact'", "'leak-exact'"]),
        (["remove", "mini"], ["name it, as mini@v1"]),
    ],
)
def test_a_mistake_is_one_clear_message_and_leaves_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], words: list[str], parts: list[str]
) -> None:
    before = sorted(place.rglob("*"))
    assert command("data", *words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err
    assert all(part in shown.err for part in parts), shown.err
    assert sorted(place.rglob("*")) == before


def test_links_are_followed_to_the_file_and_any_format_gives_the_same_version(place: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (place / "train.jsonl").read_text().splitlines()]
    (tmp_path / "linked.jsonl").symlink_to(place / "train.jsonl")
    (tmp_path / "array.json").write_text(json.dumps(rows, indent=2))
    versions = {
        add_files(name, {"train": [path]}, Columns())[0].version
        for name, path in (("one", tmp_path / "linked.jsonl"), ("two", tmp_path / "array.json"))
    }
    assert len(versions) == 1


def test_real_snips_is_registered_once_and_read_by_both_tasks(place: Path, tmp_path: Path, shared_data: Path) -> None:
    spec = importlib.util.spec_from_file_location("prepare", PREPARE)
    assert spec is not None
    assert spec.loader is not None
    prepare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prepare)
    prepare.main(shared_data / "snips_nlu" / "slotgated_split", tmp_path)
    files = {part: [tmp_path / f"{file}.jsonl"] for part, file in (("train", "train"), ("validation", "valid"))}
    version, _ = add_files("snips", {**files, "test": [tmp_path / "test.jsonl"]}, Columns())
    assert {name: part.rows for name, part in version.parts.items()} == {"train": 13084, "validation": 700, "test": 700}
    for output, classes in (("intent", 7), ("slots", 0)):
        job = task(place, output, 0, **{"data.train": "snips", "kind": "auto" if classes else "generation"})
        run = running.run(job, out=tmp_path / output, until="split")
        splits = json.loads((run.folder.splits / "splits.json").read_text())
        assert splits["data_set"]["version"] == version.version
        assert len(splits["labels"]) == classes
        assert splits["rows"]["test"] == 700
    again, _ = add_files("snips", {"train": [tmp_path / "train.jsonl"]}, Columns())
    found = difference(version, again)
    assert (len(found["test"].only_in_first), found["train"].in_both) == (700, 13084)
