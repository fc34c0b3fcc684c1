"""Which pre-trained models a race is between: those that are named, or those at hand; and why others are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuneworth.errors import InputError, Interrupted, MachineError, TuneworthError
from tuneworth.models.architecture import Architecture
from tuneworth.models.catalogue import Wish, catalogue, entry_of, unmet
from tuneworth.models.machine import Machine
from tuneworth.models.sources import find_architecture, folder_at_hand
from tuneworth.plan.needs import Batch, Method, training_memory
from tuneworth.task import Task

_MOST = 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pre-trained model that can be tried; `number` names its files, `licence` is None outside the catalogue."""

    number: int
    id: str
    parameters: int
    licence: str | None


@dataclass(frozen=True, slots=True)
class Candidates:
    """Models to try, in the order named (or the smallest first), and (model, why) of those left out."""

    chosen: tuple[Candidate, ...]
    left_out: tuple[tuple[str, str], ...]


def find_candidates(task: Task, machine: Machine) -> Candidates:
    """The candidates of `task`.

    `auto` takes models of the catalogue that are on this disk, or come from the package index, and whose licence allows
    commercial use; nothing is downloaded from a hub unasked. Raises MachineError when none is left.
    """
    named = _at_hand() if task.models == "auto" else list(dict.fromkeys(task.models))
    chosen: list[Candidate] = []
    left_out: list[tuple[str, str]] = []
    for model in named:
        entry = entry_of(model)
        try:
            facts = find_architecture(model)
            why = _unfit(task, model, facts, machine)
        except Interrupted:
            raise
        except TuneworthError as error:
            why = str(error)
        if why is None and len(chosen) == _MOST:
            why = f"more than {_MOST} candidates: name it in models to have it tried"
        if why is None:
            chosen.append(Candidate(len(chosen), model, facts.parameters, entry.licence.id if entry else None))
        else:
            left_out.append((model, why))
    if not chosen:
        raise MachineError(
            "none of the models can be tried",
            where="models",
            cure="; ".join(f"{model}: {why}" for model, why in left_out),
        )
    return Candidates(tuple(chosen), tuple(left_out))


def check_race(task: Task, trained_arms: Sequence[str]) -> None:
    """Refuse what a race among several models cannot do. Raises InputError."""
    if not task.is_raced:
        return
    if not trained_arms:
        raise InputError(
            "several models are compared by training them, and no trained arm is asked for",
            where="models",
            cure="name one model, or an arm such as lora-short",
        )
    if task.training.from_ is not None:
        raise InputError(
            "a training that goes on from an earlier run has that run's model",
            where="training.from",
            cure="name that one model in models",
        )


def least_memory(task: Task, facts: Architecture, device: str) -> int:
    """Bytes that training even one short row needs."""
    precision = "bf16" if task.training.precision == "auto" else task.training.precision
    method = "lora" if task.training.method == "auto" else task.training.method
    recipe = Method(method, task.training.rank or 16, recompute=True)
    return training_memory(facts, recipe, Batch(1, 32, 8), precision, device).peak


def memory_of(machine: Machine) -> int:
    """Bytes of memory in which a training has to fit."""
    return machine.gpu_memory_bytes[0] if machine.gpus else machine.memory_bytes


def _at_hand() -> list[str]:
    """The catalogue's models that need no download from a hub, the smallest first."""
    return [entry.id for entry in catalogue() if entry.is_embedded or folder_at_hand(entry.id) is not None]


def _unfit(task: Task, model: str, facts: Architecture, machine: Machine) -> str | None:
    """Why a model is not tried, if it is not; the licence of a model that the user names is the user's to judge."""
    entry = entry_of(model)
    if task.models == "auto" and entry is not None and (missed := unmet(entry, Wish(use="commercial"))):
        return "; ".join(missed)
    if facts.traits.unsupported:
        return f"it needs {facts.traits.unsupported}, which is not supported yet"
    needed, most = least_memory(task, facts, machine.device), memory_of(machine)
    if needed > most:
        return f"training it needs at least {needed / 1e9:.0f} GB of memory, this machine has {most / 1e9:.0f} GB"
    return None
