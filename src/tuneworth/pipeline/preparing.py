"""Read, audit, clean and split the data, without loading torch; and the folder that a run lives in."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneworth.data import Example, Reading, Ruler, answer_key, audit, clean, read_examples, split
from tuneworth.data.clusters import near_clusters
from tuneworth.data.documents import documents_sha256
from tuneworth.data.registered import content_sha256, data_file, data_set_of, pinned
from tuneworth.data.requests import read_requests
from tuneworth.data.unlabelled import unseen_requests
from tuneworth.data.vectors import Vectorise, default_vectors
from tuneworth.errors import InputError, MachineError
from tuneworth.evaluation.watching import Watcher
from tuneworth.models.sources import check_model_id, find_model
from tuneworth.rendering import Renderer
from tuneworth.store.atomic import read_json, read_jsonl, write_json, write_jsonl
from tuneworth.store.run import RunFolder
from tuneworth.task import Task, commented_yaml, data_reference

_FILES = ("train", "validation", "test", "traffic")


@dataclass(frozen=True, slots=True)
class Prepared:
    """The rows after cleaning, and what was recognised about them."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    kind: str
    labels: tuple[str, ...]
    data_sha256: str
    data_set: dict[str, Any] | None
    columns: tuple[str, str] | None = None
    """The names of the input and answer columns, of a table."""
    unlabelled: tuple[Example, ...] = ()
    """Requests of `data.traffic` that are no row's, in a seeded order."""
    requests_left_out: Mapping[str, int] = field(default_factory=dict)
    schema: Mapping[str, Any] | None = None
    """The JSON Schema of extracted objects, once it is known."""


@contextlib.contextmanager
def new_run(task: Task, out: Path | None) -> Iterator[RunFolder]:
    """The folder of `task`'s run, locked: `out`, or `runs/<name>-<hash>`, so that the same task finds its run again.

    Raises InputError when the folder holds another run or a model id cannot be one, RunBusyError when it is in use.
    """
    for model in [] if task.models == "auto" else task.models:
        check_model_id(model)
    task = pinned(task)
    identity = _identity(task)
    train = _train_name(task)
    reference = data_reference(train)
    name = task.name or (reference.name if reference else Path(train).stem)
    folder = RunFolder(out or Path("runs") / f"{name}-{identity[:8]}")
    is_new = not folder.path.exists()
    with locked(folder):
        try:
            folder.claim(commented_yaml(_with_absolute_paths(task)), identity)
            yield folder
        except InputError:
            if is_new and not _prepared(folder):
                shutil.rmtree(folder.path)  # a mistake in the data leaves nothing half-written
                with contextlib.suppress(OSError):
                    Path("runs").rmdir()  # only if nothing else is in it
            raise


@contextlib.contextmanager
def locked(folder: RunFolder) -> Iterator[RunFolder]:
    """Work on `folder` alone inside the block. Raises RunBusyError."""
    folder.lock()
    try:
        yield folder
    finally:
        folder.unlock()


def prepare(task: Task, folder: RunFolder, watcher: Watcher) -> None:
    """Read, audit, clean and split the data, unless it is done; write audit.json and splits/."""
    if _prepared(folder):
        return
    watcher.begin("reading and auditing the data", 3)
    reading = read_examples(data_file(_train_name(task)), task.data.columns, task.kind)
    others = [
        _read_other(task.data.validation, reading, "validation"),
        _read_other(task.data.test, reading, "test"),
    ]
    dropped = [finding for read in (reading, *others) if read for finding in (*read.dropped, *read.noted)]
    traffic = read_requests(Path(task.data.traffic), reading.shape.input) if task.data.traffic else ()
    watcher.advance(1)
    kind = reading.shape.kind
    validation, test = (read.examples if read else () for read in others)
    watcher.advance(1)
    model = find_model(task.model)
    ruler = ruler_of(Renderer.load(model.path), model.context_tokens)
    found = audit(
        reading.examples, validation, test, kind=kind, ruler=ruler, vectorise=vectors_of(watcher),
        traffic=traffic, dropped=dropped, seed=task.seed,
    )  # fmt: skip
    cleaned = clean(reading.examples, validation, test, found)
    # Split after cleaning: what is removed as a repeat can then not stand on both sides.
    clusters = near_clusters([*reading.examples, *validation, *test], found.near)
    parts = split(
        cleaned.train, kind=kind, validation_given=bool(validation), test_given=bool(test), seed=task.seed,
        test_share=task.data.test_share, clusters=clusters,
    )  # fmt: skip
    rows = {
        "train": parts.train,
        "validation": cleaned.validation or parts.validation,
        "test": cleaned.test or parts.test,
    }
    labels = _labels(task, kind, rows["train"])
    for name, examples in rows.items():
        write_jsonl(folder.splits / f"{name}.jsonl", (example.to_json() for example in examples))
    asked = unseen_requests(traffic, rows["train"], [*rows["validation"], *rows["test"]], task.seed)
    write_jsonl(folder.splits / "unlabelled.jsonl", (request.to_json() for request in asked.rows))
    write_jsonl(folder.splits / "removed.jsonl", (removal.to_json() for removal in cleaned.removed))
    write_json(folder.audit, {"schema": "tuneworth.audit/1", **found.to_json()})
    shape = {
        "kind": kind,
        "labels": labels,
        "data_sha256": _data_sha256(task),
        "data_set": data_set_of(task),
        "shape": reading.shape.to_json(),
        "rows": {name: len(examples) for name, examples in rows.items()},
        "removed": len(cleaned.removed),
        "unlabelled": {"rows": len(asked.rows), "left_out": dict(asked.left_out)},
        "why": [*parts.why, *cleaned.notes],
    }
    write_json(folder.splits / "splits.json", {"schema": "tuneworth.splits/1", **shape})
    for sentence in (*reading.shape.why, *parts.why):
        watcher.note(sentence)
    watcher.advance(1)


def vectors_of(watcher: Watcher) -> Vectorise | None:
    """The table of word vectors; None, and a note, where it can not be had: the audit then leaves questions open."""
    try:
        return default_vectors()
    except MachineError as error:
        watcher.note(f"Domain and relevance are not measured: {error}")
        return None


def ruler_of(renderer: Renderer, context_tokens: int) -> Ruler:
    """Lengths as the model sees them: the tokens of the texts, and what the template writes around messages."""
    turn = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    first, second = (len(renderer.training(turn * turns).ids) for turns in (1, 2))
    each = math.ceil((second - first) / 2) - 1
    once = first - 2 - 2 * each

    def count_tokens(examples: Sequence[Example]) -> list[int]:
        texts = [
            [*(message.content for message in example.messages), answer_key(example), example.tools]
            for example in examples
        ]
        lengths = iter(renderer.text_lengths([text for parts in texts for text in parts]))
        return [
            once + each * (len(example.messages) + 1) + sum(next(lengths) for _ in parts)
            for example, parts in zip(examples, texts, strict=True)
        ]

    return Ruler(count_tokens, context_tokens, renderer.control_strings)


def _prepared(folder: RunFolder) -> bool:
    return (folder.splits / "splits.json").is_file()


def read_splits(folder: RunFolder) -> Prepared:
    """The rows that `prepare` wrote."""
    about = read_json(folder.splits / "splits.json")
    shape = about["shape"]
    names = ("train", "validation", "test", *(("unlabelled",) if "unlabelled" in about else ()))
    rows: dict[str, Any] = {
        name: tuple(Example.from_json(row) for row in read_jsonl(folder.splits / f"{name}.jsonl")) for name in names
    }
    return Prepared(
        **rows,
        kind=about["kind"],
        labels=tuple(about["labels"]),
        data_sha256=about["data_sha256"],
        data_set=about.get("data_set"),
        columns=(shape["input"], shape["output"]) if shape["rows"] == "table" and shape["input"] else None,
        requests_left_out=about.get("unlabelled", {}).get("left_out", {}),
    )


def _identity(task: Task) -> str:
    """A hash of everything that decides the run: the data by content, and the task but for where the data lies."""
    content = task.model_dump(mode="json", by_alias=True)
    content["files"] = [key for key in _FILES if content["data"].pop(key)]  # the same file may play another part
    content["documents"] = documents_sha256(Path(folder)) if (folder := content["data"].pop("documents")) else None
    if task.training.from_ is not None:
        content["training"]["from"] = str(Path(task.training.from_).resolve())
    text = json.dumps(content, sort_keys=True) + _data_sha256(task)
    return hashlib.sha256(text.encode()).hexdigest()


def _with_absolute_paths(task: Task) -> Task:
    found = {key: getattr(task.data, key) for key in _FILES}
    absolute = {
        key: str(Path(name).resolve()) if name and data_reference(name) is None else name for key, name in found.items()
    }
    absolute["documents"] = str(Path(task.data.documents).resolve()) if task.data.documents else None
    start = str(Path(task.training.from_).resolve()) if task.training.from_ else None
    return task.model_copy(
        update={
            "data": task.data.model_copy(update=absolute),
            "training": task.training.model_copy(update={"from_": start}),
        }
    )


def _train_name(task: Task) -> str:
    if task.data.train is None:
        raise InputError("no data is named", where="data.train", cure="give a data file: tuneworth run DATA")
    return task.data.train


def _data_sha256(task: Task) -> str:
    """One hash over all data files, so that a run knows its data by content."""
    _train_name(task)
    digest = hashlib.sha256()
    for name in (getattr(task.data, key) for key in _FILES):
        if name is not None:
            if data_reference(name) is None and not Path(name).exists():
                raise InputError("there is no such data file", where=name, cure="check the path")
            digest.update(content_sha256(name).encode())
    return digest.hexdigest()


def _read_other(name: str | None, reading: Reading, role: Any) -> Reading | None:
    return read_examples(data_file(name), reading.shape.columns, reading.shape.kind, role) if name else None


def _labels(task: Task, kind: str, train: tuple[Example, ...]) -> list[str]:
    if kind not in ("classification", "multilabel"):
        return []
    if task.prompt.labels != "auto":
        return list(task.prompt.labels)
    if kind == "multilabel":
        return sorted({label for example in train for label in example.labels})
    return sorted({example.answer for example in train})
