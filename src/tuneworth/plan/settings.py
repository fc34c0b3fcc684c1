"""Settings with reasons: each value of the training, why it was chosen, and where to override it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tuneworth.task import Training

# LoRA's learning rate: ten times that of full fine-tuning, falling with model width as (2000 / width)^0.78
# ("LoRA Without Regret", Thinking Machines 2025, rule for Llama-shaped models). On SmolLM2-135M (width 576) the
# rule gives 1.3e-3; 2e-3 did as well or better there (docs/log.md), so the base below is 1.5 times the rule's.
_BASE_RATE = 5e-5 * 10 * 1.5
_WIDTH_EXPONENT = 0.78
_FULL_SHARE = 0.1
_PREFERENCE_SHARE, _PREFERENCE_EPOCHS = 0.1, 3
_RSLORA_ALPHA = 8  # at rank 16 the same scale as alpha 32 without the root


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
    full_learning_rate: Setting
    rank: Setting
    alpha: Setting
    warmup_share: Setting
    schedule: Setting

    def to_json(self) -> dict[str, Any]:
        """{name: {value, reason, source}}."""
        return {name: getattr(self, name).to_json() for name in self.__slots__}


def training_plan(chosen: Training, *, train_rows: int, width: int, preference: bool = False) -> TrainingPlan:
    """Settings for `train_rows` rows on a model of hidden size `width`; what the user fixed stays fixed.

    Preferences move a model that answers already: a tenth of the rate, and few passes, or it learns the pairs by heart.
    """

    def pick(name: str, value: float, reason: str) -> Setting:
        fixed = getattr(chosen, name)
        if fixed is not None:
            return Setting(fixed, "fixed by you", f"training.{name}")
        return Setting(value, f"{reason} (override: training.{name})", "default")

    epochs = next(e for limit, e in ((400, 10), (1500, 8), (5000, 5), (10**12, 3)) if train_rows < limit)
    epochs = min(epochs, _PREFERENCE_EPOCHS) if preference else epochs
    batch = 16 if train_rows < 3000 else 32
    share = _PREFERENCE_SHARE if preference else 1
    rate = float(f"{share * _BASE_RATE * (2000 / width) ** _WIDTH_EXPONENT:.1e}")
    rank = pick("rank", 16, "enough capacity for a task of this size; more costs time and changes little")
    method = "lora" if chosen.method == "auto" else chosen.method
    alpha = Setting(2 * int(rank.value), "twice the rank, so that the learning rate does not depend on it", "default")
    if method == "rslora":
        alpha = Setting(_RSLORA_ALPHA, "divided by the root of the rank: the scale of lora at rank 16", "default")
    full_rate = pick("learning_rate", float(f"{_FULL_SHARE * rate:.1e}"), "a tenth of LoRA's: every weight moves")
    return TrainingPlan(
        method=Setting(method, *_why_method(chosen.method)),
        epochs=pick("epochs", epochs, f"{train_rows:,} rows: few rows need more passes, many rows fewer"),
        batch_size=pick("batch_size", batch, "small enough for many steps, large enough to fill the matrix units"),
        learning_rate=pick("learning_rate", rate, f"LoRA rule for a model of width {width}{', a tenth' * preference}"),
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


def _why_method(chosen: str) -> tuple[str, str]:
    if chosen == "auto":
        return "an adapter of a few MB, trained in a fraction of the memory (override: training.method)", "default"
    return "fixed by you", "training.method"
