"""Settings with reasons: each value of the training, why it was chosen, and where to override it.

Published rules that are used: "LoRA Without Regret" (Schulman et al. 2025, Thinking Machines): LoRA on all layers does
as well as full fine-tuning while its parameters can hold what the rows teach, its best learning rate is about ten times
that of full fine-tuning and hardly depends on the rank, and it bears large batches less well. Its factor B learns best
faster than A (LoRA+, Hayou et al. 2024, arXiv:2402.12354). Capacity of about two
bits a parameter: Allen-Zhu & Li 2024, arXiv:2404.05405. Batches: past the gradient's noise scale a larger batch buys
little (McCandlish et al. 2018, arXiv:1812.06162), so it follows the number of rows. Own measurements: docs/log.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tuneworth.errors import InputError, Problem, nearest
from tuneworth.task import Training

# LoRA's learning rate: ten times that of full fine-tuning, falling with model width as (2000 / width)^0.78
# ("LoRA Without Regret", Thinking Machines 2025, rule for Llama-shaped models). On SmolLM2-135M (width 576) the
# rule gives 1.3e-3; 2e-3 did as well or better there (docs/log.md), so the base below is 1.5 times the rule's.
_BASE_RATE = 5e-5 * 10 * 1.5
_WIDTH_EXPONENT = 0.78
_FULL_SHARE = 0.1
_B_RATIO, _A_SHARE = 8.0, 0.5  # A at half the rate that one rate for both would be, B at eight times A's
_PREFERENCE_SHARE, _PREFERENCE_EPOCHS = 0.1, 3
_RSLORA_ALPHA = 8  # at rank 16 the same scale as alpha 32 without the root
_RANKS = (16, 32, 64, 128, 256)
_BITS_A_PARAMETER, _BITS_A_TOKEN = 2.0, 1.0  # what an adapter can hold; what a trained token teaches at most
_ROWS_FOR_LARGE_BATCH = 20_000


@dataclass(frozen=True, slots=True)
class Setting:
    """A resolved value, the reason for it, and where it came from (`default`, `task.yaml`, `measured`)."""

    value: float | int | str
    reason: str
    source: str

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """The settings of a training. `epochs` is what is wanted; the budget may afford fewer."""

    method: Setting
    epochs: Setting
    batch_size: Setting
    learning_rate: Setting
    lora_b_ratio: Setting
    full_learning_rate: Setting
    rank: Setting
    alpha: Setting
    warmup_share: Setting
    schedule: Setting

    def to_json(self) -> dict[str, Any]:
        """{name: {value, reason, source}}."""
        return {name: getattr(self, name).to_json() for name in self.__slots__}


def training_plan(
    chosen: Training,
    *,
    train_rows: int,
    width: int,
    preference: bool = False,
    trained_tokens: int | None = None,
    adapter_parameters_a_rank: int | None = None,
) -> TrainingPlan:
    """Settings for `train_rows` rows on a model of hidden size `width`; what the user fixed stays fixed.

    Preferences move a model that answers already: a tenth of the rate, the same for A and B, and few passes, or it
    learns the pairs by heart.
    With the tokens that one pass trains and the adapter's parameters at rank 1, the rank follows from what is to be
    held; without them it is the smallest.
    """

    def pick(name: str, value: float, reason: str) -> Setting:
        fixed = getattr(chosen, name)
        if fixed is not None:
            return Setting(fixed, "fixed by you", f"training.{name}")
        return Setting(value, f"{reason} (override: training.{name})", "default")

    epochs = min(_epochs(train_rows), _PREFERENCE_EPOCHS) if preference else _epochs(train_rows)
    batch, why_batch = _batch(train_rows)
    rate = (_PREFERENCE_SHARE if preference else 1) * _BASE_RATE * (2000 / width) ** _WIDTH_EXPONENT
    rank = pick("rank", *_rank(trained_tokens, adapter_parameters_a_rank))
    method = "lora" if chosen.method == "auto" else chosen.method
    alpha = Setting(2 * int(rank.value), "twice the rank, so that the learning rate does not depend on it", "default")
    if method == "rslora":
        alpha = Setting(_RSLORA_ALPHA, "divided by the root of the rank: the scale of lora at rank 16", "default")
    full_rate = pick("learning_rate", _rounded(_FULL_SHARE * rate), "every weight moves: a tenth of one rate for LoRA")
    why_rate, why_ratio = (
        f"of LoRA's A, by the rule for a model of width {width}",
        "B learns best faster than A (LoRA+)",
    )
    if preference:
        why_rate, why_ratio = f"LoRA rule for a model of width {width}, a tenth", "pairs were measured at one rate"
    return TrainingPlan(
        method=Setting(method, *_why_method(chosen.method)),
        epochs=pick("epochs", epochs, f"{train_rows:,} rows: few rows need more passes, many rows fewer"),
        batch_size=pick("batch_size", batch, why_batch),
        learning_rate=pick("learning_rate", _rounded(rate if preference else _A_SHARE * rate), why_rate),
        lora_b_ratio=Setting(1.0 if preference else _B_RATIO, why_ratio, "default"),
        full_learning_rate=full_rate,
        rank=rank,
        alpha=alpha,
        warmup_share=Setting(0.06, "the first steps are small while Adam's averages are young", "default"),
        schedule=Setting(
            chosen.schedule,
            "falls to nothing by the last step" if chosen.schedule == "linear" else "fixed by you",
            "default" if chosen.schedule == "linear" else "training.schedule",
        ),
    )


def from_openai(given: Mapping[str, object], *, train_rows: int, width: int) -> Training:
    """OpenAI's `hyperparameters` (`n_epochs`, `batch_size`, `learning_rate_multiplier`, each a number or "auto") as
    settings; a multiplier scales the learning rate that would be chosen. Raises InputError with every mistake.
    """
    problems = [
        Problem(f"'{name}' is no hyperparameter", f"hyperparameters.{name}", nearest(name, _OPENAI))
        for name in given
        if name not in _OPENAI
    ]
    values: dict[str, float] = {}
    for name, (low, high, whole) in _OPENAI.items():
        value = given.get(name, "auto")
        if value == "auto" or value is None:
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high or (whole and value != int(value)):  # type: ignore[operator, call-overload]
            kind = "a whole number" if whole else "a number"
            cure = f"'auto', or {kind} from {low:g} to {high:g}"
            problems.append(Problem(f"{value!r} cannot be used", f"hyperparameters.{name}", cure))
            continue
        values[name] = value  # type: ignore[assignment]
    if problems:
        raise InputError.of(problems)
    settings: dict[str, float] = {}
    if "n_epochs" in values:
        settings["epochs"] = values["n_epochs"]
    if "batch_size" in values:
        settings["batch_size"] = int(values["batch_size"])
    if "learning_rate_multiplier" in values:
        plain = training_plan(Training(), train_rows=train_rows, width=width).learning_rate.value
        settings["learning_rate"] = min(1.0, float(plain) * values["learning_rate_multiplier"])
    return Training(**settings)


# Limits as in OpenAI's reference; a multiplier has none there but being over 0.
_OPENAI: Mapping[str, tuple[float, float, bool]] = {
    "n_epochs": (1, 50, True),
    "batch_size": (1, 256, True),
    "learning_rate_multiplier": (1e-6, 1e3, False),
}


def _rounded(rate: float) -> float:
    return float(f"{rate:.1e}")


def _epochs(train_rows: int) -> int:
    return next(e for limit, e in ((400, 10), (1500, 8), (5000, 5), (10**12, 3)) if train_rows < limit)


def _batch(train_rows: int) -> tuple[int, str]:
    if train_rows < _ROWS_FOR_LARGE_BATCH:
        return 16, f"{train_rows:,} rows: small, so that there are enough steps; LoRA gains nothing by large batches"
    return 32, f"{train_rows:,} rows: steps are plenty, and larger batches fill the matrix units better"


def _rank(trained_tokens: int | None, a_rank: int | None) -> tuple[int, str]:
    """The smallest rank whose parameters hold what one pass over the rows can teach."""
    if trained_tokens is None or not a_rank:
        return _RANKS[0], "enough capacity for a task of this size; more costs time and changes little"
    needed = trained_tokens * _BITS_A_TOKEN / (_BITS_A_PARAMETER * a_rank)
    rank = next((rank for rank in _RANKS if rank >= needed), _RANKS[-1])
    told = f"{rank * a_rank / 1e6:.1f} M parameters hold what {trained_tokens:,} trained tokens teach"
    if needed > rank:
        told = f"the largest; {trained_tokens:,} trained tokens may teach more: consider training.method=full"
    return rank, told


def _why_method(chosen: str) -> tuple[str, str]:
    if chosen == "auto":
        return "an adapter of a few MB, trained in a fraction of the memory (override: training.method)", "default"
    return "fixed by you", "training.method"
