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

from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_sets import measure_sets, run, scores_of, seconds_of
from transformers import AutoModelForCausalLM

from tuneworth.decision.statistics import compare
from tuneworth.models.sources import find_model
from tuneworth.store.atomic import read_json
from tuneworth.task.schema import DEFAULT_MODEL

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


def measured(home: Path, task: dict[str, Any]) -> dict[str, Any]:
    """One set: the race, every candidate trained in full, and the pick against the best of them on test."""
    models = candidates(home.parent / "models")
    race = read_json(run({**task, "models": models}, home / "race", "plan") / "race.json")
    alone = {
        model: run({**task, "models": [model]}, home / f"alone-{number}", "train")
        for number, model in enumerate(models)
    }
    scores = {model: scores_of(folder) for model, folder in alone.items()}
    times = {model: seconds_of(folder) for model, folder in alone.items()}
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
        "training_seconds": {Path(model).name: seconds for model, seconds in times.items()},
        "cost": 1 + race["seconds"] / times[picked]["took"],
    }  # fmt: skip


def told(one: dict[str, Any]) -> str:
    """One set in a line."""
    return (
        f"picked {one['picked']}, {100 * one['behind']:.1f} points behind the best ({one['best']}), at "
        f"{one['cost']:.2f} times the cost of training it alone"
    )


if __name__ == "__main__":
    measure_sets(__doc__, 200, "30m", measured, told)
