"""A finished arm, ready to be asked again: with altered requests, with those of strangers, several at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from tuneworth.data.example import Example
from tuneworth.evaluation.arms import Bench
from tuneworth.evaluation.classical import Classical
from tuneworth.evaluation.local import LocalModel
from tuneworth.evaluation.metrics import score
from tuneworth.evaluation.prompts import FULL, SHORT, PromptForm
from tuneworth.evaluation.records import Answer, RawAnswer

NO_FORM = PromptForm("none", None)
"""The form of an arm that reads nothing but the request."""


@dataclass(frozen=True, slots=True)
class Probed:
    """An arm as it was judged. `ask` answers rows in a form; `confidence` gives p of each answer, None where the arm
    knows none."""

    name: str
    family: str
    form: PromptForm
    ask: Callable[[PromptForm, Sequence[Example]], list[RawAnswer]]
    confidence: Callable[[Sequence[Example], Sequence[RawAnswer]], list[float]] | None

    def scored(self, bench: Bench, form: PromptForm, examples: Sequence[Example]) -> list[Answer]:
        """Answered in `form` and scored by the task's metric."""
        return score(examples, self.ask(form, examples), bench.scoring.metric)


def probed_classical(name: str, fitted: Classical) -> Probed:
    """A classical arm; its confidence is the probability of the label it chose, where it knows one."""

    def confidence(examples: Sequence[Example], answers: Sequence[RawAnswer]) -> list[float]:
        known = [answer.parts["confidence"] for answer in answers if "confidence" in answer.parts]
        return known if len(known) == len(answers) else []

    return Probed(name, "classical", NO_FORM, lambda form, rows: fitted.answer(rows), confidence)


@contextmanager
def probed_model(bench: Bench, record: Mapping[str, Any], local: LocalModel) -> Iterator[Probed]:
    """The arm of an arm.json, its weights on the model as long as the block runs.

    Its confidence is p(answer and its end | prompt) for labels, by which a model that is made to choose one also tells
    how willingly it wrote it, and for free text the geometric mean of its tokens' p.
    """
    if record.get("provider"):
        raise ValueError("a hosted model is paid for each request, so it is not asked more than the arm needs")
    form = form_of(bench, record)
    tuned = record["family"] == "fine-tune"
    with local.tuned(bench.folder.arm(record["name"]) / "model") if tuned else nullcontext():

        def ask(form: PromptForm, examples: Sequence[Example]) -> list[RawAnswer]:
            return local.answer(form, examples, bench.scoring)

        def confidence(examples: Sequence[Example], answers: Sequence[RawAnswer]) -> list[float]:
            pairs = zip(examples, answers, strict=True)
            told = [[*form.messages(e), {"role": "assistant", "content": a.text}] for e, a in pairs]
            found = local.surprise(told)
            return [math.exp(-nats if bench.scoring.labels else -nats / tokens) for nats, tokens in found]

        knows = bench.kind not in ("preference", "tools")  # no answer is written, or tools stand in the prompt
        yield Probed(record["name"], record["family"], form, ask, confidence if knows else None)


def form_of(bench: Bench, record: Mapping[str, Any]) -> PromptForm:
    """The prompt form that a finished arm was judged with, found again from what its arm.json tells.

    Raises ValueError when no form of this task gives the prompt that is written there.
    """
    by_id = {example.id: example for example in bench.train}
    shots = tuple(by_id[name] for name in record["shots"])
    for name in (SHORT, FULL):
        base = bench.form(name)
        form = replace(base, shots=shots)
        if form.messages(bench.test[0]) == record["prompt"]:
            return form
    raise ValueError(f"the prompt of {record['name']} is of no known form")
