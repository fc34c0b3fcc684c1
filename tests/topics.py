"""Made-up rows on a few topics, and sentence vectors that know nothing but words."""

from __future__ import annotations

import functools
import random
import zlib
from collections.abc import Sequence

import numpy as np

from tuneworth.data import Example, Message

TOPICS = {
    "card": ["card", "lost", "stolen", "block", "replace", "arrive", "delivery", "expire", "swallowed", "machine"],
    "refund": [
        "refund",
        "money",
        "back",
        "cancel",
        "purchase",
        "merchant",
        "dispute",
        "charge",
        "statement",
        "returned",
    ],
    "login": ["password", "login", "account", "locked", "reset", "phone", "code", "verify", "email", "access"],
    "rate": ["exchange", "rate", "currency", "euro", "dollar", "abroad", "fee", "convert", "market", "spread"],
}
FOREIGN = ["galaxy", "planet", "orbit", "telescope", "comet", "eclipse", "saturn", "crater", "rocket", "nebula"]
_TOPIC_OF = {word: topic for topic, words in {**TOPICS, "foreign": FOREIGN}.items() for word in words}
_FILLING = ["please", "how", "can", "i", "my", "the", "is", "it", "when", "do", "about", "for", "with"]


def sentence(words: Sequence[str], source: random.Random) -> str:
    """Four words of a topic among three of the usual ones."""
    parts = source.sample(list(words), 4) + source.sample(_FILLING, 3)
    source.shuffle(parts)
    return " ".join(parts)


def texts_on(topic: str, count: int, seed: int = 0) -> list[str]:
    """Sentences on a topic."""
    source = random.Random(f"{topic}{seed}")
    return [sentence(TOPICS[topic], source) for _ in range(count)]


def foreign_texts(count: int, seed: int = 0) -> list[str]:
    """Sentences on something else altogether."""
    source = random.Random(seed)
    return [sentence(FOREIGN, source) for _ in range(count)]


def example(line: int, text: str, answer: str = "a", file: str = "train.csv") -> Example:
    """A row of a file."""
    return Example(f"{file}-{line}", (Message("user", text),), answer, file, line)


def by_topic(texts: Sequence[str]) -> np.ndarray:
    """A `Vectorise`: each word has a random direction, near that of its topic."""
    rows = np.zeros((len(texts), 48), np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in text.lower().split():
            row += _direction(word) + (_direction(_TOPIC_OF[word]) if word in _TOPIC_OF else 0)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


@functools.cache
def _direction(word: str) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(word.encode())).standard_normal(48)
