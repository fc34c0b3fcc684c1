"""The run, top to bottom: read, split, audit, clean, plan, arms, verdict, report.

Each stage writes its file whole and is skipped when the file is there, so the same command continues a run that
was stopped anywhere, and a finished one returns at once.
"""

from __future__ import annotations

import hashlib
import json
import platform
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tuneworth.data import Example, Reading, audit, clean, read_examples, split
from tuneworth.decision import ArmResult, Price, decide, machine_hour_price
from tuneworth.errors import InputError
from tuneworth.evaluation.arms import (
    SHOT_COUNTS,
    Bench,
    classical_arm,
    prompt_arm,
    prompt_decoding,
    skip_arm,
    stratified,
    tuned_arm,
)
from tuneworth.evaluation.local import LocalModel, Scoring
from tuneworth.evaluation.metrics import default_metric
from tuneworth.evaluation.prompts import FULL, SHORT, with_shots
from tuneworth.evaluation.watching import Silent, Watcher
from tuneworth.inference import Chat
from tuneworth.models.loading import load_model
from tuneworth.models.machine import Machine, this_machine
from tuneworth.models.sources import check_model_id, find_model
from tuneworth.plan import EVALUATIONS, Allotment, Rate, Rates, Rows, TrainingPlan, allot, training_plan
from tuneworth.rendering import Renderer
from tuneworth.report import ReportData, render_report
from tuneworth.store.atomic import read_json, read_jsonl, write_json, write_jsonl, write_text
from tuneworth.store.cache import sha256_of
from tuneworth.store.run import RunFolder, read_arm
from tuneworth.task import Task, commented_yaml, load_task
from tuneworth.training import Settings

STAGES = ("audit", "split", "plan", "baseline", "train", "evaluate", "decide", "report")
CLASSICAL, ZERO_SHOT, FEW_SHOT, LORA_SHORT, LORA_FULL = (
    "tfidf",
    "zero-shot",
    "few-shot",
    "lora-short",
    "lora-full",
)
ARMS = {
    CLASSICAL: "classical",
    ZERO_SHOT: "prompt",
    FEW_SHOT: "prompt",
    LORA_SHORT: "fine-tune",
    LORA_FULL: "fine-tune",
}
_VALIDATION_ROWS = 200
_MOST_NEW_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Prepared:
    """The rows after cleaning, and what was recognised about them."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    kind: str
    labels: tuple[str, ...]
    data_sha256: str


class Run:
    """A run folder as Python sees it."""

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder.existing(path)
        self.path = path

    @property
    def verdict(self) -> dict[str, Any]:
        """verdict.json."""
        return read_json(self.folder.verdict)

    @property
    def audit(self) -> dict[str, Any]:
        """audit.json."""
        return read_json(self.folder.audit)

    @property
    def plan(self) -> dict[str, Any]:
        """plan.json."""
        return read_json(self.folder.plan)

    @property
    def report(self) -> Path:
        """The path of report.html."""
        return self.folder.report

    def arm(self, name: str) -> dict[str, Any]:
        """arm.json of an arm."""
        return read_arm(self.folder, name)

    @property
    def model(self) -> ArmChat:
        """The winning arm (or the best fine-tuned one when there is no winner), ready to talk."""
        return self.chat_with(None)

    def chat_with(self, arm: str | None) -> ArmChat:
        """An arm that runs on a local model, ready to talk. Raises InputError when there is none of that name."""
        usable = [name for name in self.folder.arm_names() if "prompt" in self.arm(name)]
        if arm is None:
            winner = self.verdict["winner"] if self.folder.verdict.is_file() else None
            arm = winner if winner in usable else max(usable, key=lambda name: self.arm(name)["score"], default=None)
        if arm is None or arm not in usable:
            raise InputError(
                f"there is no finished model arm '{arm}'",
                where=str(self.path),
                cure=f"choose one of {usable}",
            )
        record = self.arm(arm)
        local = _local_model(record["model"], this_machine())
        if record["family"] == "fine-tune":
            local.put_on(local.saved_adapter(self.folder.arm(arm) / "model"))
        labels = read_splits(self.folder).labels if record["decoding"] == "constrained" else ()
        return ArmChat(arm, local.chat(labels), record["prompt"][:-1])


@dataclass(frozen=True, slots=True)
class ArmChat:
    """An arm that answers as it was judged: its own system text and examples come before the user's messages."""

    name: str
    model: Chat
    opening: list[dict[str, str]]

    def chat(self, messages: list[dict[str, str]], *, max_new_tokens: int = 256, temperature: float = 0.0) -> str:
        """The whole answer to a conversation."""
        opened = [*self.opening, *messages]
        return self.model.chat(opened, max_new_tokens=max_new_tokens, temperature=temperature)


def run(task: Task, *, out: Path | None = None, until: str = "report", watcher: Watcher | None = None) -> Run:
    """Run (or continue) `task` through the stage `until` and return its folder.

    Raises InputError for mistakes in data or task, MachineError when this machine cannot do it, RunBusyError when
    another process works on the same folder.
    """
    clock = time.monotonic()
    for model in task.models:
        check_model_id(model)
    _check_arms(task)
    identity = _identity(task)
    name = task.name or _train_path(task).stem
    folder = RunFolder(out or Path("runs") / f"{name}-{identity[:8]}")
    folder.lock()
    try:
        folder.claim(commented_yaml(_with_absolute_paths(task)), identity)
        _run_stages(task, folder, until, watcher or Silent(), clock)
    finally:
        folder.unlock()
    return Run(folder.path)


def resume(path: Path, *, until: str = "report", watcher: Watcher | None = None) -> Run:
    """Continue the run in `path` through the stage `until`, with the task that it carries. Raises as `run` does."""
    clock = time.monotonic()
    folder = RunFolder.existing(path)
    folder.lock()
    try:
        _run_stages(load_task(folder.task), folder, until, watcher or Silent(), clock)
    finally:
        folder.unlock()
    return Run(path)


def _run_stages(task: Task, folder: RunFolder, until: str, watcher: Watcher, clock: float) -> None:
    last = STAGES.index(until)

    def wanted(stage: str, path: Path) -> bool:
        return STAGES.index(stage) <= last and not path.is_file()

    if wanted("audit", folder.splits / "splits.json"):
        prepare(task, folder, watcher)
    splits = read_splits(folder)
    if last < STAGES.index("plan"):
        return
    work = Workshop(task, folder, splits, watcher)
    if wanted("plan", folder.plan):
        make_plan(work, clock)
    for name, family in ARMS.items():
        stage = "train" if family == "fine-tune" else "baseline"
        if wanted(stage, folder.arm_record(name)) and (task.arms == "auto" or name in task.arms):
            started = time.monotonic()
            run_arm(work, name)
            folder.log("arm", name=name, seconds=time.monotonic() - started)
    if wanted("decide", folder.verdict):
        write_verdict(work)
    if wanted("report", folder.report):
        write_report(folder)


# --- data ---------------------------------------------------------------------------------------------------------


def prepare(task: Task, folder: RunFolder, watcher: Watcher) -> None:
    """Read, split, audit and clean the data; write audit.json and splits/."""
    watcher.begin("reading and auditing the data", 3)
    reading = read_examples(_train_path(task), task.data.columns, task.kind)
    others = [
        _read_other(task.data.validation, reading, "validation"),
        _read_other(task.data.test, reading, "test"),
    ]
    dropped = [*reading.dropped, *(finding for read in others if read for finding in read.dropped)]
    watcher.advance(1)
    kind = reading.shape.kind
    validation, test = (read.examples if read else () for read in others)
    watcher.advance(1)
    model = find_model(task.models[0])
    renderer = Renderer.load(model.path)

    def count_tokens(example: Example) -> int:
        texts = [*(message.content for message in example.messages), example.answer]
        return sum(len(renderer.encode_text(text)) for text in texts)

    found = audit(
        reading.examples, validation, test, kind=kind, count_tokens=count_tokens,
        context_tokens=model.context_tokens, dropped=dropped,
    )  # fmt: skip
    cleaned = clean(reading.examples, validation, test, found)
    # Split after cleaning: what is removed as a repeat can then not stand on both sides.
    parts = split(cleaned.train, kind=kind, validation_given=bool(validation), test_given=bool(test), seed=task.seed)
    rows = {
        "train": parts.train,
        "validation": cleaned.validation or parts.validation,
        "test": cleaned.test or parts.test,
    }
    labels = _labels(task, kind, rows["train"])
    for name, examples in rows.items():
        write_jsonl(folder.splits / f"{name}.jsonl", (example.to_json() for example in examples))
    write_jsonl(folder.splits / "removed.jsonl", (removal.to_json() for removal in cleaned.removed))
    write_json(folder.audit, {"schema": "tuneworth.audit/1", **found.to_json()})
    shape = {
        "kind": kind,
        "labels": labels,
        "data_sha256": _data_sha256(task),
        "shape": reading.shape.to_json(),
    }
    write_json(folder.splits / "splits.json", {"schema": "tuneworth.splits/1", **shape})
    for sentence in reading.shape.why:
        watcher.note(sentence)
    watcher.advance(1)


def read_splits(folder: RunFolder) -> Prepared:
    """The rows that `prepare` wrote."""
    about = read_json(folder.splits / "splits.json")
    rows = {
        name: tuple(Example.from_json(row) for row in read_jsonl(folder.splits / f"{name}.jsonl"))
        for name in ("train", "validation", "test")
    }
    return Prepared(**rows, kind=about["kind"], labels=tuple(about["labels"]), data_sha256=about["data_sha256"])


# --- plan ---------------------------------------------------------------------------------------------------------


class Workshop:
    """What the stages after the data share; the model is loaded when it is first needed."""

    def __init__(self, task: Task, folder: RunFolder, splits: Prepared, watcher: Watcher) -> None:
        self.task = task
        self.folder = folder
        self.splits = splits
        self.watcher = watcher
        self.machine: Machine = this_machine()
        self._local: LocalModel | None = None

    @property
    def local(self) -> LocalModel:
        """The pre-trained model, loaded once."""
        if self._local is None:
            self._local = _local_model(self.task.models[0], self.machine)
        return self._local

    def bench(self, test_rows: int) -> Bench:
        """What arms need: the same test subset for all, drawn before any answer is seen."""
        splits, seed = self.splits, self.task.seed
        metric = default_metric(splits.kind) if self.task.metric == "auto" else self.task.metric
        scoring = Scoring(metric, splits.labels, self._new_tokens())
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
    settings = training_plan(work.task.training, train_rows=len(bench.train), width=work.local.model.config.hidden_size)
    rates = _measure(work, bench, int(settings.batch_size.value))
    epochs, batch_size = float(settings.epochs.value), int(settings.batch_size.value)
    wanted = dict.fromkeys(rates.train, (epochs, batch_size))
    rows = Rows(len(bench.train), len(bench.validation), len(bench.test))
    choices = {FEW_SHOT: len(SHOT_COUNTS)}
    allotment = allot(work.task.budget, time.monotonic() - clock, rows, rates, wanted, choices)
    write_json(work.folder.plan, _plan_json(work, settings, rates, allotment))
    work.watcher.note(f"plan: {allotment.test_rows:,} of {rows.test:,} test rows; " + "; ".join(
        f"{arm} {trained.epochs:.1f} epochs in {trained.seconds:.0f} s" for arm, trained in allotment.trainings.items()
    ))  # fmt: skip


def _measure(work: Workshop, bench: Bench, batch_size: int) -> Rates:
    """Wall seconds per row of each arm, on a few real rows."""
    local, task = work.local, work.task
    few = 16 if task.budget < 150 else 32
    sample, decoding = bench.validation[:few], prompt_decoding(bench.kind)
    arms = [name for name in ARMS if task.arms == "auto" or name in task.arms]
    full = bench.form(FULL)
    forms = {
        ZERO_SHOT: full,
        FEW_SHOT: with_shots(full, bench.train, max(SHOT_COUNTS), task.seed, bench.kind),
        LORA_SHORT: bench.form(SHORT),
        LORA_FULL: full,
    }
    if forms[LORA_SHORT].messages(sample[0]) == full.messages(sample[0]):
        arms = [name for name in arms if name != LORA_FULL]
    work.watcher.begin("measuring this machine", 2 * len(arms))
    answer: dict[str, Rate] = {}
    train: dict[str, float] = {}
    for name in arms:
        if name in forms and ARMS[name] == "prompt":
            answer[name] = local.answer_rate(forms[name], sample, bench.scoring, decoding)
        elif name in forms:
            with local.adapted(local.fresh_adapter(16, 32, 0)):
                answer[name] = local.answer_rate(forms[name], sample, bench.scoring, "generate")
            batches = 1 if name == LORA_FULL else 3
            rows = stratified(bench.train, batches * batch_size, task.seed, bench.kind)
            train[name] = local.training_rate(forms[name], rows, batch_size)
        work.watcher.advance(2)
    classical = 1.0 + 2.5e-5 * len(bench.train) * max(2, len(bench.scoring.labels)) if CLASSICAL in arms else 0.0
    return Rates(answer, train, classical)


def _plan_json(work: Workshop, settings: TrainingPlan, rates: Rates, allotment: Allotment) -> dict[str, Any]:
    price = _price(work)
    planned = sum(seconds for stage, seconds in allotment.seconds.items() if stage != "reserve")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    measured = {"reason": "measured on a few of your rows before anything started", "source": "measured"}
    rate_settings = {
        f"{arm}.answer_seconds_per_row": {"value": round(rate.a_row, 5), **measured}
        for arm, rate in rates.answer.items()
    } | {f"{arm}.train_seconds_per_row": {"value": round(rate, 5), **measured} for arm, rate in rates.train.items()}
    return {
        "schema": "tuneworth.plan/1",
        "settings": settings.to_json() | rate_settings,
        "predicted": {
            "seconds": planned,
            "peak_bytes": peak,
            "usd": planned / 3600 * price.usd_per_machine_hour,
            "disk_bytes": None,
        },
        "budget": dict(allotment.seconds),
        "test_rows": allotment.test_rows,
        "trainings": {
            arm: {"steps": t.steps, "epochs": t.epochs, "seconds": t.seconds} for arm, t in allotment.trainings.items()
        },
        "skipped": dict(allotment.skipped),
        "machine": work.machine.to_json(),
    }


# --- arms ---------------------------------------------------------------------------------------------------------


def run_arm(work: Workshop, name: str) -> None:
    """Run one arm as planned, or write down why not."""
    plan = read_json(work.folder.plan)
    bench = work.bench(plan["test_rows"])
    if name in plan["skipped"]:
        skip_arm(bench, name, ARMS[name], plan["skipped"][name])
    elif name == CLASSICAL:
        classical_arm(bench, name)
    elif name in (ZERO_SHOT, FEW_SHOT):
        prompt_arm(bench, name, work.local, SHOT_COUNTS if name == FEW_SHOT else ())
    elif name not in plan["trainings"]:
        skip_arm(bench, name, ARMS[name], "the short and the full prompt are the same for this task")
    else:
        form = bench.form(FULL if name == LORA_FULL else SHORT)
        rank, alpha = (int(plan["settings"][key]["value"]) for key in ("rank", "alpha"))
        tuned_arm(bench, name, work.local, form, _settings(work, plan, name), rank, alpha)


def _price(work: Workshop) -> Price:
    return machine_hour_price(work.task.decision.usd_per_machine_hour, work.machine.cores, len(work.machine.gpus))


def _settings(work: Workshop, plan: Mapping[str, Any], name: str) -> Settings:
    values = {key: setting["value"] for key, setting in plan["settings"].items()}
    training = plan["trainings"][name]
    return Settings(
        steps=training["steps"],
        batch_size=values["batch_size"],
        learning_rate=values["learning_rate"],
        warmup_steps=max(1, round(values["warmup_share"] * training["steps"])),
        evaluate_every=max(1, -(-training["steps"] // EVALUATIONS)),
        seed=work.task.seed,
        maximum_seconds=training["seconds"] * 1.05,
        device=work.machine.device,
    )


# --- verdict ------------------------------------------------------------------------------------------------------


def write_verdict(work: Workshop) -> None:
    """Weigh the arms; write verdict.json."""
    folder = work.folder
    price = _price(work)
    records = [read_arm(folder, name) for name in ARMS if folder.arm_record(name).is_file()]
    metric = default_metric(work.splits.kind) if work.task.metric == "auto" else work.task.metric
    provenance = {
        "data": f"sha256:{work.splits.data_sha256}",
        "task": f"sha256:{sha256_of(folder.task)}",
        "code": version("tuneworth"),
        "machine": f"{work.machine}, {platform.system()}",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    results = [_result(folder, record, price) for record in records]
    verdict = decide(
        results, work.task.decision, metric=metric, price=price, provenance=provenance, seed=work.task.seed
    )
    write_json(folder.verdict, verdict.to_json())


def _result(folder: RunFolder, record: Mapping[str, Any], price: Price) -> ArmResult:
    """What the decision weighs of one arm; the cost to build is its machine time at the price of a machine hour."""
    head = {name: record[name] for name in ("name", "family", "model", "decoding", "status")}
    if record["status"] != "done":
        return ArmResult(**head, why=record["why"])
    rows = read_jsonl(folder.arm(record["name"]) / "answers.jsonl")
    groups = [row["group"] for row in rows]
    is_model = record["family"] != "classical"
    return ArmResult(
        **head,
        scores=tuple(row["score"] for row in rows),
        groups=tuple(map(str, groups)) if all(groups) else None,
        input_tokens=record["input_tokens"] if is_model else None,
        output_tokens=record["output_tokens"] if is_model else None,
        seconds_p50=record["latency_seconds"].get("p50"),
        seconds_p95=record["latency_seconds"].get("p95"),
        machine_seconds_per_request=record["machine_seconds_per_request"],
        row_seconds=tuple(row["seconds"] for row in rows),
        usd_to_build=record["build_seconds"] / 3600 * price.usd_per_machine_hour,
        truncated=record["truncated"],
        empty=record["empty"],
        invalid=record["invalid"],
    )


def write_report(folder: RunFolder) -> None:
    """Write report.html from what the stages wrote."""
    arms: list[dict[str, Any]] = []
    answers: dict[str, dict[str, Any]] = {}
    for name in ARMS:
        if folder.arm_record(name).is_file():
            record = read_arm(folder, name)
            metrics = folder.arm(name) / "training" / "metrics.jsonl"
            rows = read_jsonl(metrics) if metrics.is_file() else []
            record["training"] = {
                "metrics": [row for row in rows if "loss" in row],
                "evaluations": [row for row in rows if "validation_score" in row],
            } if rows else None  # fmt: skip
            arms.append(record)
            if record["status"] == "done":
                for row in read_jsonl(folder.arm(name) / "answers.jsonl"):
                    answers.setdefault(row["id"], {})[name] = {"raw": row["raw"], "score": row["score"]}
    task = load_task(folder.task).model_dump(mode="json", by_alias=True)
    data = ReportData(
        task=task, audit=read_json(folder.audit), plan=read_json(folder.plan),
        verdict=read_json(folder.verdict), arms=arms, answers=answers,
    )  # fmt: skip
    write_text(folder.report, render_report(data))


# --- small parts --------------------------------------------------------------------------------------------------


def _identity(task: Task) -> str:
    """A hash of everything that decides the run: the data by content, and the task but for where the data lies."""
    content = task.model_dump(mode="json", by_alias=True)
    for key in ("train", "validation", "test"):
        content["data"].pop(key)
    text = json.dumps(content, sort_keys=True) + _data_sha256(task)
    return hashlib.sha256(text.encode()).hexdigest()


def _with_absolute_paths(task: Task) -> Task:
    found = {key: getattr(task.data, key) for key in ("train", "validation", "test")}
    absolute = {key: str(Path(path).resolve()) if path else None for key, path in found.items()}
    return task.model_copy(update={"data": task.data.model_copy(update=absolute)})


def _train_path(task: Task) -> Path:
    if task.data.train is None:
        raise InputError("no data is named", where="data.train", cure="give a data file: tuneworth run DATA")
    return Path(task.data.train)


def _data_sha256(task: Task) -> str:
    """One hash over all data files, so that a run knows its data by content."""
    _train_path(task)
    digest = hashlib.sha256()
    for name in (task.data.train, task.data.validation, task.data.test):
        if name is not None:
            path = Path(name)
            if path.is_dir():
                raise InputError("this is a folder, but no run folder", where=name, cure="give a data file")
            if not path.is_file():
                raise InputError("there is no such data file", where=name, cure="check the path")
            digest.update(sha256_of(path).encode())
    return digest.hexdigest()


def _read_other(name: str | None, reading: Reading, role: Any) -> Reading | None:
    return read_examples(Path(name), reading.shape.columns, reading.shape.kind, role) if name else None


def _labels(task: Task, kind: str, train: tuple[Example, ...]) -> list[str]:
    if kind != "classification":
        return []
    if task.prompt.labels != "auto":
        return list(task.prompt.labels)
    return sorted({example.answer for example in train})


def _check_arms(task: Task) -> None:
    if task.arms != "auto":
        unknown = [name for name in task.arms if name not in ARMS]
        if unknown:
            raise InputError(f"unknown arms {unknown}", where="arms", cure=f"known: {', '.join(ARMS)}")


def _local_model(model_id: str, machine: Machine) -> LocalModel:
    folder = find_model(model_id)
    renderer = Renderer.load(folder.path)
    return LocalModel(folder, renderer, load_model(folder, dtype=machine.dtype, device=machine.device), machine.device)
