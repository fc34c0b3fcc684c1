"""What the settings by rule lose against the best of a search of twelve, on four sets of real rows.

    python benchmarks/defaults.py --json --keep DIR

For each set: `tuneworth plan --search` on train and validation; of its trials the one with the best score on all
validation rows that were asked (used by a run or not); then two whole trainings, with the settings by rule and with
the best, compared once, paired, on the same test rows. Prints {set: {"trials", "searched_rows", "whole_rows", "best":
{...}, "test": {"rows", "rule", "best", "lost", "interval"}, "seconds"}}; what is finished in --keep is not done
again. Data: the folder in TUNEWORTH_SHARED_DATA, or ../shared/data.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from small_sets import ARM, measure_sets, run, scores_of, seconds_of

from tuneworth.decision.statistics import compare
from tuneworth.store.atomic import read_json


def measured(home: Path, task: dict[str, Any]) -> dict[str, Any]:
    """One set, from the search to the comparison on test."""
    start = time.monotonic()
    search = read_json(run({**task, "training.search": True}, home / "search", "plan") / "search.json")
    ended = [one for one in search["trials"] if len(one["lengths"]) == len(search["rows"])]
    best = max(ended, key=lambda one: one["lengths"][-1]["score"])  # of equals the rule, which is the first
    by_rule = by_search = run(task, home / "rule", "train")
    if best["status"] != "rule":
        fixed = {f"training.{key}": value for key, value in best["settings"].items()}
        by_search = run({**task, **fixed}, home / "best", "train")
    first, second = scores_of(by_search), scores_of(by_rule)
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
        "training_seconds": {folder.name: seconds_of(folder) for folder in (by_rule, by_search)},
        "search_seconds": search["seconds"],
        "seconds": time.monotonic() - start,
    }  # fmt: skip


def told(one: dict[str, Any]) -> str:
    """One set in a line."""
    test = one["test"]
    low, high = test["interval"]
    return (
        f"rule {test['rule']:.3f}, best of {one['trials']} {test['best']:.3f}, lost {100 * test['lost']:.1f} points "
        f"({100 * low:.1f} to {100 * high:.1f})"
    )


if __name__ == "__main__":
    measure_sets(__doc__, 240, "60m", measured, told)
