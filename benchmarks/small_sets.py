"""Four sets of real rows: intents of banking77 and snips, slots of snips, spam of sms_spam; and small files of them.

What `prompting.py` and `extraction.py` ask, and `defaults.py` and `bakeoff.py` train on many times over. Rows are
drawn with a seed, stratified by label, and no text is in two parts. Data: the folder in TUNEWORTH_SHARED_DATA, or
../shared/data.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tuneworth.console import ConsoleWatcher
from tuneworth.pipeline import running
from tuneworth.store.atomic import read_json, read_jsonl, write_json
from tuneworth.task import load_task

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("TUNEWORTH_SHARED_DATA") or HERE.parents[1] / "shared" / "data")
Rows = list[dict[str, Any]]
ARM = "lora-short"


def _banking77() -> tuple[Rows, Rows]:
    parts = []
    for part in ("train", "test"):
        with (SHARED / "banking77" / f"{part}.csv").open(newline="", encoding="utf-8") as file:
            parts.append([{"text": row["text"], "label": row["category"]} for row in csv.DictReader(file)])
    return parts[0], parts[1]


def _snips_intents() -> tuple[Rows, Rows]:
    parts = []
    for part in ("train", "test"):
        folder = SHARED / "snips_nlu" / "slotgated_split" / part
        texts = (folder / "seq.in").read_text("utf-8", errors="replace").splitlines()
        labels = (folder / "label").read_text("utf-8").splitlines()
        parts.append([{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)])
    return parts[0], parts[1]


def _snips_slots() -> tuple[Rows, Rows]:
    spec = importlib.util.spec_from_file_location("prepare", HERE.parent / "examples" / "snips" / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    prepare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prepare)
    # Without the intent, which would be taken for the wanted answer.
    train, test = (
        [
            {"text": row["text"], "slots": row["slots"]}
            for row in prepare.rows_of(SHARED / "snips_nlu" / "slotgated_split" / part)
        ]
        for part in ("train", "test")
    )
    return train, test


def _sms_spam() -> tuple[Rows, Rows]:
    lines = (SHARED / "sms_spam" / "sms.tsv").read_text("utf-8").splitlines()
    rows = [{"text": text, "label": label} for label, text in (line.split("\t", 1) for line in lines)]
    random.Random(0).shuffle(rows)
    return rows[: len(rows) // 2], rows[len(rows) // 2 :]


SETS: dict[str, Callable[[], tuple[Rows, Rows]]] = {
    "banking77": _banking77,
    "snips-intents": _snips_intents,
    "snips-slots": _snips_slots,
    "sms_spam": _sms_spam,
}


def write_set(name: str, folder: Path, train: int, validation: int, test: int, seed: int = 0) -> dict[str, str]:
    """Write `name` with so many rows at most in each part; returns the settings of a task that name its files."""
    rows, held_out = SETS[name]()
    chance = random.Random(seed)
    known: set[str] = set()
    asked = _drawn(held_out, test, chance, known)
    learnt = _drawn(rows, train + validation, chance, known)
    chance.shuffle(learnt)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {}
    for part, drawn in (("train", learnt[validation:]), ("validation", learnt[:validation]), ("test", asked)):
        path = folder / f"{part}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in drawn), "utf-8")
        settings[f"data.{part}"] = str(path)
    return settings


def run(given: dict[str, Any], out: Path, until: str) -> Path:
    """Run the task `given` through the stage `until`, or go on with it; the folder of the run."""
    with ConsoleWatcher() as watcher:
        return Path(running.run(load_task(None, given), out=out, until=until, watcher=watcher).path)


def scores_of(run: Path) -> dict[str, float]:
    """The score of each test row."""
    return {row["id"]: float(row["score"]) for row in read_jsonl(run / "arms" / ARM / "answers.jsonl")}


def seconds_of(run: Path) -> dict[str, float]:
    """What the training was planned to take and took: whole seconds, and seconds a row of its steps alone."""
    plan, record = read_json(run / "plan.json"), read_json(run / "arms" / ARM / "arm.json")
    planned, steps = plan["trainings"][ARM], record["settings"]["steps"]
    taken = [row for row in read_jsonl(run / "arms" / ARM / "training" / "metrics.jsonl") if "loss" in row]
    return {
        "planned": planned["seconds"] * steps / planned["steps"],
        "took": record["build_seconds"],
        "planned_a_row": plan["settings"][f"{ARM}.train_seconds_per_row"]["value"],
        "took_a_row": sum(row["step_seconds"] for row in taken) / sum(row["rows"] for row in taken),
    }


def measure_sets(
    description: str | None, validation: int, budget: str, measured: Callable[..., dict[str, Any]],
    told: Callable[[dict[str, Any]], str],
) -> None:  # fmt: skip
    """The command line of a benchmark: `measured(home, task)` of each set, kept when it is done, and told in a line."""
    words = argparse.ArgumentParser(description=description)
    words.add_argument("--only", nargs="*", choices=list(SETS), default=list(SETS))
    words.add_argument("--rows", type=int, default=200, help="training rows at most, of each set")
    words.add_argument("--validation", type=int, default=validation)
    words.add_argument("--test", type=int, default=600)
    words.add_argument("--budget", default=budget, help="of each run")
    words.add_argument("--keep", type=Path, help="a folder for the runs, to go on where it was stopped")
    words.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    chosen = words.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in chosen.only:
            home = (chosen.keep or Path(temporary)).resolve() / name
            if not (home / "measured.json").is_file():
                files = write_set(name, home / "rows", chosen.rows, chosen.validation, chosen.test)
                task = {**files, "arms": [ARM], "budget": chosen.budget}
                write_json(home / "measured.json", measured(home, task))
            found[name] = read_json(home / "measured.json")
            print(f"{name}: {told(found[name])}", file=sys.stderr)
    if chosen.json:
        print(json.dumps(found))


def _drawn(rows: Iterable[dict[str, Any]], count: int, chance: random.Random, known: set[str]) -> Rows:
    """`count` rows whose texts are new to `known`, the labels in their shares."""
    by_label = defaultdict(list)
    for row in rows:
        text = row["text"].strip().casefold()
        if text not in known:
            known.add(text)
            by_label[row.get("label", "")].append(row)
    total = sum(map(len, by_label.values()))
    queue = []
    for label in sorted(by_label):
        of_label = by_label[label]
        chance.shuffle(of_label)
        queue += [((place + chance.random()) / len(of_label), row) for place, row in enumerate(of_label)]
    queue.sort(key=lambda pair: pair[0])
    return [row for _, row in queue[: min(count, total)]]
