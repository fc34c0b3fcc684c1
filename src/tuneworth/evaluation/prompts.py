"""Prompt forms: what a model is told before it sees a row. One function builds the messages for every arm."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuneworth.data.example import Example, Message
from tuneworth.evaluation.metrics.labels import none_label
from tuneworth.evaluation.metrics.schemas import described
from tuneworth.evaluation.strata import stratum
from tuneworth.task import Task

if TYPE_CHECKING:
    from tuneworth.evaluation.forms import Form

FULL, SHORT = "full", "short"
Shown = list[dict[str, Any]]
"""Messages in OpenAI's shape."""

_OPENINGS = {
    "classification": "Decide which label fits the message best.",
    "multilabel": "Decide which labels fit the message.",
    "extraction": "Extract what the message says.",
    "reasoning": "Solve the problem step by step.",
}
_SHORT = {
    "classification": "Reply with the label of the message.",
    "multilabel": "Reply with the labels of the message as a JSON array.",
    "extraction": "Reply with the JSON object of the message.",
}
_PLAIN_NAMES = frozenset(
    {"answer", "assistant", "completion", "content", "input", "instruction", "message", "output", "prompt", "question",
     "reply", "request", "response", "source", "target", "text", "user"}
)  # fmt: skip
_FINAL = "End with a line that holds #### and then the final answer, and nothing else."


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of a task's rows beyond the labels, as far as prompts tell it: the schema of extracted objects (and
    whether the user gave it), the names of the columns of a table, and the system messages that rows carry."""

    schema: Mapping[str, Any] | None = None
    schema_given: bool = False
    columns: tuple[str, str] | None = None
    own_system: str = ""
    """What the system messages of all rows say, if they say the same."""
    systems_differ: bool = False

    @classmethod
    def of(
        cls,
        train: Sequence[Example],
        schema: Mapping[str, Any] | None = None,
        *,
        schema_given: bool = False,
        columns: tuple[str, str] | None = None,
    ) -> Told:
        """What rows tell."""
        systems = {row.messages[0].content if _has_system(row) else "" for row in train}
        same = next(iter(systems)) if len(systems) == 1 else ""
        return cls(schema, schema_given, columns, same, len(systems) > 1)


@dataclass(frozen=True, slots=True)
class PromptForm:
    """A system text and examples shown before the row. A row's own system message is kept behind the form's when
    `keeps_own`, and always where the form has none to put in its place (`system` is None)."""

    name: str
    system: str | None
    shots: tuple[Example, ...] = ()
    keeps_own: bool = False

    def messages(self, example: Example) -> Shown:
        """The conversation that asks for `example`'s answer."""
        return place(self.opening(), [_shown(m) for m in example.messages], keeps_own=self.keeps_own_system)

    def opening(self) -> Shown:
        """What comes before any row: the system text, if the form has one, and the examples."""
        shown: Shown = [{"role": "system", "content": self.system}] if self.system else []
        for shot in self.shots:
            shown += [_shown(m) for m in shot.conversation if m.role != "system"]
        return shown

    @property
    def keeps_own_system(self) -> bool:
        """Whether a system message that stands before the row's others is kept."""
        return self.keeps_own or self.system is None


def conversation(form: Form, example: Example, turns: str = "all") -> tuple[Shown, list[int]]:
    """What `form` asks with the wanted answer behind it, and the places of the assistant messages that are learnt: all
    of the row's own (not those of examples) whose weight is not 0, or only the `last` of them."""
    asked = form.messages(example)
    spoken = [m for n, m in enumerate(example.conversation) if n or m.role != "system"]
    before = len(asked) + 1 - len(spoken)
    learnt = [before + n for n, m in enumerate(spoken) if m.role == "assistant" and m.weight != 0]
    return [*asked, _shown(example.reply)], learnt[-1:] if turns == "last" else learnt


def place(opening: Sequence[Mapping[str, Any]], messages: Sequence[Mapping[str, Any]], *, keeps_own: bool) -> Shown:
    """`messages` behind an opening. A system message in front of them joins the opening's, or gives way to it."""
    own = [dict(message) for message in messages]
    texts = [first[0]["content"] for first in (opening[:1],) if first and first[0]["role"] == "system"]
    examples = [dict(message) for message in opening[len(texts) :]]
    if own and own[0]["role"] == "system":
        leading = own.pop(0)["content"]
        texts += [leading] if keeps_own else []
    system: Shown = [{"role": "system", "content": "\n\n".join(texts)}] if texts else []
    return [*system, *examples, *own]


def prompt_form(name: str, task: Task, kind: str, labels: Sequence[str], told: Told | None = None) -> PromptForm:
    """The `full` form states the task (labels, fields, how to answer); the `short` form leaves out what weights can
    learn.

    An empty system text means none. A system message that all rows share is part of the task: the full form says it,
    the short one leaves it out. Where rows differ in it, it is part of the row, and both keep it.
    """
    told = told or Told()
    if name == SHORT:
        text = _SHORT.get(kind, None if told.systems_differ else "")
        return PromptForm(SHORT, text, keeps_own=told.systems_differ)
    opening = task.prompt.system or told.own_system
    asked = _asked(kind, labels, told)
    if asked is None:
        return PromptForm(FULL, task.prompt.system or _of_columns(told), keeps_own=False)
    return PromptForm(FULL, f"{opening or _OPENINGS[kind]}{asked}", keeps_own=told.systems_differ)


def with_shots(form: PromptForm, train: Sequence[Example], count: int, seed: int, kind: str) -> PromptForm:
    """`form` with `count` examples from train, seeded; of kinds with classes, as many different ones as possible.

    Short rows are preferred (drawn from the shorter half), since every shot is paid for with each request.
    """
    chance = random.Random(f"shots/{seed}/{count}")
    lengths = sorted(map(_length, train))
    middle = lengths[len(lengths) // 2]
    pool = [e for e in train if _length(e) <= middle]
    chance.shuffle(pool)
    turns: dict[str, int] = {}
    order = []
    for example in pool:
        known = stratum(example, kind)
        turns[known] = turns.get(known, 0) + 1
        order.append((turns[known], example))
    shots = [example for _, example in sorted(order, key=lambda pair: pair[0])][:count]
    chance.shuffle(shots)
    return PromptForm(f"{form.name}-{count}-shot", form.system, tuple(shots), form.keeps_own)


def _asked(kind: str, labels: Sequence[str], told: Told) -> str | None:
    """What the full form says behind its opening; None for kinds whose rows say themselves what is wanted."""
    listed = "\n".join(f"- {label}" for label in labels)
    if kind == "classification":
        none = none_label(labels)
        otherwise = f" If no other label fits, answer {none}." if none is not None else ""
        return f"\n\nLabels:\n{listed}\n\nAnswer with exactly one label and nothing else.{otherwise}"
    if kind == "multilabel":
        some = json.dumps(list(labels[:2]), ensure_ascii=False)
        return (
            f"\n\nLabels:\n{listed}\n\nAnswer with a JSON array of the labels that fit, such as {some}, nothing else."
        )
    if kind == "extraction" and told.schema is not None:
        fields = (
            f"JSON Schema of the answer:\n{json.dumps(dict(told.schema), ensure_ascii=False)}"
            if told.schema_given
            else f"Fields (a dot stands between an object and what is in it):\n{described(told.schema)}"
        )
        return f"\n\n{fields}\n\nAnswer with one JSON object and nothing else."
    return f" {_FINAL}" if kind == "reasoning" else None


def _of_columns(told: Told) -> str | None:
    """What a table's column names say of the task, where they say something and rows have no system message."""
    if told.columns is None or told.own_system or told.systems_differ:
        return None
    given, wanted = (name.strip().replace("_", " ").lower() for name in told.columns)
    if wanted in _PLAIN_NAMES or not wanted:
        return None
    of = "the message" if given in _PLAIN_NAMES else f"the {given}"
    return f"You are given {of}. Answer with its {wanted} and nothing else."


def _has_system(example: Example) -> bool:
    return bool(example.messages) and example.messages[0].role == "system"


def _length(example: Example) -> int:
    return sum(len(message.content) for message in example.messages if message.role != "system")


def _shown(message: Message) -> dict[str, Any]:
    """A message as a chat template takes it: without what concerns learning alone."""
    shown = message.to_openai()
    shown.pop("weight", None)
    return {**shown, "content": message.content}
