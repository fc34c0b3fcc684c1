"""LAW 48: a training that was stopped and continued ends bit for bit as one that was not."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tiny import all_parameters, hooks, random_row, settings, tiny_model
from tuneworth.errors import InputError
from tuneworth.models.adapters import add_lora, trainable
from tuneworth.training import Checkpoint, Hooks, answer_loss, train

STEPS = 12
ROWS = [random_row(f"{i}", 2 + i % 5, 2 + i % 3, i, (290, 291)) for i in range(10)]  # an epoch has 5 steps
SETTINGS = settings(steps=STEPS, warmup_steps=4, clip_norm=1.0, rate_shares={"lora_B": 8.0})


def fresh_model(kind: str, adapter_seed: int) -> tuple[torch.nn.Module, dict[str, torch.nn.Parameter]]:
    if kind == "lora":
        model = add_lora(tiny_model(), rank=2, alpha=4, seed=adapter_seed)
        return model, trainable(model)
    base = tiny_model(dtype=torch.bfloat16)  # bfloat16 weights, float32 masters
    return base, all_parameters(base)


def watching(records: list[Mapping[str, Any]], saved: dict[int, Checkpoint]) -> Hooks:
    """Scores that rise and fall, evaluations that draw random numbers, every checkpoint kept."""

    def on_record(record: Mapping[str, Any]) -> None:
        records.append({k: v for k, v in record.items() if "seconds" not in k} | {"score": record.get("loss")})
        torch.rand(3)
        random.random()

    def save(checkpoint: Checkpoint) -> None:
        tensors = {name: tensor.detach().clone() for name, tensor in checkpoint.tensors.items()}
        saved[checkpoint.step] = replace(checkpoint, tensors=tensors)

    def evaluate() -> dict[str, float]:
        step = records[-1]["step"]
        torch.manual_seed(step)
        return {"validation_loss": 0.0, "validation_score": float((7 * step) % 10)}  # best at step 7

    return hooks(evaluate=evaluate, on_record=on_record, save=save)


def run(
    kind: str, adapter_seed: int = 0, resume: Checkpoint | None = None
) -> tuple[dict[str, Tensor], list[Mapping[str, Any]], dict[int, Checkpoint]]:
    model, parameters = fresh_model(kind, adapter_seed)
    records: list[Mapping[str, Any]] = []
    saved: dict[int, Checkpoint] = {}
    train(model, parameters, ROWS, SETTINGS, answer_loss, watching(records, saved), resume)
    return {name: p.detach().clone() for name, p in parameters.items()}, records, saved


@pytest.fixture(scope="module", params=["lora", "bfloat16"])
def whole(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, run(request.param)


@pytest.mark.parametrize("killed_after", [1, 5, 7, 8, 11])
def test_law_48_resumed_equals_never_stopped_bit_for_bit(whole: tuple[str, Any], killed_after: int) -> None:
    kind, (weights, records, saved) = whole
    # Another adapter seed and another state of the random generators: all must come from the checkpoint.
    torch.manual_seed(999)
    again, later, resaved = run(kind, adapter_seed=77, resume=saved[killed_after])
    assert later == [record for record in records if record["step"] > killed_after]
    assert set(again) == set(weights)
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    last, relast = saved[STEPS], resaved[STEPS]
    assert set(last.tensors) == set(relast.tensors)
    assert all(torch.equal(last.tensors[name], relast.tensors[name]) for name in last.tensors)
    assert (last.best_step, last.best_score) == (relast.best_step, relast.best_score) == (7, 9.0)


def test_law_47_and_48_a_finished_training_resumes_to_its_best_weights_without_a_step(whole: tuple[str, Any]) -> None:
    kind, (weights, _, saved) = whole
    again, later, _ = run(kind, adapter_seed=5, resume=saved[STEPS])
    assert later == []
    assert all(torch.equal(again[name], weights[name]) for name in weights)


def test_a_training_stopped_by_the_clock_does_not_start_again_on_resume(whole: tuple[str, Any]) -> None:
    kind, (_, _, saved) = whole
    model, parameters = fresh_model(kind, 0)
    spent = replace(saved[8], seconds=50.0)
    limited = replace(SETTINGS, maximum_seconds=50.0)
    outcome = train(model, parameters, ROWS, limited, answer_loss, hooks(), spent)
    assert outcome.stopped_early
    assert (outcome.steps, outcome.best_step) == (8, 7)


@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_law_42_a_checkpoint_that_does_not_fit_is_refused_by_name(whole: tuple[str, Any], damage: str) -> None:
    kind, (_, _, saved) = whole
    tensors = dict(saved[3].tensors)
    name = sorted(name for name in tensors if name.startswith("second/"))[-1]
    if damage == "missing":
        del tensors[name]
    else:
        tensors[name] = torch.zeros(1)
    with pytest.raises(InputError, match="second/"):
        run(kind, resume=replace(saved[3], tensors=tensors))


def test_law_48_resumed_in_a_new_process_through_files(tmp_path: Path) -> None:
    weights, _, saved = run("bfloat16")
    stopped = saved[6]
    save_file({name: tensor.contiguous() for name, tensor in stopped.tensors.items()}, tmp_path / "state.safetensors")
    plain = {"step": stopped.step, "best_step": stopped.best_step, "best_score": stopped.best_score, "seconds": 1.5}
    (tmp_path / "state.json").write_text(json.dumps(plain))
    here = Path(__file__).parent
    search = [str(here), str(here.parent), *(entry for entry in sys.path if entry)]
    code = f"import sys; sys.path[:0] = {search!r}; import test_resume_laws as t; t.continue_from({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    ended = load_file(tmp_path / "end.safetensors")
    assert set(ended) == set(weights)
    assert all(torch.equal(ended[name], weights[name]) for name in weights)


def continue_from(folder: str) -> None:
    """What the new process does: read the checkpoint, train to the end, write the weights."""
    torch.set_num_threads(1)
    plain = json.loads((Path(folder) / "state.json").read_text())
    resume = Checkpoint(tensors=load_file(Path(folder) / "state.safetensors"), **plain)
    weights, _, _ = run("bfloat16", resume=resume)
    save_file(weights, Path(folder) / "end.safetensors")


class _Clock:
    """A clock on which every look at it takes a second; so are the steps of a training, and its evaluations."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 1.0
        return self.now


def test_law_48_a_length_that_was_settled_by_the_clock_is_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps of a bounded training follow the time; who was killed after a look goes on with what it had settled."""
    chosen = replace(SETTINGS, steps=8, evaluate_every=2, maximum_seconds=60.0, most_steps=STEPS)
    monkeypatch.setattr("tuneworth.training.loop.time", _Clock())
    model, parameters = fresh_model("lora", 0)
    records: list[Mapping[str, Any]] = []
    saved: dict[int, Checkpoint] = {}
    outcome = train(model, parameters, ROWS, chosen, answer_loss, watching(records, saved))
    assert saved[2].length is not None
    steps, every, settled_at = saved[2].length
    assert steps != chosen.steps
    assert settled_at == 2
    assert next(step for step in saved if step > 2) == 2 + every

    def rates(resume: Checkpoint | None) -> dict[int, float]:
        unbounded = replace(chosen, maximum_seconds=math.inf)
        again, told = fresh_model("lora", 1)[0], []
        parameters = {name: p for name, p in again.named_parameters() if p.requires_grad}
        train(again, parameters, ROWS, unbounded, answer_loss, watching(told, {}), resume)
        return {record["step"]: record["learning_rate"] for record in told if "learning_rate" in record}

    resumed = rates(saved[2])
    assert max(resumed) == steps
    assert resumed[3] == next(r["learning_rate"] for r in records if r["step"] == 3 and "learning_rate" in r)
    assert max(rates(None)) == chosen.steps
    assert outcome.steps == max(saved)


def test_law_48_a_training_that_the_clock_ended_does_not_go_on_when_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = replace(SETTINGS, steps=8, evaluate_every=2, maximum_seconds=15.0)
    monkeypatch.setattr("tuneworth.training.loop.time", _Clock())
    model, parameters = fresh_model("lora", 0)
    saved: dict[int, Checkpoint] = {}
    outcome = train(model, parameters, ROWS, chosen, answer_loss, watching([], saved))
    assert outcome.ended == "time"
    end = saved[outcome.steps]

    again, weights = fresh_model("lora", 1)
    resumed = train(again, weights, ROWS, replace(chosen, maximum_seconds=math.inf), answer_loss, watching([], {}), end)
    assert (resumed.steps, resumed.ended) == (outcome.steps, "time")
    for name, parameter in parameters.items():
        assert torch.equal(weights[name], parameter), name
