"""Whether the race among models picks the right one, and what it costs: four candidates on four sets of real rows.

    python benchmarks/bakeoff.py --json --keep DIR

The candidates are SmolLM2-135M-Instruct and copies of it that are cut off after 20, 12 and 6 of its 30 decoder
blocks. For each set: a run with all four until its plan (the race), then a run of each candidate alone until its
training; test scores of the pick and of the best candidate are compared once, paired. Prints {set: {"picked", "test":
{candidate: score}, "behind": points of the pick behind the best, "interval", "cost": (race + training of the pick) /
training of the pick, "training_seconds": planned and taken}}. Data: the folder in TUNEWORTH_SHARED_DATA, or
../shared/data.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_sets import SETS, seconds_of, write_set
from transformers import AutoModelForCausalLM

from tuneworth.console import ConsoleWatcher
from tuneworth.decision.statistics import compare
from tuneworth.models.sources import find_model
from tuneworth.pipeline import running
from tuneworth.store.atomic import read_json, read_jsonl, write_json
from tuneworth.task import load_task
from tuneworth.task.schema import DEFAULT_MODEL

ARM = "lora-short"
BLOCKS = (20, 12, 6)
_COPIED = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")


def candidates(place: Path) -> list[str]:
    """The default model, and copies of it with fewer decoder blocks, written to `place` unless they are there."""
    whole = find_model(DEFAULT_MODEL).path
    found = [DEFAULT_MODEL]
    for blocks in BLOCKS:
        folder = place / f"smollm2-{blocks}-blocks"
        if not (folder / "config.json").is_file():
            model = AutoModelForCausalLM.from_pretrained(whole, dtype=torch.bfloat16)
            model.model.layers = model.model.layers[:blocks]
            model.config.num_hidden_layers = blocks
            if getattr(model.config, "layer_types", None):
                model.config.layer_types = model.config.layer_types[:blocks]
            for name in _COPIED:
                if (whole / name).is_file():
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / name).write_bytes((whole / name).read_bytes())
            model.save_pretrained(folder)
        found.append(str(folder))
    return found


def measured(name: str, home: Path, models: list[str], shape: tuple[int, int, int], budget: str) -> dict[str, Any]:
    """One set: the race, every candidate trained in full, and the pick against the best of them on test."""
    given: dict[str, Any] = {**write_set(name, home / "rows", *shape), "arms": [ARM], "budget": budget}

    def run(folder: str, until: str, named: list[str]) -> Path:
        with ConsoleWatcher() as watcher:
            job = load_task(None, {**given, "models": named})
            return Path(running.run(job, out=home / folder, until=until, watcher=watcher).path)

    race = read_json(run("race", "plan", models) / "race.json")
    scores, seconds, times = {}, {}, {}
    for number, model in enumerate(models):
        alone = run(f"alone-{number}", "train", [model])
        arm = alone / "arms" / ARM
        times[Path(model).name] = seconds_of(alone, ARM)
        scores[model] = {row["id"]: float(row["score"]) for row in read_jsonl(arm / "answers.jsonl")}
        seconds[model] = times[Path(model).name]["took"]
    means = {model: sum(found.values()) / len(found) for model, found in scores.items()}
    picked, best = race["winner"], max(means, key=lambda model: means[model])
    asked = sorted(scores[best])
    first, second = (np.array([scores[model][row] for row in asked]) for model in (best, picked))
    pair = compare(first, second, 0.05, 0.01)
    return {
        "picked": Path(picked).name,
        "why": race["why"],
        "best": Path(best).name,
        "test": {Path(model).name: mean for model, mean in means.items()},
        "race": {Path(one["model"]).name: {"score": one["score"], "round": one["round"], "rows": one["rows"]}
                 for one in race["candidates"]},
        "test_rows": len(asked),
        "behind": pair.difference,
        "interval": list(pair.interval),
        "race_seconds": race["seconds"],
        "training_seconds": times,
        "cost": (race["seconds"] + seconds[picked]) / seconds[picked],
    }  # fmt: skip


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--only", nargs="*", choices=list(SETS), default=list(SETS))
    words.add_argument("--rows", type=int, default=200, help="training rows at most, of each set")
    words.add_argument("--validation", type=int, default=200)
    words.add_argument("--test", type=int, default=600)
    words.add_argument("--budget", default="30m", help="of each run")
    words.add_argument("--keep", type=Path, help="a folder for the runs, to go on where it was stopped")
    words.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    chosen = words.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        place = (chosen.keep or Path(temporary)).resolve()
        models = candidates(place / "models")
        for name in chosen.only:
            kept = place / name / "measured.json"
            if not kept.is_file():
                shape = (chosen.rows, chosen.validation, chosen.test)
                write_json(kept, measured(name, place / name, models, shape, chosen.budget))
            found[name] = read_json(kept)
            one = found[name]
            print(
                f"{name}: picked {one['picked']}, {100 * one['behind']:.1f} points behind the best ({one['best']}), "
                f"at {one['cost']:.2f} times the cost of training it alone",
                file=sys.stderr,
            )
    if chosen.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
