"""SNIPS slots by prompting: free answers with the fields in each row's own order, against answers held to the schema.

    python benchmarks/extraction.py few-shot --rows 40
    python benchmarks/extraction.py lora-short --rows 100 --steps 120

asks the embedded model for a stratified sample of the test rows, in three ways: `free` (answers as they come, examples
as they stand in the data; a trained arm learns them so), `spelled` (free answers, examples in the schema's order) and
`held` (the same, and only JSON that fits the schema can be written). Data: TUNEWORTH_SHARED_DATA, or ../shared/data.
Prints one JSON object, and each part to stderr when it is done.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from small_sets import SETS

from tuneworth.data import Example, Message
from tuneworth.evaluation.arms import stratified
from tuneworth.evaluation.fitting import Fit, fit_rows
from tuneworth.evaluation.local import LocalModel, Scoring
from tuneworth.evaluation.metrics import choose_metric
from tuneworth.evaluation.metrics.jsontext import parse_json
from tuneworth.evaluation.metrics.schemas import derived_schema
from tuneworth.evaluation.prompts import FULL, SHORT, PromptForm, Told, prompt_form, with_shots
from tuneworth.evaluation.summary import summary
from tuneworth.models.machine import this_machine
from tuneworth.models.tuning import Recipe
from tuneworth.pipeline.preparing import Prepared
from tuneworth.pipeline.trainable import trainable
from tuneworth.pipeline.workshop import local_model
from tuneworth.task import load_task
from tuneworth.training import Settings

KIND = "extraction"


def examples(part: str) -> tuple[Example, ...]:
    rows = dict(zip(("train", "test"), SETS["snips-slots"](), strict=True))[part]
    return tuple(
        Example(f"{part}-{n}", (Message("user", row["text"]),), row["slots"], part, n) for n, row in enumerate(rows, 1)
    )


def trained(local: LocalModel, form: PromptForm, splits: Prepared, scoring: Scoring, steps: int, folder: Path) -> Path:
    """LoRA weights that learnt `splits`, each spelling once."""
    path = folder / hashlib.sha256("".join(example.answer for example in splits.train).encode()).hexdigest()[:8]
    if path.is_dir():
        return path
    rows, _ = local.training_rows(form, stratified(splits.train, 16 * steps, 0, KIND))
    settings = Settings(steps, 16, 2e-3, 10, steps, 0)
    with local.tuned(Recipe("lora", 16, 32, 0)) as tuned:
        fit = Fit(settings, scoring, lambda record: None, lambda checkpoint: None)
        fit_rows(local, form, rows, splits.train[:4], fit)
        path.mkdir()
        tuned.save(path, local.folder.id, local.folder.path)
    return path


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("arm", choices=("zero-shot", "few-shot", "lora-short"))
    words.add_argument("--rows", type=int, default=40)
    words.add_argument("--shots", type=int, default=16)
    words.add_argument("--new-tokens", type=int, default=128)
    words.add_argument("--steps", type=int, default=120, help="of 16 rows, of lora-short")
    chosen = words.parse_args()
    task = load_task(None)
    local = local_model("smollm2-135m-instruct", this_machine(), "bf16")
    raw = Prepared(examples("train"), (), examples("test"), KIND, (), "", None)
    free = replace(raw, schema=derived_schema([parse_json(example.answer) for example in raw.train]))
    spelled = trainable(raw, task)
    rows = stratified(raw.test, chosen.rows, 0, KIND)
    folder = Path(tempfile.mkdtemp(prefix="extraction-"))
    found: dict[str, Any] = {"arm": chosen.arm, "rows": len(rows)}
    for name, splits, decoding in (
        ("free", free, "generate"),
        ("spelled", spelled, "generate"),
        ("held", spelled, "constrained"),
    ):
        metric = choose_metric(task, KIND, (), splits.schema)
        scoring = Scoring(metric, (), chosen.new_tokens, decoding, KIND, splits.schema)  # type: ignore[arg-type]
        form = prompt_form(
            SHORT if chosen.arm == "lora-short" else FULL, task, KIND, (), Told.of(splits.train, splits.schema)
        )
        if chosen.arm == "few-shot":
            form = with_shots(form, splits.train, chosen.shots, 0, KIND)
        weights = trained(local, form, splits, scoring, chosen.steps, folder) if chosen.arm == "lora-short" else None
        start = time.perf_counter()
        with local.tuned(weights) if weights else nullcontext():
            answers = local.scored(form, rows, scoring)
        seconds = time.perf_counter() - start
        told = summary(answers, rows, metric, ())
        about = {key: told["metrics"][key] for key in ("exact_object", "field_f1", "schema_valid")}
        shares = {key: told[key] for key in ("invalid", "truncated", "output_tokens")}
        found[name] = {**about, **shares, "seconds": seconds, "first": [answer.raw for answer in answers[:2]]}
        print(name, json.dumps(found[name], ensure_ascii=False), file=sys.stderr, flush=True)
    shutil.rmtree(folder)
    print(json.dumps(found, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
