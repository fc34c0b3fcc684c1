"""The audit of data that is too large to be held in memory: files are looked at piece by piece and not split."""

from __future__ import annotations

from pathlib import Path

from tuneworth.data import Source, Split, audit_files, open_source
from tuneworth.data.registered import data_file
from tuneworth.data.requests import read_requests
from tuneworth.evaluation.watching import Watcher
from tuneworth.models.sources import find_model
from tuneworth.pipeline.preparing import ruler_of, vectors_of
from tuneworth.rendering import Renderer
from tuneworth.store.atomic import write_json
from tuneworth.store.run import RunFolder
from tuneworth.task import Task

LARGE = 64 << 20
"""Bytes of data files from which the audit alone neither holds their rows in memory nor splits them."""


def is_large(task: Task) -> bool:
    """Whether the files of a task are so large that they are audited piece by piece."""
    return sum(path.stat().st_size for path in _files(task).values() if path.is_file()) > LARGE


def audit_large(task: Task, folder: RunFolder, watcher: Watcher) -> None:
    """Audit the files of a task and write audit.json, unless it is there."""
    if folder.audit.is_file():
        return
    files = _files(task)
    train = open_source(files.pop("train"), task.data.columns, task.kind)
    sources: dict[Split, Source] = {"train": train}
    for split, path in files.items():
        sources[split] = open_source(path, train.shape.columns, train.shape.kind)
    model = find_model(task.model)
    watcher.begin("auditing the data", sum(len(source.jobs) for source in sources.values()))
    ruler = ruler_of(Renderer.load(model.path), model.context_tokens)
    traffic = read_requests(Path(task.data.traffic), train.shape.input) if task.data.traffic else ()
    found = audit_files(
        sources, ruler=ruler, vectorise=vectors_of(watcher), traffic=traffic, seed=task.seed, advance=watcher.advance
    )
    write_json(folder.audit, found.to_json())
    for sentence in train.shape.why:
        watcher.note(sentence)


def _files(task: Task) -> dict[Split, Path]:
    names: dict[Split, str | None] = {
        "train": task.data.train, "validation": task.data.validation, "test": task.data.test,
    }  # fmt: skip
    return {split: data_file(name) for split, name in names.items() if name is not None}
