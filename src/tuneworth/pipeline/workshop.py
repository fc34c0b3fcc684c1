"""What the stages after the data share: the models, the bench of rows, and how answers are asked for."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import cast

from tuneworth.data.documents import read_passages
from tuneworth.data.vectors import Vectorise
from tuneworth.errors import InputError
from tuneworth.evaluation.arms import Bench, model_decoding, stratified
from tuneworth.evaluation.documents import Passages
from tuneworth.evaluation.forms import Answerer
from tuneworth.evaluation.hosted import HostedModel, endpoint_of
from tuneworth.evaluation.hosted_tuned import Trainer
from tuneworth.evaluation.local import LocalModel, Scoring
from tuneworth.evaluation.metrics import check_metric, choose_metric
from tuneworth.evaluation.prompts import Told
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
from tuneworth.models.sources import find_model
from tuneworth.pipeline.continuing import Start, find_start
from tuneworth.pipeline.ladder import Arm, arms_of
from tuneworth.pipeline.preparing import Prepared, vectors_of
from tuneworth.plan import (
    Setting,
)
from tuneworth.rendering import Renderer
from tuneworth.rendering.tools import reply_text
from tuneworth.store.atomic import read_json
from tuneworth.store.replies import Replies
from tuneworth.store.run import RunFolder
from tuneworth.task import FineTune, Provider, Task

_VALIDATION_ROWS, _VALIDATION_ROWS_OF_TEXT = 200, 64  # a text takes as long as dozens of labels
_MOST_NEW_TOKENS = 256
_MORE_NEW_TOKENS = {"reasoning": 512, "extraction": 512, "tools": 384}
"""Kinds whose answers are worth nothing when they are cut off get more room."""


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


def local_model(model_id: str, machine: Machine, precision: str = "auto", *, alone: bool = False) -> LocalModel:
    """A model loaded for this machine in `precision` (bf16, fp32, or what is measured to be faster); see LocalModel for
    `alone`."""
    folder = find_model(model_id)
    renderer = Renderer.load(folder.path)
    dtype = DTYPES[choose_precision(machine)[0] if precision == "auto" else precision]
    model = load_model(folder, dtype=dtype, device=machine.device)
    return LocalModel(folder, renderer, model, machine.device, alone=alone)
