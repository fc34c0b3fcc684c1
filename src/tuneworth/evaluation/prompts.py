"""Prompt forms: what a model is told before it sees a row. One function builds the messages for every arm."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tuneworth.data.example import Example
from tuneworth.task import Task

FULL, SHORT = "full", "short"
_CLASSIFY = "Decide which label fits the message best."
_SHORT_CLASSIFY = "Reply with the label of the message."


@dataclass(frozen=True, slots=True)
class PromptForm:
    """A system text (None: the row's own) and examples shown before the row."""

    name: str
    system: str | None
    shots: tuple[Example, ...] = ()

    def messages(self, example: Example) -> list[dict[str, str]]:
        """The conversation that asks for `example`'s answer."""
        own = [{"role": m.role, "content": m.content} for m in example.messages]
        system = [m for m in own if m["role"] == "system"] if self.system is None else []
        return [*system, *self.opening(), *(m for m in own if m["role"] != "system")]

    def opening(self) -> list[dict[str, str]]:
        """What comes before any row: the system text, if the form has one, and the examples."""
        shown = [{"role": "system", "content": self.system}] if self.system else []
        for shot in self.shots:
            shown += [{"role": m.role, "content": m.content} for m in shot.messages if m.role != "system"]
            shown.append({"role": "assistant", "content": shot.answer})
        return shown


def prompt_form(name: str, task: Task, kind: str, labels: Sequence[str]) -> PromptForm:
    """The `full` form states the task (and the labels); the `short` form leaves out what weights can learn.

    An empty system text means none. Chat rows keep their own system message in the full form.
    """
    if kind == "classification":
        if name == SHORT:
            return PromptForm(SHORT, _SHORT_CLASSIFY)
        opening = task.prompt.system or _CLASSIFY
        listed = "\n".join(f"- {label}" for label in labels)
        return PromptForm(FULL, f"{opening}\n\nLabels:\n{listed}\n\nAnswer with exactly one label and nothing else.")
    return PromptForm(SHORT, "") if name == SHORT else PromptForm(FULL, task.prompt.system)


def with_shots(form: PromptForm, train: Sequence[Example], count: int, seed: int, kind: str) -> PromptForm:
    """`form` with `count` examples from train, seeded; for labels, as many different ones as possible.

    Short rows are preferred (drawn from the shorter half), since every shot is paid for with each request.
    """
    chance = random.Random(f"shots/{seed}/{count}")
    lengths = sorted(len(e.text) for e in train)
    middle = lengths[len(lengths) // 2]
    pool = [e for e in train if len(e.text) <= middle]
    chance.shuffle(pool)
    if kind == "classification":
        turns: dict[str, int] = {}
        order = []
        for example in pool:
            turns[example.answer] = turns.get(example.answer, 0) + 1
            order.append((turns[example.answer], example))
        pool = [example for _, example in sorted(order, key=lambda pair: pair[0])]
    shots = pool[:count]
    chance.shuffle(shots)
    return PromptForm(f"{form.name}-{count}-shot", form.system, tuple(shots))
