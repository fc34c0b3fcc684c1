"""Texts, questions and requests that have nothing to do with anybody's task, written for this project and shipped with
it: what a model knew before it was fine-tuned, and what strangers may ask of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from tuneworth.data.example import Example, Message

_FOLDER = files("tuneworth.evaluation") / "general"


@dataclass(frozen=True, slots=True)
class Text:
    """A short text and what it is about."""

    about: str
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question with choices, of which the first is right. The order tells nothing: choices are never shown."""

    question: str
    choices: tuple[str, ...]


@cache
def general_texts() -> tuple[Text, ...]:
    """36 texts of about 70 words: nature, history, everyday life, letters, instructions."""
    return tuple(Text(*line) for line in _lines("texts.txt"))


@cache
def general_questions() -> tuple[Question, ...]:
    """100 questions of general knowledge with four choices each."""
    return tuple(Question(line[0], tuple(line[1:])) for line in _lines("questions.txt"))


@cache
def general_requests() -> tuple[Example, ...]:
    """60 requests of all kinds, without a wanted answer."""
    return tuple(
        Example(f"stranger-{number}", (Message("user", line[0]),), "", "requests.txt", number)
        for number, line in enumerate(_lines("requests.txt"), 1)
    )


def _lines(name: str) -> list[list[str]]:
    """Each line cut at vertical bars."""
    text = (_FOLDER / name).read_text("utf-8")
    return [[part.strip() for part in line.split("|")] for line in text.splitlines() if line.strip()]
