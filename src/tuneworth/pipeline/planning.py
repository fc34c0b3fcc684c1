"""What the stages after the data share, and the plan: measured rates, settings with reasons, the budget allotted."""

from __future__ import annotations

import math
import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from tuneworth.data import Example
from tuneworth.data.documents import read_passages
from tuneworth.data.vectors import Vectorise
from tuneworth.decision import Price, machine_hour_price
from tuneworth.decision.power import power_in_words
from tuneworth.errors import InputError, MachineError
from tuneworth.evaluation.arms import Bench, model_decoding, stratified
from tuneworth.evaluation.documents import Passages
from tuneworth.evaluation.forms import Answerer
from tuneworth.evaluation.hosted import HostedModel, endpoint_of
from tuneworth.evaluation.hosted_tuned import Trainer
from tuneworth.evaluation.local import LocalModel, Scoring
from tuneworth.evaluation.metrics import check_metric, choose_metric
from tuneworth.evaluation.prompts import FULL, SHORT, Told
from tuneworth.evaluation.records import Decoding
from tuneworth.evaluation.retrieved import Neighbours
from tuneworth.evaluation.watching import Watcher
from tuneworth.inference.hosted import HostedChat
from tuneworth.inference.hosted_jobs import HostedJobs
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
from tuneworth.pipeline.continuing import Start, find_start
from tuneworth.pipeline.ladder import AT, CLASSICAL, DISTILLED, LORA_SHORT, Arm, Taught, arms_of, misfit
from tuneworth.pipeline.preparing import Prepared, vectors_of
from tuneworth.pipeline.probe_planning import add_probes
from tuneworth.pipeline.settling import settings_of
from tuneworth.plan import (
    TEACHING,
    Allotment,
    Course,
    Prompts,
    Rate,
    Rates,
    Rows,
    Setting,
    Teachers,
    TrainingPlan,
    allot,
    with_teaching,
)
from tuneworth.plan.judging import JudgePlan
from tuneworth.rendering import Renderer
from tuneworth.rendering.tools import reply_text
from tuneworth.store.atomic import read_json, write_json
from tuneworth.store.replies import Replies
from tuneworth.store.run import RunFolder
from tuneworth.task import FineTune, Provider, Task

_VALIDATION_ROWS, _VALIDATION_ROWS_OF_TEXT = 200, 64  # a text takes as long as dozens of labels
_MEASURED_ROWS_OF_TEXT = 6
_MOST_NEW_TOKENS = 256
_MORE_NEW_TOKENS = {"reasoning": 512, "extraction": 512, "tools": 384}
"""Kinds whose answers are worth nothing when they are cut off get more room."""
_MICRO_BATCH_TOKENS = 4096


def recipe_of(settings: Mapping[str, Any], all_weights: bool, seed: int, start: Path | None = None) -> Recipe:
    """How an arm is tuned, from the settings of a plan."""
    values = {name: setting["value"] for name, setting in settings.items()}
    lora = "lora" if values["method"] == FULL_METHOD else values["method"]
    return Recipe(FULL_METHOD if all_weights else lora, values["rank"], values["alpha"], seed, start)


class Workshop:
    """What the stages after the data share; the model is loaded when it is first needed."""

    def __init__(
        self,
        task: Task,
        folder: RunFolder,
        splits: Prepared,
        watcher: Watcher,
        started: float | None = None,
        *,
        allow_code: bool = False,
    ) -> None:
        """`started` is when the run began (time.monotonic); None when it is continued and the time is not known.

        Raises InputError when the task's metric does not suit its kind, or is code that is not allowed.
        """
        self.started = started
        if splits.kind == "preference" and any(arm.provider for arm in arms_of(task).values()):
            raise InputError(
                "hosted models tell no probabilities, so they cannot judge pairs of answers",
                where="providers",
                cure="leave the providers out of the task, or name arms without them",
            )
        self.schema = splits.schema
        self.metric = choose_metric(task, splits.kind, splits.labels, self.schema, allow_code=allow_code)
        check_metric(self.metric, splits.train)
        given = task.prompt.json_schema is not None
        self.told = Told.of(splits.train, self.schema, schema_given=given, columns=splits.columns)
        self.task = task
        self.folder = folder
        self.splits = splits
        self.watcher = watcher
        self.machine: Machine = this_machine()
        self._local: LocalModel | None = None
        self._neighbours: Neighbours | None = None
        self._hosted: dict[str, HostedModel] = {}
        self._precision: Setting | None = None
        self._compiled: Setting | None = None
        self._decoding: Setting | None = None
        if task.training.deterministic:
            compute_deterministically()

    @property
    def local(self) -> LocalModel:
        """The pre-trained model, loaded once."""
        if self._local is None:
            alone = self.task.training.deterministic
            self._local = local_model(self.task.model, self.machine, str(self.precision.value), alone=alone)
            compile_kernels(bool(self.compiled.value), compiled_folder())
        return self._local

    def model_of(self, arm: Arm) -> Answerer:
        """Who answers for a prompting arm: the local model, or the arm's provider."""
        return self.local if arm.provider is None else self._provider(arm.provider)

    @cached_property
    def judge(self) -> Answerer:
        """Who compares answers with the wanted ones: a provider, the task's own model as it was, or another one."""
        name = self.task.judge
        assert name is not None
        if name in self.task.providers:
            return self._provider(name)
        if name == self.task.model:
            return self.local
        return local_model(name, self.machine, str(self.precision.value))

    def _provider(self, name: str) -> HostedModel:
        if name not in self._hosted:
            self._hosted[name] = self._hosted_model(name, self.task.providers[name])
        return self._hosted[name]

    def trainer_of(self, arm: Arm) -> Trainer:
        """The provider that trains for an arm, and how the model that comes of it is asked: at prices of its own."""
        assert arm.provider is not None
        name, provider = arm.provider, self.task.providers[arm.provider]
        prices = provider.fine_tune or FineTune()

        def model_named(model: str) -> HostedModel:
            tuned = {
                "model": model,
                "usd_per_million_input": prices.usd_per_million_input,
                "usd_per_million_output": prices.usd_per_million_output,
            }
            return self._hosted_model(name, provider.model_copy(update=tuned))

        return Trainer(HostedJobs(endpoint_of(name, provider)), provider, model_named)

    def _hosted_model(self, name: str, provider: Provider) -> HostedModel:
        return HostedModel(HostedChat(endpoint_of(name, provider)), Replies(self.folder.replies(name)), provider)

    @property
    def neighbours(self) -> Neighbours:
        """The training rows by likeness, for retrieved examples; made once."""
        if self._neighbours is None:
            self._neighbours = Neighbours.of(self.splits.train, self.vectorise, self.task.seed)
        return self._neighbours

    @cached_property
    def passages(self) -> Passages:
        """The passages of the task's documents."""
        assert self.task.data.documents is not None
        return Passages.of(read_passages(Path(self.task.data.documents)))

    @cached_property
    def vectorise(self) -> Vectorise | None:
        """The table of word vectors, where it can be had."""
        return vectors_of(self.watcher)

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
    def decoding(self) -> Setting:
        """How local models answer; a continued run keeps what it began with."""
        if self.folder.plan.is_file():
            return Setting(**read_json(self.folder.plan)["settings"]["decoding"])
        if self._decoding is None:
            shown = [example.answer for example in (*self.splits.train, *self.splits.validation)]
            why_not = self.local.not_held(self.schema, shown) if self.schema is not None else None
            self._decoding = model_decoding(self.splits.kind, why_not)
        return self._decoding

    @property
    def start(self) -> Start | None:
        """The earlier run's arm to continue from, if one is named."""
        return find_start(self.task.training, self.local.folder)

    def bench(self, test_rows: int) -> Bench:
        """What arms need: the same test subset for all, drawn before any answer is seen."""
        splits, seed = self.splits, self.task.seed
        decoding = cast(Decoding, self.decoding.value)
        scoring = Scoring(self.metric, splits.labels, self._new_tokens(), decoding, splits.kind, self.schema)
        rows = _VALIDATION_ROWS if scoring.chooses else _VALIDATION_ROWS_OF_TEXT
        validation = stratified(splits.validation, rows, seed, splits.kind)
        test = stratified(splits.test, test_rows, seed, splits.kind)
        return Bench(
            self.task, splits.kind, scoring, splits.train, validation, test, self.folder, self.watcher, self.told,
            self.vectorise,
        )  # fmt: skip

    def _new_tokens(self) -> int:
        """Room for the longest label, or for nearly all training answers, and the end token."""
        encode, kind = self.local.renderer.encode_text, self.splits.kind
        if kind == "classification":
            return max(len(encode(label)) for label in self.splits.labels) + 4
        lengths = sorted(len(encode(reply_text(example.reply.to_openai()))) for example in self.splits.train)
        most = min(_MORE_NEW_TOKENS.get(kind, _MOST_NEW_TOKENS), self.local.folder.context_tokens // 2)
        return min(most, int(lengths[int(0.99 * (len(lengths) - 1))] * 1.25) + 8)


def make_plan(work: Workshop, clock: float, plan_judging: Callable[[Workshop, Bench], JudgePlan] | None = None) -> None:
    """Measure this machine on these rows, choose the settings, allot the budget; write plan.json. What a judge takes
    is set aside before the arms get theirs."""
    bench = work.bench(len(work.splits.test))
    settings = settings_of(work, bench)
    disk_bytes = _disk_bytes(work, settings)
    memory = memory_of(work, bench, settings)
    rates = _measure(work, bench, settings, memory.micro_batch_tokens)
    epochs, batch_size = float(settings.epochs.value), int(settings.batch_size.value)
    wanted = {arm: (epochs, batch_size) for arm in rates.train if arm != DISTILLED}
    rows = Rows(len(bench.train), len(bench.validation), len(bench.test))
    prompts = _prompts(work, bench)
    judging = plan_judging(work, bench) if plan_judging is not None else None
    spent = time.monotonic() - clock + (judging.seconds if judging else 0.0)
    allotment = allot(work.task.budget, spent, rows, rates, wanted, prompts, work.task.training.seeds)
    if DISTILLED in rates.train:
        course = Course(epochs, batch_size, work.task.training.seeds, rates.answer[DISTILLED], rates.train[DISTILLED])
        teachers = _teachers(work, rates, allotment)
        allotment = with_teaching(allotment, DISTILLED, rows, len(work.splits.unlabelled), teachers, course)
    plan = _plan_json(work, settings, memory, rates, allotment)
    plan["predicted"]["disk_bytes"] = disk_bytes
    plan = _with_race(work.folder, plan)
    if judging is not None:
        plan = _with_judge(plan, judging)
    plan = add_probes(plan, bench, work.local, rates, len(work.splits.validation))
    write_json(work.folder.plan, plan)
    work.watcher.note(f"plan: {allotment.test_rows:,} of {rows.test:,} test rows; " + "; ".join(
        f"{arm} {trained.epochs:.1f} epochs in {trained.seconds:.0f} s" for arm, trained in allotment.trainings.items()
    ))  # fmt: skip
    decision, arms = work.task.decision, len(arms_of(work.task))
    binary = bench.scoring.metric.name in ("accuracy", "exact-match")
    work.watcher.note(power_in_words(allotment.test_rows, arms, binary, decision.confidence, decision.minimum_effect))


def _with_judge(plan: dict[str, Any], judging: JudgePlan) -> dict[str, Any]:
    """The judge's seconds come after those of the arms; until then they count as spent."""
    budget = dict(plan["budget"])
    reserve = budget.pop("reserve")
    budget["before"] -= judging.seconds
    return plan | {"judge": asdict(judging), "budget": {**budget, "judge": judging.seconds, "reserve": reserve}}


def _prompts(work: Workshop, bench: Bench) -> dict[str, Prompts]:
    """The prompting arms for the plan. No arm chooses among more forms than it has; what a task names, it needs."""
    found = {}
    for arm in arms_of(work.task).values():
        if arm.asked and not misfit(arm, bench.kind):
            available, wanted = len(arm.asked.forms(work, bench)), arm.asked.prompts
            forms = tuple(sorted({min(count, available) for count in wanted.forms}, reverse=True))
            found[arm.name] = Prompts(forms, wanted.optional and work.task.arms == "auto")
        elif arm.taught_there and not misfit(arm, bench.kind):
            found[arm.name] = Prompts()  # it answers test; how long its endpoint trains beside us nobody knows
    return found


def _teachers(work: Workshop, rates: Rates, allotment: Allotment) -> Teachers:
    """The prompting arms that are planned, of which the best will teach."""
    asked = {arm.name: rates.answer[arm.name] for arm in arms_of(work.task).values() if arm.asked}
    planned = {arm: rate for arm, rate in asked.items() if arm in allotment.forms}
    return Teachers(planned, tuple(arm for arm in planned if allotment.forms[arm] == 1))


def memory_of(work: Workshop, bench: Bench, settings: TrainingPlan) -> MemoryPlan:
    """Micro-batches that fit this machine with the largest training that is wanted, behind the full prompt."""
    return work.local.memory(bench.form(FULL), bench.train, _largest(work, settings), _MICRO_BATCH_TOKENS, bench.kind)


def _largest(work: Workshop, settings: TrainingPlan) -> Recipe:
    """The recipe of the arm that trains most parameters."""
    all_weights = any(arm.taught.all_weights for arm in arms_of(work.task).values() if arm.taught)
    return recipe_of(settings.to_json(), all_weights, work.task.seed)


def _with_race(folder: RunFolder, plan: dict[str, Any]) -> dict[str, Any]:
    """`plan` with the model that a race found, and what that took of the time before the plan."""
    if not folder.race.is_file():
        return plan
    race = read_json(folder.race)
    before = plan["budget"]["before"]
    took = min(before, race["seconds"])
    model = Setting(race["winner"], f"{race['why']} (override: models)", "race").to_json()
    budget = {"before": before - took, "race": took} | {k: v for k, v in plan["budget"].items() if k != "before"}
    return plan | {"settings": {"model": model, **plan["settings"]}, "budget": budget}


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
    task = work.task
    sample = _sample(bench)
    arms = arms_of(task)
    work.watcher.begin("measuring this machine", 2 * len(arms))
    answer: dict[str, Rate] = {}
    train: dict[str, float] = {}
    for arm in arms.values():
        if arm.asked and arm.asked.rate_of in answer:
            answer[arm.name] = answer[str(arm.asked.rate_of)]
        elif arm.asked and not misfit(arm, bench.kind):
            dearest = arm.asked.forms(work, bench)[-1]
            model = work.model_of(arm)
            answer[arm.name] = model.answer_rate(dearest, sample, model.suited(bench.scoring))
        elif arm.taught_there and not misfit(arm, bench.kind):
            answer[arm.name] = _rate_there(work, bench, arm, answer)
        elif arm.taught and arm.taught.distils and (misfit(arm, bench.kind) or LORA_SHORT in train):
            if LORA_SHORT in train and not misfit(arm, bench.kind):  # the same training on more rows
                answer[arm.name], train[arm.name] = answer[LORA_SHORT], train[LORA_SHORT]
        elif arm.taught and not _same_as_short(bench, arm.taught):
            answer[arm.name], train[arm.name] = training_rates(work, bench, settings, arm.taught, most_tokens)
        work.watcher.advance(2)
    # Fitting grows with rows and labels; BANKING77 (9,800 rows, 77 labels) takes 11 to 15 s on one core.
    classical = 1.0 + 2.5e-5 * len(bench.train) * max(2, len(bench.scoring.labels)) if CLASSICAL in arms else 0.0
    return Rates(answer, train, classical)


def _rate_there(work: Workshop, bench: Bench, arm: Arm, known: Mapping[str, Rate]) -> Rate:
    """How fast a provider's model will answer when it is tuned: as fast as before, measured on another of its arms."""
    assert arm.taught_there is not None
    there = next((rate for name, rate in known.items() if name.endswith(f"{AT}{arm.provider}")), None)
    if there is not None:
        return there
    model = work.model_of(arm)
    return model.answer_rate(bench.form(arm.taught_there.form), _sample(bench), model.suited(bench.scoring))


def _same_as_short(bench: Bench, taught: Taught) -> bool:
    """Whether the full prompt of this task is no other than the short one, so that one training is enough."""
    row = bench.validation[0]
    return (
        taught.form == FULL and not taught.shots and bench.form(FULL).messages(row) == bench.form(SHORT).messages(row)
    )


def training_rates(
    work: Workshop, bench: Bench, settings: TrainingPlan, taught: Taught, most_tokens: int
) -> tuple[Rate, float]:
    """Wall seconds of answering as tuned, and of training a row."""
    form, batch_size = taught.form_of(bench), int(settings.batch_size.value)
    recipe = recipe_of(settings.to_json(), taught.all_weights, work.task.seed)
    with work.local.tuned(recipe):
        answer = work.local.answer_rate(form, _sample(bench), _learnt(work, bench))
    batches = 1 if taught.form == FULL else 3
    rows = stratified(bench.train, batches * batch_size, work.task.seed, bench.kind)
    return answer, work.local.training_rate(form, rows, batch_size, recipe, most_tokens, bench.kind)


def _sample(bench: Bench) -> tuple[Example, ...]:
    """The rows with which arms are timed."""
    if not bench.scoring.chooses:
        return bench.validation[:_MEASURED_ROWS_OF_TEXT]
    return bench.validation[: 16 if bench.task.budget < 150 else 32]


def _learnt(work: Workshop, bench: Bench) -> Scoring:
    """How a trained arm answers: as long as what it learnt from, where the model as it is goes on and on."""
    if bench.scoring.chooses:
        return bench.scoring
    lengths = [len(work.local.renderer.encode_text(reply_text(e.reply.to_openai()))) for e in bench.train[:400]]
    mean = math.ceil(sum(lengths) / max(1, len(lengths)))
    return replace(bench.scoring, max_new_tokens=min(bench.scoring.max_new_tokens, mean + 8))


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
            "decoding": work.decoding.to_json(),
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
        "budget": _in_order(allotment.seconds, list(arms_of(work.task))),
        "test_rows": allotment.test_rows,
        "forms": dict(allotment.forms),
        "trainings": {arm: asdict(trained) for arm, trained in allotment.trainings.items()},
        "skipped": dict(allotment.skipped),
        "taught": allotment.taught,
        "machine": work.machine.to_json(),
    }


def _in_order(seconds: Mapping[str, float], arms: Sequence[str]) -> dict[str, float]:
    """Seconds by stage, the stages in the order in which they run."""
    stages = [stage for arm in arms for stage in ((TEACHING, arm) if arm == DISTILLED else (arm,))]
    return {stage: seconds[stage] for stage in ("before", *stages, "reserve") if stage in seconds}


def machine_price(work: Workshop) -> Price:
    """The price of an hour of this machine: the user's, or the dated default."""
    return machine_hour_price(work.task.decision.usd_per_machine_hour, work.machine.cores, len(work.machine.gpus))


def local_model(model_id: str, machine: Machine, precision: str = "auto", *, alone: bool = False) -> LocalModel:
    """A model loaded for this machine in `precision` (bf16, fp32, or what is measured to be faster); see LocalModel for
    `alone`."""
    folder = find_model(model_id)
    renderer = Renderer.load(folder.path)
    dtype = DTYPES[choose_precision(machine)[0] if precision == "auto" else precision]
    model = load_model(folder, dtype=dtype, device=machine.device)
    return LocalModel(folder, renderer, model, machine.device, alone=alone)
