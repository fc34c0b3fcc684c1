"""The one training loop. Methods differ by what is passed in: which parameters are trained, batches, and the loss.

Exactness (LAWS 3, 4, 5): a step's loss is a sum over all its micro-batches divided once by what it is a sum of (trained
tokens; pairs for preferences); parameters that train in bfloat16 have float32 masters; a checkpoint holds all that the
next step depends on, so a run that was killed and continued ends with the same weights, bit for bit, as one that was
not. The model is in evaluation mode throughout: no method uses dropout (LAWS 22, 36).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tuneworth.errors import InputError, MachineError, is_out_of_memory
from tuneworth.training.alarms import RECENT_STEPS, alarm
from tuneworth.training.batches import epoch_batches, micro_batches
from tuneworth.training.pace import Pace
from tuneworth.training.records import (
    Batches,
    Checkpoint,
    DivergedError,
    Hooks,
    Loss,
    Outcome,
    Settings,
    Trainable,
    row_packs,
)
from tuneworth.training.schedule import learning_rate

Step = Callable[[Sequence[Trainable], int, Settings], dict[str, Any]]


def train(
    model: torch.nn.Module,
    parameters: Mapping[str, torch.nn.Parameter],
    rows: Sequence[Trainable],
    settings: Settings,
    loss: Loss,
    hooks: Hooks,
    resume: Checkpoint | None = None,
    *,
    batches: Batches = row_packs,
) -> Outcome:
    """Train `parameters` of `model` on `rows` and leave the weights of the best evaluation in the model.

    Raises InputError when a row trains no token, DivergedError when the loss or a gradient is not finite (before the
    step is taken, naming the rows, the last good state saved), MachineError when the memory does not suffice for one
    row.
    """
    empty = [row.id for row in rows if row.trained_tokens == 0]
    if empty or not rows:
        raise InputError(f"{len(empty)} rows have no trained token (first ids: {empty[:5]})", where="training rows")
    masters = _Masters(parameters, settings)
    state = masters.restore(resume) if resume else Checkpoint.fresh()
    settings = _of_length(settings, state.length)
    started = time.perf_counter() - state.seconds
    plan, pace = _batch_plan(rows, settings), Pace(settings)

    def take(chosen: Sequence[Trainable], step: int, settings: Settings) -> dict[str, Any]:
        return _step(model, masters, chosen, step, settings, loss, batches)

    model.eval()
    step, seconds = state.step, state.seconds
    last = step >= settings.steps or state.out_of_time or seconds >= settings.maximum_seconds
    while not last and not _out_of_patience(state, settings):
        chosen = [rows[i] for i in plan(step)]
        try:
            record, settings = _step_in_memory(take, masters, chosen, step, settings)
        except DivergedError as error:
            hooks.on_record({"step": step + 1, "warning": error.problems[0].what})
            if step > state.step:
                hooks.save(masters.checkpoint(replace(state, step=step, seconds=seconds)))
            raise
        step += 1
        seconds = time.perf_counter() - started
        pace.step_took(record["step_seconds"])
        epoch, left = step / math.ceil(len(rows) / settings.batch_size), pace.seconds_left(step, seconds)
        record |= {"epoch": epoch, "seconds": seconds, "seconds_left": left}
        hooks.on_record(record | _warning(record, state.recent_losses, settings.steps))
        state = replace(state, recent_losses=(*state.recent_losses, record["loss"])[-RECENT_STEPS:])
        last = step == settings.steps or pace.is_up(seconds)
        if last or (step - settings.settled_at) % settings.evaluate_every == 0:
            scores = dict(hooks.evaluate())
            pace.after_takes(scores.pop("seconds_after", settings.seconds_after))
            state = _judged(state, masters, step, scores["validation_score"])
            pace.evaluation_took(time.perf_counter() - started - seconds)
            seconds = time.perf_counter() - started
            if not last:
                settings = pace.settled(settings, step, seconds)
            hooks.on_record({"step": step, "steps": settings.steps, **scores})
            over = last and step < settings.steps
            state = replace(state, step=step, seconds=seconds, length=_length(settings), out_of_time=over)
            hooks.save(masters.checkpoint(state))
            pace.saving_took(time.perf_counter() - started - seconds)
            seconds = time.perf_counter() - started
        elif _is_half_of_one_look(step, settings):
            if hooks.expect is not None:
                expected = hooks.expect(pace.a_step / settings.batch_size)
                pace.evaluation_will_take(expected["evaluation_seconds"])
                pace.after_takes(expected["seconds_after"])
                seconds = time.perf_counter() - started
            settings = pace.settled(settings, step, seconds)
            state = replace(state, length=_length(settings))
    masters.load_best()
    return Outcome(step, state.best_step, state.best_score, state.seconds, _ended(state, step, settings))


def _warning(record: Mapping[str, Any], recent: Sequence[float], steps: int) -> dict[str, str]:
    warning = record.get("warning") or alarm(record["loss"], recent, record["step"], steps)
    return {"warning": warning} if warning else {}


def _judged(state: Checkpoint, masters: _Masters, step: int, score: float) -> Checkpoint:
    """`state` after an evaluation: of equally good steps the latest is kept, but only a better one is progress."""
    more = state.unimproved + 1
    if score < state.best_score:
        return replace(state, unimproved=more)
    masters.keep_best()
    return replace(state, best_step=step, best_score=score, unimproved=0 if score > state.best_score else more)


def _out_of_patience(state: Checkpoint, settings: Settings) -> bool:
    """Whether the last `patience` evaluations brought nothing better; known from a checkpoint alone."""
    return settings.patience is not None and state.unimproved >= settings.patience


def _is_half_of_one_look(step: int, settings: Settings) -> bool:
    """Whether a bounded training with a single evaluation, which comes too late to settle its length, is half done."""
    bounded = settings.most_steps is not None and settings.maximum_seconds < math.inf
    one_look = settings.settled_at == 0 and settings.evaluate_every >= settings.steps
    return bounded and one_look and step == settings.steps // 2


def _length(settings: Settings) -> tuple[int, int, int]:
    return settings.steps, settings.evaluate_every, settings.settled_at


def _of_length(settings: Settings, length: tuple[int, int, int] | None) -> Settings:
    """`settings` for a training as long as a checkpoint says that it has become."""
    if length is None:
        return settings
    steps, evaluate_every, settled_at = length
    return replace(settings, steps=steps, evaluate_every=evaluate_every, settled_at=settled_at)


def _ended(state: Checkpoint, step: int, settings: Settings) -> str:
    if step >= settings.steps:
        return "steps"
    return "patience" if _out_of_patience(state, settings) else "time"


def _batch_plan(rows: Sequence[Trainable], settings: Settings) -> Callable[[int], list[int]]:
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


def _step_in_memory(
    take: Step, masters: _Masters, rows: Sequence[Trainable], step: int, settings: Settings
) -> tuple[dict[str, Any], Settings]:
    """A step; out of memory, the same step in micro-batches of half the size, which later steps keep (LAW 3).

    Raises MachineError when that does not fit either.
    """
    if (record := _attempt(take, masters, rows, step, settings)) is not None:
        return record, settings
    parts = micro_batches(rows, settings.maximum_tokens)
    largest = max(max(len(row.ids) for row in part) * len(part) for part in parts)
    smaller = replace(settings, maximum_tokens=min(settings.maximum_tokens, largest) // 2)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if (record := _attempt(take, masters, rows, step, smaller)) is not None:
        warning = f"out of memory: micro-batches have at most {smaller.maximum_tokens} tokens from now on"
        return record | {"warning": warning}, smaller
    longest = max(rows, key=lambda row: len(row.ids))
    raise MachineError(
        f"out of memory at step {step + 1}, even in micro-batches of {smaller.maximum_tokens} tokens",
        where=f"the longest row of the step, {longest.id}, has {len(longest.ids)} tokens",
        cure="take out the longest rows, train with LoRA, choose a smaller model, or use a machine with more memory",
    )


def _attempt(
    take: Step, masters: _Masters, rows: Sequence[Trainable], step: int, settings: Settings
) -> dict[str, Any] | None:
    """The record of a step, or None, with nothing changed, when the memory does not suffice for it."""
    try:
        return take(rows, step, settings)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        # What the failed pass holds is freed with the traceback, when this function has returned.
        masters.drop_gradients()
    return None


def _step(
    model: torch.nn.Module,
    masters: _Masters,
    rows: Sequence[Trainable],
    step: int,
    settings: Settings,
    loss: Loss,
    batches: Batches,
) -> dict[str, Any]:
    """One optimiser step over all micro-batches of `rows`; refuses a loss or gradient that is not finite."""
    begin = time.perf_counter()
    packs = list(batches(rows, settings.maximum_tokens, settings.device))
    count = sum(part.count for part in packs)
    total = 0.0
    for part in packs:
        value = loss(model, part)
        total += value.item()
        (value / count).backward()
        masters.collect_gradients()
    rate = learning_rate(settings, step)
    norm = masters.gradient_norm()
    if not (math.isfinite(total) and math.isfinite(norm)):
        masters.drop_gradients()
        raise DivergedError(step + 1, total, norm, _not_finite(model, rows, settings, loss, batches))
    masters.step(rate, min(1.0, settings.clip_norm / (norm + 1e-12)))
    return {
        "step": step + 1,
        "loss": total / count,
        "learning_rate": rate,
        "grad_norm": norm,
        "tokens": sum(part.ids.shape[1] - part.filler for part in packs),
        "trained_tokens": sum(len(part.target) for part in packs),
        "rows": len(rows),
        "step_seconds": time.perf_counter() - begin,
    }


@torch.no_grad()
def _not_finite(
    model: torch.nn.Module, rows: Sequence[Trainable], settings: Settings, loss: Loss, batches: Batches
) -> list[str]:
    """The ids of the rows whose own loss is not finite; of all rows when each is, and only the gradient is not."""

    def alone(row: Trainable) -> float:
        return sum(loss(model, part).item() for part in batches([row], settings.maximum_tokens, settings.device))

    return [row.id for row in rows if not math.isfinite(alone(row))] or [row.id for row in rows]


class _Masters:
    """float32 (or better) masters of the trained parameters with AdamW over them (Loshchilov & Hutter 2019).

    Pure bfloat16 updates vanish (LAW 44): a step smaller than 2^-8 of a weight would be rounded away.
    """

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], settings: Settings) -> None:
        self._parameters = dict(parameters)
        self._masters = {
            name: p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True)
            for name, p in parameters.items()
        }
        for master in self._masters.values():
            master.grad = torch.zeros_like(master)
        groups: dict[float, list[Tensor]] = {}
        for name, master in self._masters.items():
            share = next((share for word, share in settings.rate_shares.items() if word in name), 1.0)
            groups.setdefault(share, []).append(master)
        self._adam = torch.optim.AdamW(
            [{"params": masters, "share": share} for share, masters in groups.items()],
            lr=settings.learning_rate,
            weight_decay=0.0,
            fused=True,
        )
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
        for name, master in self._masters.items():
            master.grad.zero_()  # type: ignore[union-attr]
            self._parameters[name].grad = None

    def step(self, rate: float, scale: float) -> None:
        """One AdamW step at each group's share of `rate`, on gradients times `scale`; the parameters follow."""
        for master in self._masters.values():
            master.grad.mul_(scale)  # type: ignore[union-attr]
        for group in self._adam.param_groups:
            group["lr"] = rate * group["share"]
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
        if state.best_step != state.step:  # else the best weights are the masters
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
            kept = "master" if saved.best_step == saved.step else "best"
            self._best = {n: _fitting(saved.tensors, f"{kept}/{n}", m).clone() for n, m in self._masters.items()}
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
