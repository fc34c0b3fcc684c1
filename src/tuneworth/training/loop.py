"""The one training loop. Methods differ by what is passed in: which parameters are trained, and the loss.

Exactness (LAWS 3, 4, 5): a step's loss is a sum over all its micro-batches divided once by their trained tokens;
parameters that train in bfloat16 have float32 masters; a checkpoint holds all that the next step depends on, so a
run that was killed and continued ends with the same weights, bit for bit, as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tuneworth.errors import InputError, TuneworthError
from tuneworth.training.batches import Pack, Row, epoch_batches, micro_batches, pack

Loss = Callable[[torch.nn.Module, Pack], Tensor]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the loop needs to know. The learning rate rises linearly over `warmup_steps` and falls linearly to 0.

    `maximum_tokens` bounds a micro-batch; after `maximum_seconds` (resumed time counted in) the training ends early.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    evaluate_every: int
    seed: int
    clip_norm: float = 1.0
    maximum_tokens: int = 4096
    maximum_seconds: float = math.inf
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that the rest of a training depends on after `step` steps, as tensors and plain values."""

    step: int
    tensors: Mapping[str, Tensor]  # master/<name>, first/<name>, second/<name>, best/<name>
    best_step: int
    best_score: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the loop calls: each step, each evaluation (returns the score that picks the best step), each save."""

    evaluate: Callable[[], Mapping[str, float]]
    on_record: Callable[[Mapping[str, Any]], None] = lambda record: None
    save: Callable[[Checkpoint], None] = lambda checkpoint: None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a training ended. The model holds the weights of `best_step`."""

    steps: int
    best_step: int
    best_score: float
    seconds: float
    stopped_early: bool


def learning_rate(settings: Settings, step: int) -> float:
    """The learning rate of optimiser step `step` (from 0): linear warm-up, then linear decay to 0 at the end."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    left = (settings.steps - step) / max(1, settings.steps - settings.warmup_steps)
    return settings.learning_rate * left


def train(
    model: torch.nn.Module,
    parameters: Mapping[str, torch.nn.Parameter],
    rows: Sequence[Row],
    settings: Settings,
    loss: Loss,
    hooks: Hooks,
    resume: Checkpoint | None = None,
) -> Outcome:
    """Train `parameters` of `model` on `rows` and leave the weights of the best evaluation in the model.

    Raises InputError when a row trains no token, TuneworthError when the loss or a gradient is not finite (before
    the step is taken, naming the rows).
    """
    empty = [row.id for row in rows if row.trained_tokens == 0]
    if empty or not rows:
        raise InputError(f"{len(empty)} rows have no trained token (first ids: {empty[:5]})", where="training rows")
    masters = _Masters(parameters, settings.learning_rate)
    state = masters.restore(resume) if resume else _fresh()
    started = time.perf_counter() - state.seconds
    plan = _batch_plan(rows, settings)
    model.train()
    step, seconds = state.step, state.seconds
    while step < settings.steps and seconds < settings.maximum_seconds:
        record = _step(model, masters, [rows[i] for i in plan(step)], step, settings, loss)
        step += 1
        seconds = time.perf_counter() - started
        hooks.on_record(record | {"epoch": step / math.ceil(len(rows) / settings.batch_size), "seconds": seconds})
        last = step == settings.steps or seconds >= settings.maximum_seconds
        if last or step % settings.evaluate_every == 0:
            model.eval()
            scores = hooks.evaluate()
            model.train()
            hooks.on_record({"step": step, **scores})
            if scores["validation_score"] >= state.best_score:
                state = replace(state, best_step=step, best_score=scores["validation_score"])
                masters.keep_best()
            state = replace(state, step=step, seconds=time.perf_counter() - started)
            hooks.save(masters.checkpoint(state))
    masters.load_best()
    model.eval()
    return Outcome(step, state.best_step, state.best_score, state.seconds, step < settings.steps)


def _fresh() -> Checkpoint:
    return Checkpoint(step=0, tensors={}, best_step=0, best_score=-math.inf, seconds=0.0)


def _batch_plan(rows: Sequence[Row], settings: Settings) -> Callable[[int], list[int]]:
    """Row indices of any step, from (seed, epoch) alone: what a resumed run sees is what it would have seen."""
    lengths = [len(row.ids) for row in rows]
    a_epoch = math.ceil(len(rows) / settings.batch_size)
    cache: dict[int, list[list[int]]] = {}

    def of(step: int) -> list[int]:
        epoch, index = divmod(step, a_epoch)
        if epoch not in cache:
            cache.clear()
            cache[epoch] = epoch_batches(lengths, settings.batch_size, settings.seed, epoch)
        return cache[epoch][index]

    return of


def _step(
    model: torch.nn.Module, masters: _Masters, rows: Sequence[Row], step: int, settings: Settings, loss: Loss
) -> dict[str, Any]:
    """One optimiser step over all micro-batches of `rows`; refuses a loss or gradient that is not finite."""
    begin = time.perf_counter()
    packs = [pack(part, device=settings.device) for part in micro_batches(rows, settings.maximum_tokens)]
    trained = sum(len(part.target) for part in packs)
    total = 0.0
    for part in packs:
        value = loss(model, part)
        total += value.item()
        (value / trained).backward()
        masters.collect_gradients()
    rate = learning_rate(settings, step)
    norm = masters.gradient_norm()
    if not (math.isfinite(total) and math.isfinite(norm)):
        masters.drop_gradients()
        raise TuneworthError(
            f"the loss or its gradient is not finite at step {step + 1} (loss {total}, gradient norm {norm})",
            where="rows " + ", ".join(row.id for row in rows[:8]),
            cure="lower training.learning_rate, or look at these rows; the last good checkpoint is kept",
        )
    masters.step(rate, min(1.0, settings.clip_norm / (norm + 1e-12)))
    return {
        "step": step + 1,
        "loss": total / trained,
        "learning_rate": rate,
        "grad_norm": norm,
        "tokens": sum(part.ids.shape[1] for part in packs),
        "trained_tokens": trained,
        "rows": len(rows),
        "step_seconds": time.perf_counter() - begin,
    }


class _Masters:
    """float32 (or better) masters of the trained parameters with AdamW over them (Loshchilov & Hutter 2019).

    Pure bfloat16 updates vanish (LAW 44): a step smaller than 2^-8 of a weight would be rounded away.
    """

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], rate: float) -> None:
        self._parameters = dict(parameters)
        self._masters = {
            name: p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True)
            for name, p in parameters.items()
        }
        for master in self._masters.values():
            master.grad = torch.zeros_like(master)
        self._adam = torch.optim.AdamW(self._masters.values(), lr=rate, weight_decay=0.0, fused=True)
        self._best: dict[str, Tensor] = {}

    def collect_gradients(self) -> None:
        """Add the parameters' gradients to the masters' and clear them."""
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                self._masters[name].grad.add_(parameter.grad)  # type: ignore[union-attr]
                parameter.grad = None

    def gradient_norm(self) -> float:
        """L2 norm over all gradients."""
        return float(torch.nn.utils.get_total_norm([m.grad for m in self._masters.values() if m.grad is not None]))

    def drop_gradients(self) -> None:
        """Forget all gradients."""
        for master in self._masters.values():
            master.grad.zero_()  # type: ignore[union-attr]

    def step(self, rate: float, scale: float) -> None:
        """One AdamW step at `rate` on gradients times `scale`; the parameters follow their masters."""
        for master in self._masters.values():
            master.grad.mul_(scale)  # type: ignore[union-attr]
        self._adam.param_groups[0]["lr"] = rate
        self._adam.step()
        self.drop_gradients()
        self._publish(self._masters)

    def keep_best(self) -> None:
        """Remember the present weights as the best."""
        self._best = {name: master.clone() for name, master in self._masters.items()}

    def load_best(self) -> None:
        """Put the best weights into the model."""
        self._publish(self._best or self._masters)

    def checkpoint(self, state: Checkpoint) -> Checkpoint:
        """`state` with all tensors that the next step depends on."""
        tensors: dict[str, Tensor] = {}
        for name, master in self._masters.items():
            moments = self._adam.state[master]
            tensors[f"master/{name}"] = master
            tensors[f"first/{name}"] = moments["exp_avg"]
            tensors[f"second/{name}"] = moments["exp_avg_sq"]
        tensors |= {f"best/{name}": best for name, best in self._best.items()}
        return replace(state, tensors=tensors)

    def restore(self, saved: Checkpoint) -> Checkpoint:
        """Continue from `saved`. Strict: a tensor that is missing or of another shape raises."""
        for name, master in self._masters.items():
            master.copy_(_fitting(saved.tensors, f"master/{name}", master))
            self._adam.state[master] = {
                "step": torch.tensor(float(saved.step)),
                "exp_avg": _fitting(saved.tensors, f"first/{name}", master).clone(),
                "exp_avg_sq": _fitting(saved.tensors, f"second/{name}", master).clone(),
            }
        if saved.best_step:
            self._best = {n: _fitting(saved.tensors, f"best/{n}", m).clone() for n, m in self._masters.items()}
        self._publish(self._masters)
        return saved

    def _publish(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(weights[name])


def _fitting(tensors: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None or tensor.shape != like.shape:
        raise InputError(
            f"'{name}' is missing or does not fit",
            where="checkpoint",
            cure="delete the arm's checkpoints and rerun",
        )
    return tensor
