"""What the stages after the data share, and the plan: measured rates, settings with reasons, the budget allotted."""

from __future__ import annotations

import resource
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tuneworth.decision import Price, machine_hour_price
from tuneworth.errors import InputError, MachineError
from tuneworth.evaluation.arms import SHOT_COUNTS, Bench, model_decoding, stratified
from tuneworth.evaluation.local import LocalModel, Scoring
from tuneworth.evaluation.metrics import default_metric
from tuneworth.evaluation.prompts import FULL, SHORT, with_shots
from tuneworth.evaluation.watching import Watcher
from tuneworth.models.kernels import compile_kernels
from tuneworth.models.loading import load_model
from tuneworth.models.machine import (
    DTYPES,
    Machine,
    compiled_folder,
    compiling_pays,
    compute_deterministically,
    this_machine,
)
from tuneworth.models.rates import choose_precision
from tuneworth.models.recompute import MemoryPlan
from tuneworth.models.sources import find_model
from tuneworth.models.tuning import FULL_METHOD, Recipe
from tuneworth.pipeline.continuing import Start, continued, find_start
from tuneworth.pipeline.preparing import Prepared
from tuneworth.pipeline.probe_planning import add_probes
from tuneworth.plan import Allotment, Rate, Rates, Rows, Setting, TrainingPlan, allot, training_plan
from tuneworth.rendering import Renderer
from tuneworth.store.atomic import read_json, write_json
from tuneworth.store.run import RunFolder
from tuneworth.task import Task

CLASSICAL, ZERO_SHOT, FEW_SHOT, LORA_SHORT, LORA_FULL = "tfidf", "zero-shot", "few-shot", "lora-short", "lora-full"
WEIGHTS_SHORT, WEIGHTS_FULL = "weights-short", "weights-full"
ARMS = {
    CLASSICAL: "classical",
    ZERO_SHOT: "prompt",
    FEW_SHOT: "prompt",
    LORA_SHORT: "fine-tune",
    LORA_FULL: "fine-tune",
    WEIGHTS_SHORT: "fine-tune",
    WEIGHTS_FULL: "fine-tune",
}
"""Every arm and its family, in the order in which they run."""

_VALIDATION_ROWS = 200
_MOST_NEW_TOKENS = 256
_MICRO_BATCH_TOKENS = 4096


def arms_of(task: Task) -> dict[str, str]:
    """The arms that `task` asks for, and their families, in order: all that apply to its method, or those it names."""
    if task.arms != "auto":
        return {name: family for name, family in ARMS.items() if name in task.arms}
    other = (LORA_SHORT, LORA_FULL) if task.training.method == FULL_METHOD else (WEIGHTS_SHORT, WEIGHTS_FULL)
    return {name: family for name, family in ARMS.items() if name not in other}


def recipe_of(settings: Mapping[str, Any], arm: str, seed: int, start: Path | None = None) -> Recipe:
    """How `arm` is tuned, from the settings of a plan."""
    values = {name: setting["value"] for name, setting in settings.items()}
    is_full = arm in (WEIGHTS_SHORT, WEIGHTS_FULL)
    lora = "lora" if values["method"] == FULL_METHOD else values["method"]
    return Recipe(FULL_METHOD if is_full else lora, values["rank"], values["alpha"], seed, start)


class Workshop:
    """What the stages after the data share; the model is loaded when it is first needed."""

    def __init__(
        self, task: Task, folder: RunFolder, splits: Prepared, watcher: Watcher, started: float | None = None
    ) -> None:
        """`started` is when the run began (time.monotonic); None when it is continued and the time is not known."""
        self.started = started
        self.task = task
        self.folder = folder
        self.splits = splits
        self.watcher = watcher
        self.machine: Machine = this_machine()
        self._local: LocalModel | None = None
        self._precision: Setting | None = None
        self._compiled: Setting | None = None
        if task.training.deterministic:
            compute_deterministically()

    @property
    def local(self) -> LocalModel:
        """The pre-trained model, loaded once."""
        if self._local is None:
            self._local = local_model(self.task.models[0], self.machine, str(self.precision.value))
            compile_kernels(bool(self.compiled.value), compiled_folder())
        return self._local

    @property
    def compiled(self) -> Setting:
        """Whether kernels are compiled: as planned, or as pays here; a continued run keeps what it began with."""
        if self.folder.plan.is_file():
            return Setting(**read_json(self.folder.plan)["settings"]["compiled_kernels"])
        if self._compiled is None:
            width = self.local.model.config.hidden_size
            self._compiled = Setting(*compiling_pays(width, self.task.budget), "measured")
        return self._compiled

    @property
    def precision(self) -> Setting:
        """bf16 or fp32: as planned, as fixed, or as measured here; a continued run keeps what it began with."""
        if self.folder.plan.is_file():
            return Setting(**read_json(self.folder.plan)["settings"]["precision"])
        if self._precision is None:
            fixed = self.task.training.precision
            self._precision = (
                Setting(*choose_precision(self.machine), "measured")
                if fixed == "auto"
                else Setting(fixed, "fixed by you", "training.precision")
            )
        return self._precision

    @property
    def start(self) -> Start | None:
        """The earlier run's arm to continue from, if one is named."""
        return find_start(self.task.training, self.local.folder)

    def bench(self, test_rows: int) -> Bench:
        """What arms need: the same test subset for all, drawn before any answer is seen."""
        splits, seed = self.splits, self.task.seed
        metric = default_metric(splits.kind) if self.task.metric == "auto" else self.task.metric
        if metric == "accuracy" and splits.kind != "classification":
            raise InputError(
                "accuracy needs labels, these answers are free text", where="metric", cure="use exact-match"
            )
        scoring = Scoring(metric, splits.labels, self._new_tokens(), model_decoding(splits.kind))
        validation = stratified(splits.validation, _VALIDATION_ROWS, seed, splits.kind)
        test = stratified(splits.test, test_rows, seed, splits.kind)
        return Bench(self.task, splits.kind, scoring, splits.train, validation, test, self.folder, self.watcher)

    def _new_tokens(self) -> int:
        """Room for the longest label, or for nearly all training answers, and the end token."""
        encode = self.local.renderer.encode_text
        if self.splits.kind == "classification":
            return max(len(encode(label)) for label in self.splits.labels) + 4
        lengths = sorted(len(encode(example.answer)) for example in self.splits.train)
        return min(_MOST_NEW_TOKENS, int(lengths[int(0.99 * (len(lengths) - 1))] * 1.25) + 8)


def make_plan(work: Workshop, clock: float) -> None:
    """Measure this machine on these rows, choose the settings, allot the budget; write plan.json."""
    bench = work.bench(len(work.splits.test))
    chosen = continued(work.task.training, work.start)
    settings = training_plan(chosen, train_rows=len(bench.train), width=work.local.model.config.hidden_size)
    disk_bytes = _disk_bytes(work, settings)
    memory = _memory(work, bench, settings)
    rates = _measure(work, bench, settings, memory.micro_batch_tokens)
    epochs, batch_size = float(settings.epochs.value), int(settings.batch_size.value)
    wanted = dict.fromkeys(rates.train, (epochs, batch_size))
    rows = Rows(len(bench.train), len(bench.validation), len(bench.test))
    choices = {FEW_SHOT: len(SHOT_COUNTS)}
    spent = time.monotonic() - clock
    allotment = allot(work.task.budget, spent, rows, rates, wanted, choices, work.task.training.seeds)
    plan = _plan_json(work, settings, memory, rates, allotment)
    plan["predicted"]["disk_bytes"] = disk_bytes
    plan = add_probes(plan, bench, work.local, rates, len(work.splits.validation))
    write_json(work.folder.plan, plan)
    work.watcher.note(f"plan: {allotment.test_rows:,} of {rows.test:,} test rows; " + "; ".join(
        f"{arm} {trained.epochs:.1f} epochs in {trained.seconds:.0f} s" for arm, trained in allotment.trainings.items()
    ))  # fmt: skip


def _memory(work: Workshop, bench: Bench, settings: TrainingPlan) -> MemoryPlan:
    """Micro-batches that fit this machine with the largest training that is wanted, behind the full prompt."""
    return work.local.memory(bench.form(FULL), bench.train, _largest(work, settings), _MICRO_BATCH_TOKENS)


def _largest(work: Workshop, settings: TrainingPlan) -> Recipe:
    """The recipe of the arm that trains most parameters."""
    full = [name for name in arms_of(work.task) if name in (WEIGHTS_SHORT, WEIGHTS_FULL)]
    return recipe_of(settings.to_json(), full[0] if full else LORA_SHORT, work.task.seed)


def _disk_bytes(work: Workshop, settings: TrainingPlan) -> int:
    """What trainings will write at most at one time. Raises MachineError when the disk has less."""
    needed = work.local.disk_bytes(_largest(work, settings), work.task.training.seeds)
    free = shutil.disk_usage(work.folder.path).free
    if needed > free:
        raise MachineError(
            f"the trainings need {needed / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free",
            where=str(work.folder.path),
            cure="free some space, choose another place with --out, or train adapters (training.method: lora)",
        )
    return needed


def _memory_settings(memory: MemoryPlan) -> dict[str, Any]:
    return {
        "micro_batch_tokens": Setting(memory.micro_batch_tokens, memory.why, "measured").to_json(),
        "recompute": Setting("on" if memory.recompute else "off", memory.why, "measured").to_json(),
    }


def _measure(work: Workshop, bench: Bench, settings: TrainingPlan, most_tokens: int) -> Rates:
    """Wall seconds per row of each arm, on a few real rows."""
    batch_size = int(settings.batch_size.value)
    local, task = work.local, work.task
    few = 16 if task.budget < 150 else 32
    sample = bench.validation[:few]
    arms = list(arms_of(task))
    full = bench.form(FULL)
    forms = {
        ZERO_SHOT: full,
        FEW_SHOT: with_shots(full, bench.train, max(SHOT_COUNTS), task.seed, bench.kind),
        LORA_SHORT: bench.form(SHORT),
        LORA_FULL: full,
        WEIGHTS_SHORT: bench.form(SHORT),
        WEIGHTS_FULL: full,
    }
    if forms[LORA_SHORT].messages(sample[0]) == full.messages(sample[0]):
        arms = [name for name in arms if name not in (LORA_FULL, WEIGHTS_FULL)]
    work.watcher.begin("measuring this machine", 2 * len(arms))
    answer: dict[str, Rate] = {}
    train: dict[str, float] = {}
    for name in arms:
        if name in forms and ARMS[name] == "prompt":
            answer[name] = local.answer_rate(forms[name], sample, bench.scoring)
        elif name in forms:
            recipe = recipe_of(settings.to_json(), name, task.seed)
            with local.tuned(recipe):
                answer[name] = local.answer_rate(forms[name], sample, bench.scoring)
            batches = 1 if forms[name] is full else 3
            rows = stratified(bench.train, batches * batch_size, task.seed, bench.kind)
            train[name] = local.training_rate(forms[name], rows, batch_size, recipe, most_tokens)
        work.watcher.advance(2)
    # Fitting grows with rows and labels; BANKING77 (9,800 rows, 77 labels) takes 11 to 15 s on one core.
    classical = 1.0 + 2.5e-5 * len(bench.train) * max(2, len(bench.scoring.labels)) if CLASSICAL in arms else 0.0
    return Rates(answer, train, classical)


def _plan_json(
    work: Workshop, settings: TrainingPlan, memory: MemoryPlan, rates: Rates, allotment: Allotment
) -> dict[str, Any]:
    price = machine_price(work)
    planned = sum(seconds for stage, seconds in allotment.seconds.items() if stage != "reserve")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    measured = {"reason": "measured on a few of your rows before anything started", "source": "measured"}
    rate_settings = {
        f"{arm}.answer_seconds_per_row": {"value": round(rate.a_row, 5), **measured}
        for arm, rate in rates.answer.items()
    } | {f"{arm}.train_seconds_per_row": {"value": round(rate, 5), **measured} for arm, rate in rates.train.items()}
    return {
        "schema": "tuneworth.plan/1",
        "settings": settings.to_json()
        | {
            "precision": work.precision.to_json(),
            "compiled_kernels": work.compiled.to_json(),
            **_memory_settings(memory),
        }
        | rate_settings,
        "predicted": {
            "seconds": planned,
            "peak_bytes": max(used, memory.peak_bytes),  # what was used while measuring is needed in any case
            "usd": planned / 3600 * price.usd_per_machine_hour,
        },
        "budget": dict(allotment.seconds),
        "test_rows": allotment.test_rows,
        "trainings": {arm: asdict(trained) for arm, trained in allotment.trainings.items()},
        "skipped": dict(allotment.skipped),
        "machine": work.machine.to_json(),
    }


def machine_price(work: Workshop) -> Price:
    """The price of an hour of this machine: the user's, or the dated default."""
    return machine_hour_price(work.task.decision.usd_per_machine_hour, work.machine.cores, len(work.machine.gpus))


def local_model(model_id: str, machine: Machine, precision: str = "auto") -> LocalModel:
    """A model loaded for this machine in `precision` (bf16, fp32, or what is measured to be faster)."""
    folder = find_model(model_id)
    renderer = Renderer.load(folder.path)
    dtype = DTYPES[choose_precision(machine)[0] if precision == "auto" else precision]
    return LocalModel(folder, renderer, load_model(folder, dtype=dtype, device=machine.device), machine.device)
