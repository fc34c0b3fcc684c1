"""Retrieved documents: the passages of the user's own texts that are likest to the request stand before it.

Many who ask for fine-tuning need this instead: what changes weekly belongs in the prompt, not in the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from tuneworth.data.example import Example
from tuneworth.evaluation.prompts import PromptForm

COUNTS = (2, 4)


@dataclass(frozen=True, slots=True)
class Passages:
    """Passages, and how like a text is to each (float32 [passages])."""

    texts: tuple[str, ...]
    likeness: Callable[[str], NDArray[np.float32]] = field(repr=False)

    @classmethod
    def of(cls, texts: Sequence[str]) -> Passages:
        """Likeness by TF-IDF of words and word pairs, as search engines do."""
        words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), dtype=np.float32, token_pattern=r"(?u)\b\w+\b")
        table = words.fit_transform(texts)
        return cls(
            tuple(texts), lambda text: np.asarray((table @ words.transform([text]).T).toarray(), np.float32).ravel()
        )

    def nearest(self, text: str, count: int) -> tuple[str, ...]:
        """The `count` likest passages, the likest first; among equals the earlier one. None that shares no word."""
        likeness = self.likeness(text)
        order = np.argsort(-likeness, kind="stable")[:count]
        return tuple(self.texts[int(index)] for index in order if likeness[index] > 0)


@dataclass(frozen=True, slots=True)
class DocumentsForm:
    """`base` with the `count` likest passages before the last message of the user."""

    name: str
    base: PromptForm
    passages: Passages
    count: int
    shots: tuple[Example, ...] = ()

    def messages(self, example: Example) -> list[dict[str, Any]]:
        """The conversation that asks for `example`'s answer."""
        found = self.passages.nearest(example.text, self.count)
        if not found:
            return self.base.messages(example)
        listed = "\n\n".join(f"[{number}] {passage}" for number, passage in enumerate(found, 1))
        last = max(n for n, message in enumerate(example.messages) if message.role == "user")
        asked = example.messages[last]
        told = replace(asked, content=f"Passages that may help:\n\n{listed}\n\nThe message:\n\n{asked.content}")
        shown = replace(example, messages=(*example.messages[:last], told, *example.messages[last + 1 :]))
        return self.base.messages(shown)

    def opening(self) -> list[dict[str, Any]]:
        """What all conversations begin with."""
        return self.base.opening()

    @property
    def keeps_own_system(self) -> bool:
        """Whether a system message that stands before the row's others is kept."""
        return self.base.keeps_own_system


def documents_forms(base: PromptForm, passages: Passages) -> list[DocumentsForm]:
    """`base` with 2 or 4 passages."""
    return [DocumentsForm(f"{base.name}, {count} passages", base, passages, count) for count in COUNTS]
