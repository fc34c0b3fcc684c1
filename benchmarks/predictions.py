"""Predicted peak memory and time of trainings against what happens: `python benchmarks/predictions.py [--json]`.

Each case trains two steps in a process of its own, with the loop, the losses and the checkpoints of a real training,
and reads the process's peak resident memory (VmHWM; Linux). Models are random weights in the shapes of the catalogue,
and the embedded one. Time: after that, as a plan does, real steps with a rate of zero are timed, of a quarter of the
batch, of half of it and of all of it, while that stays under 10 s; a batch that was not reached is predicted from the
last two by the operations of the formula. `--most-gb` leaves out what the machine has no room for; `--only WORD` picks
cases by name.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tuneworth.models.architecture import Architecture
from tuneworth.models.catalogue import entry_of
from tuneworth.plan.needs import Batch, Method, largest_batch, training_memory, training_seconds

MICRO_TOKENS = 4096
EMBEDDED = "smollm2-135m-instruct"
_WITHIN_MEMORY, _NEVER_UNDER, _WITHIN_TIME = 0.10, 0.05, 0.20
_CALIBRATION_SECONDS = 10.0
_SECONDS_A_CASE = 900


@dataclass(frozen=True, slots=True)
class Case:
    """A training: `layers` cuts the model of the catalogue; `kind` is answers or pairs."""

    model: str
    method: str
    rows: int
    length: int
    recompute: bool = False
    kind: str = "answers"
    precision: str = "bf16"
    layers: int | None = None
    answer: int = 8

    @property
    def name(self) -> str:
        """For people."""
        cut = f":{self.layers}" if self.layers else ""
        more = "".join([" recompute" * self.recompute, " pairs" * (self.kind == "pairs")])
        return f"{self.model}{cut} {self.method} {self.rows}x{self.length} {self.precision}{more}"

    @property
    def architecture(self) -> Architecture:
        """Of the catalogue, with `layers` if given."""
        entry = entry_of(self.model)
        assert entry is not None, self.model
        return replace(entry.architecture, layers=self.layers) if self.layers else entry.architecture

    def batch(self, share: float = 1.0) -> Batch:
        """The largest micro-batch of a step on this share of the rows."""
        rows = max(1, round(self.rows * share))
        if self.kind == "pairs":
            # A pair counts with both answers, and its prompt is computed once.
            together = max(1, min(rows, MICRO_TOKENS // (2 * self.length)))
            prompt = self.length - self.answer - 1
            return Batch(together, prompt + 2 * self.answer, 2 * self.answer * together)
        return largest_batch([self.length - 1] * rows, [self.answer] * rows, rows, MICRO_TOKENS)

    @property
    def plan(self) -> Method:
        """As the formulas want it."""
        return Method(self.method, 16, self.recompute)


def grid() -> Iterator[Case]:
    """Families, methods, lengths and batches; with and without recomputation."""
    for model in (EMBEDDED, "gemma-3-270m-it"):
        for rows, length in ((1, 32), (8, 64), (8, 128), (1, 700), (1, 1200)):
            yield Case(model, "lora", rows, length)
        yield Case(model, "lora", 8, 200, recompute=True)
        yield Case(model, "lora", 2, 600, recompute=True)
        yield Case(model, "lora", 4, 128, kind="pairs")
        for rows, length in ((1, 32), (8, 128), (1, 700)):
            yield Case(model, "full", rows, length)
        yield Case(model, "full", 8, 128, recompute=True)
        yield Case(model, "full", 4, 128, kind="pairs")
        yield Case(model, "lora", 8, 64, precision="fp32")
    for model in ("smollm2-360m-instruct", "qwen2.5-0.5b-instruct", "qwen3-0.6b"):
        for rows, length in ((1, 64), (4, 128), (1, 400)):
            yield Case(model, "lora", rows, length)
        yield Case(model, "lora", 2, 300, recompute=True)
    yield Case("qwen3-0.6b", "lora", 2, 128, kind="pairs")
    for model, layers in (("smollm2-360m-instruct", 8), ("qwen2.5-0.5b-instruct", 4), ("qwen3-0.6b", 2)):
        yield Case(model, "full", 4, 128, layers=layers)
    for model in ("llama-3.2-1b-instruct", "gemma-3-1b-it", "olmo-2-1b-instruct"):
        yield Case(model, "lora", 2, 64)
    for model in ("llama-3.2-1b-instruct", "olmo-2-1b-instruct", "granite-3.3-2b-instruct", "phi-4-mini-instruct"):
        yield Case(model, "lora", 4, 128, layers=6)
    for model in ("mistral-7b-instruct-v0.3", "falcon3-3b-instruct", "smollm3-3b"):
        yield Case(model, "lora", 4, 128, layers=2)


def predicted(case: Case) -> dict[str, Any]:
    """Memory by part, in bytes."""
    memory = training_memory(case.architecture, case.plan, case.batch(), case.precision)
    return {"peak": memory.peak, "parts": dict(memory.parts)}


def make_model(case: Case, folder: Path) -> None:
    """Random weights in the case's shape, as a folder in transformers' layout."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    a = case.architecture
    config = AutoConfig.for_model(
        a.family, hidden_size=a.width, intermediate_size=a.inner, num_hidden_layers=a.layers, vocab_size=a.vocabulary,
        num_attention_heads=a.heads, num_key_value_heads=a.kv_heads, head_dim=a.head_size, pad_token_id=None,
        max_position_embeddings=a.context, tie_word_embeddings=a.is_tied, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model = model.to_empty(device="cpu")
    model.tie_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.02, 0.02) if parameter.dim() > 1 else parameter.fill_(1.0)
    model.save_pretrained(folder)


def train_case(case: Case, folder: Path, is_timed: bool) -> dict[str, Any]:
    """Train in this process; peak resident memory in bytes, and seconds of steps, calibrated and measured."""
    from tuneworth.models.checkpoints import save_tensors
    from tuneworth.models.loading import load_model
    from tuneworth.models.recompute import recomputed
    from tuneworth.models.sources import ModelFolder
    from tuneworth.models.tuning import Recipe, tune
    from tuneworth.training import (
        Hooks,
        Pair,
        Row,
        Settings,
        answer_loss,
        pair_packs,
        preference_loss,
        row_packs,
        train,
        with_reference,
    )  # fmt: skip

    dtype = {"bf16": "bfloat16", "fp32": "float32"}[case.precision]
    model = load_model(ModelFolder(case.model, folder, "", None, case.length), dtype=dtype, device="cpu")
    tuned = tune(model, Recipe(case.method, 16, 32, 0))
    parameters, chance, vocabulary = tuned.parameters, random.Random(0), case.architecture.vocabulary

    def ids(count: int) -> tuple[int, ...]:
        return tuple(chance.randrange(5, vocabulary) for _ in range(count))

    prompt = case.length - case.answer
    rows: list[Any] = [
        Row(str(i), ids(case.length), (False,) * prompt + (True,) * case.answer) for i in range(case.rows)
    ]
    loss: Any = answer_loss
    batches: Any = row_packs
    with recomputed(tuned.model) if case.recompute else nullcontext():
        if case.kind == "pairs":
            worse = [Row(row.id, row.ids[:prompt] + ids(case.answer), row.trained) for row in rows]
            pairs = [Pair.of(*both) for both in zip(rows, worse, strict=True)]
            rows = with_reference(tuned.model, pairs, MICRO_TOKENS, "cpu")
            loss, batches = preference_loss(0.1), pair_packs

        def steps(few: list[Any], rate: float, save: bool) -> list[float]:
            """Seconds of two steps, the second of which counts: memory that is used anew is slower."""
            seconds: list[float] = []
            with tempfile.TemporaryDirectory() as scratch:
                hooks = Hooks(
                    evaluate=lambda: {"validation_loss": 0.0, "validation_score": 0.0},
                    on_record=lambda found: seconds.append(found["step_seconds"]) if "step_seconds" in found else None,
                    save=lambda checkpoint: save_tensors(Path(scratch), dict(checkpoint.tensors), {}) if save else None,
                )
                settings = Settings(2, len(few), rate, 0, 2, 0, maximum_tokens=MICRO_TOKENS)
                train(tuned.model, parameters, few, settings, loss, hooks, batches=batches)
            return seconds

        seconds, peak = steps(rows, 1e-4, True), _peak_bytes()  # before others leave holes in the heap
        calibrated = None
        if is_timed:
            calibrated = _calibrated(case, lambda few: steps(few, 0.0, False), rows)
            seconds = steps(rows, 1e-4, True)
    return {"peak": peak, "seconds": seconds[-1], "calibration": calibrated}


def _calibrated(case: Case, steps: Callable[[list[Any]], list[float]], rows: list[Any]) -> dict[str, float]:
    """Seconds of a step on all `rows`, predicted from steps on as many as ten seconds allow, and what that took."""
    began = time.perf_counter()
    found: list[tuple[float, float]] = []  # seconds by the formula at unit rates, and measured ones
    for count in sorted({max(1, case.rows // 4), max(1, case.rows // 2), case.rows}):
        by_formula = _formula_seconds(case, case.batch(count / case.rows))
        expected = 2.5 * found[-1][1] * by_formula / found[-1][0] if found else 0.0
        if time.perf_counter() - began + expected > _CALIBRATION_SECONDS:
            break
        found.append((by_formula, steps(rows[:count])[-1]))
    (before, less), (last, more) = found[-2] if len(found) > 1 else (0.0, 0.0), found[-1]
    slope = max(0.0, more - less) / (last - before)
    predicted = more + slope * (_formula_seconds(case, case.batch()) - last)
    return {"predicted": predicted, "taken": time.perf_counter() - began}


def _formula_seconds(case: Case, batch: Batch) -> float:
    """Of a step at unit rates of which only the ratio counts here: 400 GFLOP/s and 25 GB/s."""
    return training_seconds(case.architecture, case.plan, batch, 4e11, 2.5e10, case.precision)


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def measured(case: Case, folder: Path, is_timed: bool) -> dict[str, Any]:
    """What the child process found, or {"error"}."""
    command = [sys.executable, __file__, "--child", json.dumps(asdict(case)), "--folder", str(folder)]
    command += [] if is_timed else ["--memory-only"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_A_CASE, check=False)
    lines = done.stdout.strip().splitlines()
    return json.loads(lines[-1]) if done.returncode == 0 and lines else {"error": done.stderr.strip()[-400:]}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares within the limits, and the worst; over is positive."""
    off = [row["predicted"]["peak"] / row["measured"]["peak"] - 1 for row in rows]
    timed = [row["measured"] for row in rows if row["measured"]["calibration"] is not None]
    late = [found["calibration"]["predicted"] / found["seconds"] - 1 for found in timed]
    return {
        "memory": {
            "cases": len(rows),
            "within_10_percent": sum(abs(x) <= _WITHIN_MEMORY for x in off) / max(1, len(rows)),
            "worst": max(off, key=abs, default=0.0),
            "most_under": min(off, default=0.0),
            "never_under_by_5_percent": all(x >= -_NEVER_UNDER for x in off),
        },
        "time": {
            "cases": len(late),
            "within_20_percent": sum(abs(x) <= _WITHIN_TIME for x in late) / max(1, len(late)),
            "worst": max(late, key=abs, default=0.0),
            "most_calibration_seconds": max((found["calibration"]["taken"] for found in timed), default=0.0),
        },
    }


def main() -> None:
    """Parent: run the grid. Child: train one case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--most-gb", type=float, default=8.0)
    parser.add_argument("--keep", type=Path, help="a file of finished cases (JSON Lines), to go on from")
    parser.add_argument("--memory-only", action="store_true", help="predict no times: a busy machine disturbs them")
    parser.add_argument("--child")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(train_case(Case(**json.loads(options.child)), options.folder, not options.memory_only)))
        return
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    rows = _run(options)
    result = summary([row for row in rows if "error" not in row["measured"]])
    result["failed"] = [row["name"] for row in rows if "error" in row["measured"]]
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))


def _run(options: argparse.Namespace) -> list[dict[str, Any]]:
    done = {}
    if options.keep and options.keep.is_file():
        done = {row["name"]: row for row in map(json.loads, options.keep.read_text().splitlines())}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for case in grid():
            if options.only not in case.name or predicted(case)["peak"] > options.most_gb * 1e9:
                continue
            row = done.get(case.name) or {
                "name": case.name,
                "measured": measured(case, _folder(case, Path(scratch)), not options.memory_only),
            }
            row["predicted"] = predicted(case)
            if options.keep and case.name not in done:
                with options.keep.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            found = row["measured"].get("peak")
            told = f"{row['predicted']['peak'] / found - 1:+.3f} of {found / 1e9:.2f} GB" if found else "failed"
            print(f"{case.name:<60}{told}", file=sys.stderr)
            rows.append(row)
    return rows


def _folder(case: Case, scratch: Path) -> Path:
    """The model's folder, made once; only the newest is kept, since they are large."""
    if case.model == EMBEDDED and not case.layers:
        from tuneworth.models.embedded import embedded_folder

        return embedded_folder()
    wanted = scratch / f"{case.model}-{case.layers or 0}"
    if not wanted.is_dir():
        for old in scratch.iterdir():
            subprocess.run(["rm", "-r", str(old)], check=True)
        make_model(case, wanted)
    return wanted


if __name__ == "__main__":
    main()
