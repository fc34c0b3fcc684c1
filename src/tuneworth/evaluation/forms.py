"""The small interfaces between arms and models: how a row becomes a conversation, and who answers it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tuneworth.data.example import Example
from tuneworth.evaluation.records import RawAnswer
from tuneworth.plan import Rate

if TYPE_CHECKING:
    from tuneworth.evaluation.local import Scoring


class Form(Protocol):
    """A prompt form: how a row becomes a conversation."""

    @property
    def name(self) -> str:
        """What the form is called in arm.json."""

    @property
    def shots(self) -> tuple[Example, ...]:
        """The training rows that every conversation shows."""

    @property
    def keeps_own_system(self) -> bool:
        """Whether a row's own system message is kept."""

    def messages(self, example: Example) -> list[dict[str, Any]]:
        """The conversation that asks for `example`'s answer."""

    def opening(self) -> list[dict[str, Any]]:
        """What all conversations begin with, whatever the row."""


class Answerer(Protocol):
    """Answers examples in a prompt form: weights in memory, or a hosted model.

    A row that could not be asked is an error of its own, with the reason, and never an answer.
    """

    @property
    def name(self) -> str:
        """What the model is called in arm.json."""

    def answer(
        self, form: Form, examples: Sequence[Example], scoring: Scoring, on_done: Callable[[int], None] = ...
    ) -> list[RawAnswer]:
        """Answers in order; `on_done` is told how many more rows are done."""

    def answer_rate(self, form: Form, examples: Sequence[Example], scoring: Scoring) -> Rate:
        """Measured wall seconds of answering: once, and for each row."""

    def suited(self, scoring: Scoring) -> Scoring:
        """`scoring` as far as this model can do it (only weights in memory can be held to the labels)."""

    def details(self, form: Form, examples: Sequence[Example], scoring: Scoring) -> dict[str, Any]:
        """What arm.json tells of the model and of the latency of one request, measured on `examples`."""

    def usd(self, answers: Sequence[RawAnswer]) -> float | None:
        """What these answers cost beside this machine's time; None where a price is not known."""
