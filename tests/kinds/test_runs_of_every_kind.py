"""Every kind of task from file to report on a tiny random model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kinds.rows import write_rows
from tiny import tiny_model, write_tokenizer
from tuneworth.pipeline import running
from tuneworth.pipeline.finished import Run
from tuneworth.store.atomic import write_json
from tuneworth.task import load_task

METRICS = {
    "multilabel": ("f1", "exact_set"),
    "extraction": ("exact-object", "schema_valid"),
    "generation": ("rouge-l", "chrf"),
    "reasoning": ("final-answer", "truncated_before_the_final_answer"),
    "chat": ("rouge-l", "length_ratio"),
    "tools": ("right-calls", "right_abstention"),
    "preference": ("pair-accuracy", "mean_margin"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_model().float().save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def run_of(kind: str, model: Path, folder: Path, **changes: Any) -> Run:
    train = write_rows(folder / "train.jsonl", kind, 48, 1)
    test = write_rows(folder / "test.jsonl", kind, 12, 2)
    settings = {
        "data.train": str(train),
        "data.test": str(test),
        "models": [str(model)],
        "arms": ["classical", "zero-shot", "lora-short"],
        "training.epochs": 1,
        "training.batch_size": 16,
        "training.precision": "fp32",
        "budget": "10m",
        **changes,
    }
    job = load_task(None, settings)
    done = running.run(job, out=folder / "run", until="evaluate")
    # The probes have their own tests; here they count as done.
    write_json(done.folder.probes, {"schema": "tuneworth.probes/1", "probes": {}, "arms_left_out": {}})
    return running.run(job, out=folder / "run")


def is_held_to_its_schema(done: Run, folder: Path) -> None:
    """Every model arm wrote nothing but objects of the schema, and writes the same when it is served."""
    assert done.plan["settings"]["decoding"]["value"] == "constrained"
    asked = [json.loads(line)["text"] for line in (folder / "test.jsonl").read_text().splitlines()]
    for name in ("zero-shot", "lora-short"):
        record = done.arm(name)
        assert (record["decoding"], record["metrics"]["schema_valid"]) == ("constrained", 1)
        lines = (done.folder.arm(name) / "answers.jsonl").read_text().splitlines()
        assert done.chat_with(name).chat([{"role": "user", "content": asked[0]}]) == json.loads(lines[0])["raw"]


@pytest.mark.parametrize("kind", METRICS)
def test_a_kind_runs_from_file_to_report(kind: str, model: Path, tmp_path: Path) -> None:
    done = run_of(kind, model, tmp_path)
    assert json.loads((done.folder.splits / "splits.json").read_text())["kind"] == kind
    main, further = METRICS[kind]
    assert done.verdict["metric"] == main
    for name in ("classical", "zero-shot", "lora-short"):
        record = done.arm(name)
        assert (record["status"], record["metric"]) == ("done", main), record["why"]
        assert further in record["metrics"]
        assert sum(record["finish_reasons"].values()) == record["rows"]
        lines = (done.folder.arm(name) / "answers.jsonl").read_text().splitlines()
        scores = [json.loads(line)["score"] for line in lines]
        assert record["score"] == pytest.approx(sum(scores) / len(scores))
    assert done.report.read_text().startswith("<!doctype html>")
    # What holds a training on preferences is read before its first step, and planned.
    assert (done.plan["trainings"]["lora-short"]["reading_seconds"] > 0) == (kind == "preference")
    if kind == "extraction":
        is_held_to_its_schema(done, tmp_path)
