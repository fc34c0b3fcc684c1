"""Ways of training end to end on a tiny model: all weights, several seeds, going on from a run, trackers, mishaps."""

from __future__ import annotations

import json
import shutil
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from test_run import StopsAt, answers, command, write_rows
from tiny import tiny_model, write_tokenizer
from tuneworth import load_run
from tuneworth.errors import Interrupted, MachineError
from tuneworth.evaluation import tracking
from tuneworth.evaluation.prompts import prompt_form
from tuneworth.evaluation.watching import Silent
from tuneworth.models.machine import this_machine
from tuneworth.models.sources import find_model
from tuneworth.pipeline import planning, running
from tuneworth.pipeline.ladder import arms_of
from tuneworth.pipeline.preparing import read_splits
from tuneworth.pipeline.workshop import local_model
from tuneworth.task import load_task
from tuneworth.training import loop
from tuneworth.training.loss import total_loss


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, rows, and a finished run of one LoRA arm."""
    place = tmp_path_factory.mktemp("methods")
    model = tiny_model()
    model.float().save_pretrained(place / "model")
    write_tokenizer(place / "model")
    write_rows(place / "train.csv", 60, 1)
    write_rows(place / "test.csv", 20, 2)
    run(place, "first")
    return place


def task(place: Path, **changes: Any) -> Any:
    return load_task(
        None,
        {
            "data.train": str(place / "train.csv"),
            "data.test": str(place / "test.csv"),
            "models": [str(place / "model")],
            "arms": ["lora-short"],
            "training.epochs": 6,
            "training.batch_size": 8,
            "training.precision": "fp32",
            "budget": "10m",
            **changes,
        },
    )


def run(place: Path, name: str, watcher: Any = None, **changes: Any) -> Any:
    return running.run(task(place, **changes), out=place / name, watcher=watcher, until="evaluate")


def same_plan(place: Path, name: str, other: str) -> None:
    """A run folder with the plan of another one, in which a busy machine cuts no training."""
    plan = json.loads((place / other / "plan.json").read_text())
    for training in plan["trainings"].values():
        training["seconds"] = 1000.0
    (place / name).mkdir()
    (place / name / "plan.json").write_text(json.dumps(plan))


def test_all_weights_are_trained_saved_as_a_model_and_answer_as_they_were_judged(place: Path) -> None:
    done = run(place, "full", arms=["weights-short"], **{"training.method": "full"})
    record = done.arm("weights-short")
    assert record["settings"]["method"] == "full"
    assert "rank" not in record["settings"]
    plan = done.plan["settings"]
    assert record["settings"]["learning_rate"] == plan["full_learning_rate"]["value"]
    assert plan["full_learning_rate"]["value"] == pytest.approx(plan["learning_rate"]["value"] / 5, rel=0.1)
    folder = done.folder.arm("weights-short") / "model"
    saved, base = load_file(folder / "model.safetensors"), load_file(place / "model/model.safetensors")
    assert saved.keys() == base.keys()
    assert [name for name in saved if torch.equal(saved[name], base[name])] == []
    assert find_model(str(folder)).context_tokens == 1024  # a model folder like any other
    lines = (done.folder.splits / "test.jsonl").read_text().splitlines()
    rows = {row["id"]: row for row in map(json.loads, lines)}
    talker = done.chat_with("weights-short")
    for judged in answers(done, "weights-short")[:3]:
        said = talker.chat(rows[judged["id"]]["messages"], max_new_tokens=record["max_new_tokens"])
        assert said == judged["raw"]


def test_law_47_the_saved_weights_have_the_validation_loss_that_was_logged_at_the_best_step(place: Path) -> None:
    done = load_run(place / "first")
    record = done.arm("lora-short")
    lines = (done.folder.arm("lora-short") / "training/metrics.jsonl").read_text().splitlines()
    looks = {look["step"]: look for look in map(json.loads, lines) if "validation_loss" in look}
    best = looks[record["settings"]["best_step"]]
    assert best["validation_score"] == max(look["validation_score"] for look in looks.values())
    model = local_model(str(place / "model"), this_machine(), "fp32")
    splits = read_splits(done.folder)
    form = prompt_form("short", load_task(done.folder.task), splits.kind, splits.labels)
    rows, _ = model.training_rows(form, splits.validation)
    with model.tuned(done.folder.arm("lora-short") / "model") as tuned:
        found = total_loss(tuned.model, rows, 4096, "cpu")
    assert found == pytest.approx(best["validation_loss"], rel=1e-6)


def test_the_method_decides_which_arms_run_by_themselves(place: Path) -> None:
    assert [name for name, arm in arms_of(load_task(None)).items() if arm.taught] == [
        "lora-short",
        "lora-full",
    ]
    full = load_task(None, {"training.method": "full"})
    assert [n for n, arm in arms_of(full).items() if arm.taught] == ["weights-short", "weights-full"]


def test_of_several_seeds_the_best_on_validation_is_kept_and_the_spread_is_recorded(place: Path) -> None:
    done = run(place, "seeds", **{"training.seeds": 3})
    record = done.arm("lora-short")
    attempts = record["settings"]["seeds"]
    scores = [attempt["validation_score"] for attempt in attempts]
    assert [attempt["seed"] for attempt in attempts] == [0, 1, 2]
    assert record["seed"] == scores.index(max(scores))
    assert record["settings"]["validation_score"] == max(scores)
    assert record["settings"]["validation_spread"] == pytest.approx(torch.tensor(scores).double().std().item())
    assert record["build_seconds"] == pytest.approx(sum(attempt["seconds"] for attempt in attempts))
    home = done.folder.arm("lora-short")
    assert sorted(path.name for path in home.iterdir()) == ["answers.jsonl", "arm.json", "model", "training"]
    assert sorted(path.name for path in (home / "training").glob("metrics*")) == [
        "metrics-seed-0.jsonl",
        "metrics-seed-1.jsonl",
        "metrics-seed-2.jsonl",
        "metrics.jsonl",
    ]
    kept = (home / "training/metrics.jsonl").read_text()
    assert kept == (home / f"training/metrics-seed-{record['seed']}.jsonl").read_text()
    first = load_run(place / "first").folder.arm("lora-short") / "training/metrics.jsonl"
    same = [path.read_text().splitlines() for path in (home / "training/metrics-seed-0.jsonl", first)]
    losses = [[json.loads(line).get("loss") for line in lines] for lines in same]
    assert losses[0] == losses[1]  # the first seed is the training that a single seed would have been


def test_law_48_an_interrupted_second_seed_continues_and_repeats_nothing(place: Path) -> None:
    changes = {"training.seeds": 2}
    run(place, "whole", **changes)

    class SecondSeedStops(Silent):
        def __init__(self) -> None:
            self.trainings = 0

        def begin(self, what: str, total: int) -> None:
            self.trainings += what.endswith("training")

        def record(self, record: Mapping[str, Any]) -> None:
            if self.trainings == 2 and "loss" in record and record["step"] == 5:
                raise Interrupted(2)

    same_plan(place, "stopped", "whole")
    with pytest.raises(Interrupted):
        run(place, "stopped", SecondSeedStops(), **changes)
    again = SecondSeedStops()
    again.trainings = -9
    run(place, "stopped", again, **changes)
    assert again.trainings == -8  # the first seed was not trained again
    mine, theirs = (place / n / "arms/lora-short/model/adapter_model.safetensors" for n in ("stopped", "whole"))
    assert mine.read_bytes() == theirs.read_bytes()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers for a renamed attribute
def test_a_run_goes_on_from_another_ones_adapter_and_says_so(place: Path) -> None:
    done = run(place, "second", **{"training.from": str(place / "first")})
    settings = done.arm("lora-short")["settings"]
    assert settings["from"]["run"] == str(place / "first")
    assert settings["from"]["arm"] == "lora-short"
    assert list(settings["from"]["sha256"]) == ["adapter_model.safetensors"]
    assert settings["rank"] == load_run(place / "first").arm("lora-short")["settings"]["rank"]

    def first_loss(name: str) -> float:
        line = (place / name / "arms/lora-short/training/metrics.jsonl").read_text().splitlines()[0]
        return float(json.loads(line)["loss"])

    assert first_loss("second") < first_loss("first")


def test_from_refuses_another_base_model_rank_method_or_a_run_without_training(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny_model(seed=7)
    other.float().save_pretrained(place / "other-model")
    write_tokenizer(place / "other-model")
    words = ["plan", place / "train.csv", "--from", place / "first", "--out", place / "refused"]
    model = ["--model", place / "model"]
    for more, told in (
        (["--model", place / "other-model"], "this task's model is"),
        ([*model, "--set", "training.rank=8"], "its rank is 16, training.rank is 8"),
        ([*model, "--set", "training.method=full"], "its method is lora, training.method is full"),
    ):
        assert command(*words, *more, "--set", "arms=[lora-short, weights-short]") == 2
        assert told in capsys.readouterr().err
        shutil.rmtree(place / "refused")
    assert command("plan", place / "train.csv", *model, "--from", place / "nowhere", "--out", place / "refused") == 2
    assert "no run folder" in capsys.readouterr().err
    assert not (place / "refused").exists()


def test_law_14_a_training_that_diverges_names_file_line_and_id_and_keeps_the_last_good_state(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneworth.errors import TuneworthError
    from tuneworth.evaluation import fitting

    plain, seen = fitting.answer_loss, []

    def loss(model: Any, part: Any) -> Any:
        if len(part.row_ids) > 1:  # a step, not the search for the row
            seen.append(part.row_ids)
        bad = len(seen) >= 3 and seen[2][0] in part.row_ids
        return plain(model, part) * (float("nan") if bad else 1.0)

    same_plan(place, "nan", "first")
    monkeypatch.setattr(fitting, "answer_loss", loss)
    with pytest.raises(TuneworthError, match="not finite at step 3") as caught:
        run(place, "nan")
    assert caught.value.exit_code == 1
    lines = (place / "nan/splits/train.jsonl").read_text().splitlines()
    row = next(row for row in map(json.loads, lines) if row["id"] == seen[2][0])
    assert f"train.csv:{row['line']} (id {row['id']})" in str(caught.value)
    kept = place / "nan/arms/lora-short/checkpoints/seed-0/step-000002"
    assert json.loads((kept / "values.json").read_text())["step"] == 2
    monkeypatch.setattr(fitting, "answer_loss", plain)
    done = run(place, "nan")  # the cure: the run goes on from the state before
    assert done.arm("lora-short")["status"] == "done"


def test_patience_is_told_in_arm_json(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_out_of_patience", lambda state, settings: settings.patience == 1 and state.step > 0)
    done = run(place, "patience", **{"training.patience": 1})
    assert done.arm("lora-short")["settings"]["ended"] == "patience"
    assert not done.arm("lora-short")["settings"]["ended_by_budget"]


class Calls(types.ModuleType):
    """A library that writes down what it is asked."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **options: Any) -> Any:
            self.calls.append((name, args, options))
            return self

        return call

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *failure: object) -> None:
        self.calls.append(("__exit__", (), {}))

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [args for called, args, _ in self.calls if called == name]


@pytest.mark.parametrize(("name", "log"), [("wandb", "log"), ("trackio", "log"), ("mlflow", "log_metrics")])
def test_trackers_get_every_record_through_their_own_library(
    name: str, log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Calls(name)
    monkeypatch.setitem(sys.modules, name, library)
    monkeypatch.setattr(tracking, "find_spec", lambda found: library if found == name else None)
    with tracking.tracking([name], tmp_path, "lora-short", {"rank": 16}) as write:
        write({"step": 1, "loss": 2.5, "warning": "loss spike"})
        write({"step": 2, "validation_score": 0.5})
    assert library.of(log) == [({"loss": 2.5},), ({"validation_score": 0.5},)]
    assert [options["step"] for called, _, options in library.calls if called == log] == [1, 2]
    assert library.calls[-1][0] in ("finish", "__exit__")
    assert {"rank": 16} in [value for _, args, options in library.calls for value in (*args, *options.values())]


def test_tensorboard_writes_beside_metrics_jsonl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Calls("tensorboard.summary")
    monkeypatch.setitem(sys.modules, "tensorboard.summary", library)
    monkeypatch.setattr(tracking, "find_spec", lambda found: library)
    with tracking.tracking(["tensorboard"], tmp_path, "lora-short", {}) as write:
        write({"step": 3, "loss": 2.5})
    assert library.of("Writer") == [(str(tmp_path / "tensorboard"),)]
    assert library.of("add_scalar") == [("lora-short/loss", 2.5, 3)]
    assert library.calls[-1][0] == "close"


def test_the_real_tensorboard_reads_back_what_was_logged(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tracking.tracking(["tensorboard"], tmp_path, "lora-short", {}) as write:
        for step in (1, 2, 3):
            write({"step": step, "loss": 1 / step})
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    tensors = read.Tensors("lora-short/loss")
    assert [event.step for event in tensors] == [1, 2, 3]
    assert [event.tensor_proto.float_val[0] for event in tensors] == pytest.approx([1, 1 / 2, 1 / 3])


def test_a_tracker_that_is_not_installed_is_exit_code_3_with_the_install_command(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match="not installed: mlflow"):
        tracking.check_trackers(["mlflow"])
    words = ("run", place / "train.csv", "--model", place / "model", "--out", place / "untracked")
    assert command(*words, "--set", "training.trackers=[tensorboard, wandb]") == 3
    assert "pip install tensorboard wandb" in capsys.readouterr().err
    assert not (place / "untracked").exists()


def test_without_trackers_nothing_is_imported() -> None:
    assert not {"tensorboard", "wandb", "mlflow", "trackio"} & set(sys.modules)


def test_an_interrupted_full_training_ends_with_the_same_weights(place: Path) -> None:
    full = {"arms": ["weights-short"], "training.method": "full"}
    same_plan(place, "cut", "full")
    with pytest.raises(Interrupted):
        run(place, "cut", StopsAt(9), **full)
    run(place, "cut", **full)
    mine, theirs = (place / name / "arms/weights-short/model/model.safetensors" for name in ("cut", "full"))
    assert mine.read_bytes() == theirs.read_bytes()


def test_deterministic_algorithms_give_the_same_weights_on_a_processor(place: Path) -> None:
    same_plan(place, "deterministic", "first")
    try:
        run(place, "deterministic", **{"training.deterministic": True})
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    mine, theirs = (
        place / name / "arms/lora-short/model/adapter_model.safetensors" for name in ("deterministic", "first")
    )
    assert mine.read_bytes() == theirs.read_bytes()


def test_a_plan_says_what_disk_a_training_needs_and_refuses_a_disk_that_has_less(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = load_run(place / "first").plan["predicted"]["disk_bytes"]
    tensors = load_file(place / "first/arms/lora-short/model/adapter_model.safetensors")
    trained = sum(tensor.numel() for tensor in tensors.values())
    assert needed == trained * (3 * 16 + 4)
    monkeypatch.setattr(planning.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=needed - 1))
    with pytest.raises(MachineError, match="of disk") as caught:
        run(place, "no-disk")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("can't allocate memory: 9 GB")]
)
def test_f6_out_of_memory_anywhere_is_exit_code_3(
    place: Path, error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(running, "make_plan", fails)
    assert command("plan", place / "train.csv", "--model", place / "model", "--out", place / "small") == 3
    told = capsys.readouterr().err
    assert "out of memory" in told
    assert "Traceback" not in told
    shutil.rmtree(place / "small")
