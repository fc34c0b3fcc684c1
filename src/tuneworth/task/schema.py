"""The task: what the user wants. Every setting of `task.yaml` is defined here once, with its help text;
the command line, the commented file that `init` writes, and the documentation read it from these fields."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator

Kind = Literal[
    "auto", "classification", "multilabel", "extraction", "generation", "reasoning", "chat", "tools", "preference"
]
Method = Literal["auto", "lora", "rslora", "dora", "full"]
Schedule = Literal["linear", "cosine", "warmup-stable-decay"]
Precision = Literal["auto", "bf16", "fp32"]
Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]

DEFAULT_MODEL = "smollm2-135m-instruct"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_seconds(value: object) -> object:
    """`90`, `"90s"`, `"10m"`, `"1h30m"` become seconds (float). Other shapes pass through to be refused."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        return sum(float(n) * _UNITS[u] for n, _, u in re.findall(r"(\d+(\.\d+)?)([smhd])", text))
    raise ValueError(f"'{value}' is no duration; write for example 90s, 10m or 1h30m")


def format_seconds(seconds: float) -> str:
    """Seconds for people: `45s`, `10m`, `1h05m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m" + (f"{whole % 60:02d}s" if whole % 60 else "")
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


Seconds = Annotated[float, BeforeValidator(parse_seconds)]


class Section(BaseModel):
    """A part of the task file: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)


class Columns(Section):
    input: str | None = Field(None, description="column that holds the text the model reads")
    output: str | None = Field(None, description="column that holds the wanted answer or label")
    rejected: str | None = Field(None, description="column that holds the worse answer of a preference pair")
    group: str | None = Field(None, description="rows with the same value never land in two splits")
    time: str | None = Field(None, description="column that says when a row came up; then the newest are the test")
    id: str | None = Field(None, description="column with a stable id of each row")


class Data(Section):
    train: str | None = Field(
        None, description="the examples: a file, a folder, a registered set as NAME@VERSION, or a hub id"
    )
    validation: str | None = Field(None, description="rows for choosing; split off train when absent")
    test: str | None = Field(None, description="rows for judging; split off train when absent")
    test_share: float = Field(0.2, ge=0.01, le=0.5, description="share of the rows that is split off for judging")
    traffic: str | None = Field(
        None,
        description="a sample of real requests: which are not covered, and (arm distilled) to be answered and learnt",
    )
    documents: str | None = Field(None, description="a folder of texts (.txt, .md): prompting with passages is an arm")
    columns: Columns = Field(default_factory=Columns, description="which column is what; guessed if absent")


class Prompt(Section):
    system: str | None = Field(None, description="the system message you use today; ours when absent")
    labels: Literal["auto"] | list[str] = Field("auto", description="the allowed answers, or auto")
    json_schema: dict[str, Any] | None = Field(
        None, description="JSON Schema of extracted objects; read off the training answers when absent"
    )


class FineTune(Section):
    usd_per_million_trained: float | None = Field(None, ge=0, description="price of a million tokens trained on")
    usd_per_million_input: float | None = Field(None, ge=0, description="of a million tokens the tuned model reads")
    usd_per_million_output: float | None = Field(None, ge=0, description="of a million tokens the tuned model writes")


class Provider(Section):
    base_url: str = Field(description="where the endpoint is, for example https://api.openai.com/v1")
    model: str = Field(min_length=1, description="the model's name there")
    api_key_env: str | None = Field(None, description="environment variable that holds the key; none is sent if absent")
    usd_per_million_input: float | None = Field(None, ge=0, description="price of a million tokens read")
    usd_per_million_output: float | None = Field(None, ge=0, description="price of a million tokens written")
    fine_tune: FineTune | None = Field(
        None, description="true, or the prices: upload train and validation rows and pay for a training there"
    )

    @field_validator("fine_tune", mode="before")
    @classmethod
    def _is_wanted(cls, value: object) -> object:
        return {True: {}, False: None}[value] if isinstance(value, bool) else value

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("an address that begins with http:// or https:// is needed")
        if parts.username is not None or parts.password is not None:
            raise ValueError("a key in the address would be written to files; name its variable in api_key_env")
        return value.rstrip("/")


ProviderName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}$")]


class Decision(Section):
    minimum_effect: float = Field(0.01, ge=0, le=1, description="smallest score difference that matters to you")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="confidence of every interval")
    required_score: float | None = Field(None, ge=0, le=1, description="score below which no arm is good enough")
    requests_per_month: int = Field(100_000, ge=0, description="how often the task runs in a month")
    horizon_months: float = Field(12, gt=0, description="months over which costs are added up")
    usd_per_machine_hour: float | None = Field(
        None,
        ge=0,
        description="price of one hour of this machine; a dated default is used and shown when absent",
    )
    usd_for_labels: float = Field(0.0, ge=0, description="what labelling the training data cost")
    labels_shared_by: int = Field(1, ge=1, description="tasks that use the same labelled data and share its cost")
    retrain_months: float | None = Field(None, gt=0, description="months after which trained arms are built anew")
    idle_hours_per_month: float = Field(
        0.0, ge=0, le=744, description="hours a month in which your own machine waits for requests and is paid for"
    )
    largest_forgetting: float | None = Field(
        None, ge=0, le=1, description="accuracy on general questions (0..1) that a fine-tuned arm may lose"
    )


class Training(Section):
    method: Method = Field("auto", description="adapters (lora, rslora, dora) or all weights (full); auto is lora")
    from_: str | None = Field(
        None, alias="from", description="a run folder: its best fine-tuned arm is where training starts"
    )
    turns: Literal["all", "last"] = Field(
        "all", description="which answers of a conversation are learnt; those of weight 0 never are"
    )
    epochs: float | None = Field(None, gt=0, le=50, description="passes over the training rows")
    batch_size: int | None = Field(None, ge=1, le=256, description="rows in one optimiser step")
    learning_rate: float | None = Field(None, gt=0, le=1, description="peak learning rate")
    rank: int | None = Field(None, ge=1, le=512, description="rank of the LoRA matrices")
    schedule: Schedule = Field("linear", description="how the learning rate falls after its rise")
    patience: int | None = Field(
        None, ge=1, description="stop after so many looks at validation without a better score; never when absent"
    )
    search: bool = Field(
        False, description="try other learning rates, batch sizes and ranks on validation first, and use what wins"
    )
    seeds: int = Field(1, ge=1, le=10, description="trainings per arm; the best on validation is used")
    precision: Precision = Field("auto", description="bf16 or fp32; auto is what is measured to be faster here")
    deterministic: bool = Field(False, description="the same bits each time; each prompt is asked alone, which is slow")
    trackers: list[Tracker] = Field([], description="also log to these; their libraries must be installed")


class Task(Section):
    schema_: Literal["tuneworth.task/1"] = Field("tuneworth.task/1", alias="schema", description="format of this file")
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="a short name of the task")
    kind: Kind = Field("auto", description="what the answers are; guessed when auto")
    data: Data = Field(default_factory=Data, description="where the rows are")
    prompt: Prompt = Field(default_factory=Prompt, description="what the model is told")
    models: Literal["auto"] | Annotated[list[str], Field(min_length=1, max_length=8)] = Field(
        [DEFAULT_MODEL], description="the pre-trained model; of several, or of those at hand (auto), a race finds one"
    )
    providers: dict[ProviderName, Provider] = Field(
        {}, description="hosted models to compare: name: {base_url, model, api_key_env, prices}"
    )
    arms: Literal["auto"] | list[str] = Field("auto", description="the ways to compare, or auto for all that apply")
    metric: str = Field(
        "auto",
        pattern=r"^[a-z][a-z0-9-]{0,39}$|^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="the score that the verdict is made from: auto, a name, or your own package.module:function",
    )
    judge: str | None = Field(
        None, min_length=1, description="who compares texts with the wanted ones: a name of providers, or a local model"
    )
    decision: Decision = Field(default_factory=Decision, description="what the verdict weighs")
    training: Training = Field(default_factory=Training, description="settings of the training; auto when absent")
    budget: Seconds = Field(600.0, gt=0, description="wall time of the whole run, for example 10m")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="seed of every random choice")

    @property
    def model(self) -> str:
        """The pre-trained model; before a race among several, the first of them."""
        return DEFAULT_MODEL if self.models == "auto" else self.models[0]

    @property
    def is_raced(self) -> bool:
        """Whether the pre-trained model is yet to be found among several."""
        return self.models == "auto" or len(self.models) > 1
