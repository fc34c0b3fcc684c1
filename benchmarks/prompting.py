"""The prompting arms on real intents: zero-shot, few-shot, retrieved, searched with the embedded model, one arm a call.

    python benchmarks/prompting.py banking77 retrieved --rows 300 --validation 80

asks a stratified sample of the test rows as a run does: forms are chosen on validation rows (taken out of train), test
is asked once. Data: the folder in TUNEWORTH_SHARED_DATA, or ../shared/data. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from small_sets import SETS, Rows

from tuneworth.data import Example, Message
from tuneworth.data.vectors import default_vectors
from tuneworth.decision.statistics import wilson_interval
from tuneworth.evaluation.arms import Bench, stratified
from tuneworth.evaluation.local import Scoring
from tuneworth.evaluation.metrics import choose_metric
from tuneworth.evaluation.prompted import prompt_arm
from tuneworth.evaluation.retrieved import Neighbours
from tuneworth.evaluation.watching import Silent
from tuneworth.models.machine import this_machine
from tuneworth.pipeline.ladder import ARMS
from tuneworth.pipeline.workshop import local_model
from tuneworth.store.atomic import read_json
from tuneworth.store.run import RunFolder
from tuneworth.task import load_task

KIND = "classification"


def examples(part: str, rows: Rows) -> list[Example]:
    return [
        Example(f"{part}-{n}", (Message("user", row["text"]),), row["label"], part, n) for n, row in enumerate(rows, 1)
    ]


class Work:
    """The little of a run that the forms of an arm need."""

    def __init__(self, neighbours: Neighbours) -> None:
        self.neighbours = neighbours


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("data", choices=("banking77", "snips"))
    words.add_argument("arm", choices=[name for name, arm in ARMS.items() if arm.asked])
    words.add_argument("--rows", type=int, default=300)
    words.add_argument("--validation", type=int, default=80)
    words.add_argument("--forms", type=int, default=8, help="of searched: how many forms are tried")
    chosen = words.parse_args()
    rows = SETS[{"snips": "snips-intents"}.get(chosen.data, chosen.data)]()
    train, test = (examples(part, some) for part, some in zip(("train", "test"), rows, strict=True))
    held_out = stratified(train, chosen.validation, 0, KIND)
    kept = {example.id for example in held_out}
    rest = tuple(example for example in train if example.id not in kept)
    labels = tuple(sorted({example.answer for example in train}))
    local = local_model("smollm2-135m-instruct", this_machine(), "bf16")
    longest = max(len(local.renderer.encode_text(label)) for label in labels) + 4
    task = load_task(None)
    scoring = Scoring(choose_metric(task, KIND, labels), labels, longest, "constrained", KIND)
    asked = ARMS[chosen.arm].asked
    assert asked is not None
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        asked_rows = stratified(test, chosen.rows, 0, KIND)
        bench = Bench(task, KIND, scoring, rest, held_out, asked_rows, run, Silent())
        forms = asked.forms(Work(Neighbours.of(rest, default_vectors(), 0)), bench)  # type: ignore[arg-type]
        start = time.perf_counter()
        prompt_arm(bench, chosen.arm, local, forms[: chosen.forms])
        record = read_json(run.arm_record(chosen.arm))
    right = round(record["score"] * record["rows"])
    interval = wilson_interval(right, record["rows"], 0.95)
    print(json.dumps({
        "data": chosen.data, "arm": chosen.arm, "rows": record["rows"], "accuracy": record["score"],
        "interval": [float(end) for end in interval], "form": record["settings"]["form"],
        "input_tokens": record["input_tokens"], "seconds": time.perf_counter() - start,
        "seconds_a_test_row": record["machine_seconds_per_request"], "tried": record["settings"].get("tried"),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
