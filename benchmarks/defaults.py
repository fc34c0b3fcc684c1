"""What the settings by rule lose against the best of a search of twelve, on four sets of real rows.

    python benchmarks/defaults.py --json --keep DIR

For each set: `tuneworth plan --search` on train and validation; of its trials the one with the best score on all
validation rows that were asked (used by a run or not); then two whole trainings, with the settings by rule and with
the best, compared once, paired, on the same test rows. Prints {set: {"trials", "searched_rows", "whole_rows", "best":
{...}, "test": {"rows", "rule", "best", "lost", "interval"}, "seconds"}}; what is finished in --keep is not done
again. Data: the folder in TUNEWORTH_SHARED_DATA, or ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from small_sets import SETS, write_set

from tuneworth.console import ConsoleWatcher
from tuneworth.decision.statistics import compare
from tuneworth.pipeline import running
from tuneworth.store.atomic import read_json, read_jsonl, write_json
from tuneworth.task import load_task

ARM = "lora-short"


def measured(name: str, home: Path, rows: int, validation: int, test: int, budget: str) -> dict[str, Any]:
    """One set, from rows to the comparison on test."""
    start = time.monotonic()
    given: dict[str, Any] = {**write_set(name, home / "rows", rows, validation, test), "arms": [ARM], "budget": budget}

    def run(folder: str, until: str, **settings: Any) -> Path:
        job = load_task(None, {**given, **{key.replace("__", "."): value for key, value in settings.items()}})
        with ConsoleWatcher() as watcher:
            return Path(running.run(job, out=home / folder, until=until, watcher=watcher).path)

    search = read_json(run("search", "plan", training__search=True) / "search.json")
    ended = [one for one in search["trials"] if len(one["lengths"]) == len(search["rows"])]
    best = max(ended, key=lambda one: one["lengths"][-1]["score"])  # of equals the rule, which is the first
    by_rule = run("rule", "train")
    fixed = {f"training__{key}": value for key, value in best["settings"].items()}
    by_search = by_rule if best["status"] == "rule" else run("best", "train", **fixed)
    first, second = (_scores(folder) for folder in (by_search, by_rule))
    asked = sorted(first)
    assert asked == sorted(second)
    pair = compare(np.array([first[row] for row in asked]), np.array([second[row] for row in asked]), 0.05, 0.01)
    return {
        "trials": len(search["trials"]),
        "statuses": [one["status"] for one in search["trials"]],
        "searched_rows": search["rows"],
        "whole_rows": search["whole_rows"],
        "rule": ended[0]["settings"],
        "best": best["settings"],
        "validation": {"rule": ended[0]["lengths"][-1]["score"], "best": best["lengths"][-1]["score"]},
        "used": search["settings"],
        "why": search["why"],
        "epochs": {folder.name: read_json(folder / "arms" / ARM / "arm.json")["settings"]["epochs"]
                   for folder in (by_rule, by_search)},
        "test": {
            "rows": len(asked),
            "rule": sum(second.values()) / len(asked),
            "best": sum(first.values()) / len(asked),
            "lost": pair.difference,
            "interval": list(pair.interval),
        },
        "search_seconds": search["seconds"],
        "seconds": time.monotonic() - start,
    }  # fmt: skip


def _scores(run: Path) -> dict[str, float]:
    return {row["id"]: float(row["score"]) for row in read_jsonl(run / "arms" / ARM / "answers.jsonl")}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--only", nargs="*", choices=list(SETS), default=list(SETS))
    words.add_argument("--rows", type=int, default=200, help="training rows at most, of each set")
    words.add_argument("--validation", type=int, default=240)
    words.add_argument("--test", type=int, default=600)
    words.add_argument("--budget", default="60m", help="of each of the three runs; 0.4 of it is the search's at most")
    words.add_argument("--keep", type=Path, help="a folder for the runs, to go on where it was stopped")
    words.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    chosen = words.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in chosen.only:
            home = (chosen.keep or Path(temporary)).resolve() / name
            kept = home / "measured.json"
            if not kept.is_file():
                shape = (chosen.rows, chosen.validation, chosen.test)
                write_json(kept, measured(name, home, *shape, chosen.budget))
            found[name] = read_json(kept)
            test = found[name]["test"]
            low, high = test["interval"]
            print(
                f"{name}: rule {test['rule']:.3f}, best of {found[name]['trials']} {test['best']:.3f}, lost "
                f"{100 * test['lost']:.1f} points ({100 * low:.1f} to {100 * high:.1f})",
                file=sys.stderr,
            )
    if chosen.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
