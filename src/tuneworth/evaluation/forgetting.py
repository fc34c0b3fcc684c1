"""What a model still knows of the world: loss on general text, and accuracy in multiple choice. Asked before and after
a fine-tuning, the difference is what was forgotten.

Both are asked in the model's own chat format, so that models with and without a begin token are treated alike. Loss is
the mean of -log p over the tokens of the texts, each as the answer to a request for it, in nats a token, end tokens not
counted: one sum, divided once. In multiple choice the choices are not shown; each is an answer of its own, and that
with the highest mean log p a token is taken (without the division, short answers would win).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuneworth.evaluation.general import general_questions, general_texts
from tuneworth.evaluation.local import LocalModel

_AT_ONCE = 25  # questions asked between two movements of the bar
_FORMAT_TOKENS = 20  # that a chat format adds to a request and its answer, about


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Of each general text its loss in nats and its tokens; of each question whether it was answered rightly."""

    nats: tuple[float, ...]
    tokens: tuple[int, ...]
    right: tuple[bool, ...]

    @property
    def loss(self) -> float:
        """Nats a token over all texts."""
        return sum(self.nats) / sum(self.tokens)

    @property
    def accuracy(self) -> float:
        """Share of the questions answered rightly."""
        return sum(self.right) / len(self.right)


def steps_of_knowledge() -> int:
    """How often `knowledge` moves the bar."""
    return 1 + -(-len(general_questions()) // _AT_ONCE)


def tokens_of_knowledge(count: Callable[[str], int]) -> int:
    """About how many tokens `knowledge` reads, for the plan; `count` counts those of a text."""
    questions = general_questions()
    texts = [text.text for text in general_texts()] + [q.question + c for q in questions for c in q.choices]
    return sum(count(text) + _FORMAT_TOKENS for text in texts)


def knowledge(local: LocalModel, advance: Callable[[int], None] = lambda units: None) -> Knowledge:
    """What the model, as it answers now, knows. About 20,000 tokens are read."""
    texts = local.surprise([_told(text.about, text.text) for text in general_texts()], with_end=False)
    advance(1)
    right: list[bool] = []
    questions = general_questions()
    for start in range(0, len(questions), _AT_ONCE):
        some = questions[start : start + _AT_ONCE]
        found = iter(local.surprise([_asked(q.question, c) for q in some for c in q.choices], with_end=False))
        for question in some:
            means = [nats / tokens for nats, tokens in (next(found) for _ in question.choices)]
            right.append(is_right(means))
        advance(1)
    return Knowledge(tuple(nats for nats, _ in texts), tuple(tokens for _, tokens in texts), tuple(right))


def is_right(nats_a_token: Sequence[float]) -> bool:
    """Whether the first choice, the right one, is alone the likeliest: a draw shows no knowledge."""
    return all(nats_a_token[0] < other for other in nats_a_token[1:])


def _told(about: str, text: str) -> list[dict[str, str]]:
    return _asked(f"Write a short text about this: {about}.", text)


def _asked(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
