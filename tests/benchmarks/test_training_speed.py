"""What can go wrong in the training benchmark without anybody noticing: rows, FLOPs, the search, the report."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tiny import tiny_model, tiny_renderer
from tuneworth.training import Hooks, Settings, answer_loss, epoch_batches, train

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def standalone(name: str) -> ModuleType:
    """A part that runs in a peers' environment, by its file, as there."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / "training_speed" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def workload(name: str = "short", steps: int = 2, batch_rows: int = 4) -> Any:
    from training_speed.workloads import make_workload, synthetic

    return make_workload(name, synthetic(60), tiny_renderer(), steps=steps, batch_rows=batch_rows, evaluation_rows=5)


def job_values(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "rows": str(folder / "rows.json"), "result": str(folder / "result.json"), "model": "m", "adapter": "a",
        "save": None, "device": "cpu", "threads": 1, "steps": 2, "warmup_steps": 1, "batch_rows": 4,
        "learning_rate": 1e-3, "clip_norm": 1.0, "seed": 0, "maximum_seconds": 9.0, "settings": {}, **changes,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["short", "shared_prefix"])
def test_peers_get_exactly_the_ids_and_labels_that_tuneworth_trains(tmp_path: Path, name: str) -> None:
    from training_speed.workloads import write_rows

    made = workload(name)
    write_rows(made, tmp_path / "rows.json")
    (tmp_path / "job.json").write_text(json.dumps(job_values(tmp_path)))
    job = standalone("job").read_job(tmp_path / "job.json")
    order = epoch_batches([len(row.ids) for row in made.pool], 4, 0, 0)
    for theirs, indices in zip(job.batches, order, strict=True):
        ours = [made.pool[i] for i in indices]
        assert sorted(tuple(row.ids) for row in theirs) == sorted(row.ids for row in ours)
        for row in theirs:
            twin = next(other for other in ours if list(other.ids) == row.ids)
            assert row.labels == [t if on else -100 for t, on in zip(twin.ids, twin.trained, strict=True)]
            assert row.labels[-1] != -100 and row.labels[0] == -100


def test_training_takes_the_batches_that_the_peers_are_given() -> None:
    made = workload(steps=3)
    trained: list[int] = []
    model = tiny_model(dtype=torch.float32)
    parameters = {"head": model.get_input_embeddings().weight.requires_grad_(True)}
    settings = Settings(steps=3, batch_size=4, learning_rate=1e-3, warmup_steps=0, evaluate_every=4, seed=0)
    hooks = Hooks(
        evaluate=lambda: {"validation_score": 0.0, "validation_loss": 0.0},
        on_record=lambda record: trained.append(record["trained_tokens"]) if "loss" in record else None,
    )
    train(model, parameters, made.pool, settings, answer_loss, hooks)
    assert trained == [sum(row.trained_tokens for row in batch) for batch in made.batches]


def test_evaluation_rows_are_trained_by_nobody() -> None:
    made = workload(steps=4)
    assert not {row.id for row in made.pool} & {row.id for row in made.evaluation}
    assert len({row.id for row in made.pool}) == len(made.pool) == 16


def test_a_share_of_a_step_holds_short_and_long_rows() -> None:
    spread = standalone("job").spread
    assert spread(list(range(32)), 32) == list(range(32))
    assert spread(list(range(32)), 4) == [4, 12, 20, 28]


def test_flops_are_four_for_each_weight_of_the_linear_layers_but_the_head() -> None:
    from training_speed.limit import flops_per_token, linear_shapes, share

    model = tiny_model(dtype=torch.float32)
    head = model.get_output_embeddings().weight
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear) if m.weight is not head)
    shapes = linear_shapes(model)
    assert flops_per_token(shapes) == 4 * weights
    # 2 layers: q and o [32, 32], k and v [16, 32], gate and up [48, 32], down [32, 48]
    assert shapes == {(32, 32): 4, (16, 32): 4, (48, 32): 4, (32, 48): 2}
    assert share(10.0, 40.0, flops_per_token(shapes), 10 * 40 * 4 * weights * 2) == pytest.approx(0.5)


def test_the_rate_of_a_run_leaves_the_warm_up_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training_speed.workloads import write_rows

    write_rows(workload(steps=3), tmp_path / "rows.json")
    (tmp_path / "job.json").write_text(json.dumps(job_values(tmp_path, steps=3)))
    job = standalone("job")
    clock = iter([0.0, 10.0, 110.0, 112.0, 116.0])
    monkeypatch.setattr(job.time, "perf_counter", lambda: next(clock))
    the_job = job.read_job(tmp_path / "job.json")
    meter = job.Meter(the_job)
    meter.begin()
    assert not meter.step(3.0)  # longer than maximum_seconds, but nothing was timed yet
    assert meter.step(2.0)
    assert meter.step(1.0)
    meter.write()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["step_seconds"] == [100.0, 2.0, 4.0]
    assert result["rows_per_second"] == pytest.approx(8 / 6)
    assert result["losses"] == [3.0, 2.0, 1.0] and result["peak_bytes"] > 0


def test_the_search_finds_the_best_of_every_axis_and_skips_what_failed() -> None:
    from training_speed.peers import Trial, search

    rates = {("fp32", 8): 1.0, ("bf16", 8): 2.0, ("bf16", 16): 3.0, ("bf16", 32): None}
    asked = []

    def measure(settings: dict[str, Any]) -> Any:
        asked.append(settings)
        rate = rates[settings["precision"], settings["micro_batch"]]
        return Trial(settings, rate, None if rate else "out of memory")

    axes = (("precision", ("fp32", "bf16")), ("micro_batch", (8, 16, 32)))
    best, trials = search({"precision": "fp32", "micro_batch": 8}, axes, measure)
    assert best == {"precision": "bf16", "micro_batch": 16}
    assert len(asked) == len(trials) == 4  # nothing twice
    assert search({"a": 1}, (("a", (1, 2)),), lambda s: Trial(s, None, "broken"))[0] is None


def kept_run(rate: float, losses: list[float], **more: Any) -> dict[str, Any]:
    return {
        "rows_per_second": rate, "timed_rows": 10, "timed_steps": 1, "step_seconds": [1.0, 1.0], "losses": losses,
        "peak_bytes": 5, "cores_used_by_others": 0.0, **more,
    }  # fmt: skip


def documents(tmp_path: Path, our_loss: float) -> dict[str, Any]:
    from training_speed.measuring import Kept
    from training_speed.reporting import final_name, judged_name, report

    steps = {"short": 16, "short.peers": 16, "shared_prefix": 5, "shared_prefix.peers": 3}
    kept = Kept(tmp_path / "measured.json", deadline=1e18)
    kept.put("limit", {"flops_per_token": 100, "flops_per_second": 40_000, "bfloat16": 40_000, "float32": 9})
    kept.put("rows/short", {"tokens_a_row": 40.0, "source": "synthetic", "steps": 16, "batch_rows": 32})
    ours = kept_run(8.0, [3.0, 1.0], computed_tokens=200, same_batches=True)
    kept.put(final_name("short", "ours", steps), ours)
    kept.put(final_name("short", "trl", steps), kept_run(2.0, [3.0, 1.1], settings={"precision": "fp32"}))
    kept.put(final_name("short", "litgpt", steps), {"error": "no such part", "settings": None})
    kept.put(judged_name(("ours", "trl", "litgpt"), steps), {"ours": our_loss, "trl": 1.0})
    again = Kept(tmp_path / "measured.json", deadline=1e18)  # what was kept survives the process
    return report(again, ("ours", "trl", "litgpt"), ("short",), steps)


def test_the_report_has_the_agreed_keys(tmp_path: Path) -> None:
    from training_speed.reporting import table

    found = documents(tmp_path, 1.01)
    part = found["short"]
    assert part["ours"] == 8.0 and part["peers"] == {"trl": 2.0} and part["ratio"] == {"trl": 4.0}
    assert part["share_of_limit"] == pytest.approx(8 * 40 * 100 / 40_000)
    assert part["share_of_limit_computed"] == pytest.approx(8 * 20 * 100 / 40_000)
    assert part["peak_bytes"] == {"ours": 5, "trl": 5} and part["failed"] == {"litgpt": "no such part"}
    assert found["final_loss"] == {"ours": 1.01, "trl": 1.0}
    assert found["settings"]["short"]["trl"] == {"precision": "fp32"}
    assert found["problems"] == []
    json.dumps(found)
    assert "4.0 x" in table(found) and "no such part" in table(found)


def test_a_loss_above_the_peers_is_a_problem(tmp_path: Path) -> None:
    assert "1.0300" in documents(tmp_path, 1.03)["problems"][0]
    assert documents(tmp_path, float("nan"))["problems"]


def test_what_is_over_time_is_left_for_the_next_call(tmp_path: Path) -> None:
    from training_speed.measuring import Kept, TimeIsUp

    kept = Kept(tmp_path / "measured.json", deadline=-1.0)
    kept.put("known", 1)
    assert kept.get("known", lambda: 2) == 1
    with pytest.raises(TimeIsUp):
        kept.get("unknown", lambda: 3)
