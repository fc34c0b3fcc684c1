"""Requests altered as people and time alter them: typing errors, letter case, spacing, other words for the instruction,
another order of labels and examples. The wanted answer stays the same, so every change leaves alone what carries it.

Protected, and never changed by typos, case and spacing: words that hold a digit (amounts, dates, order numbers), e-mail
addresses and links, words without any letter, and, where the answer is copied from the request (every kind but
classification), each word that also stands in the answer; and the spaces between two protected words.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from tuneworth.data.example import Example
from tuneworth.evaluation.prompts import PromptForm

TYPO_RATE = 0.15
"""Share of the words of four letters or more that get one typing error each; every text that has one gets at least
one."""

_LEAST_LETTERS = 4
_WORDS = re.compile(r"\w+", re.UNICODE)
_TOKENS = re.compile(r"(\s+)")
_LINK = re.compile(r"@|://|www\.", re.IGNORECASE)
_EDGE = re.compile(r"[.,;:!?]+$")
_NEIGHBOURS = {
    "q": "wa", "w": "qes", "e": "wrd", "r": "etf", "t": "ryg", "y": "tuh", "u": "yij", "i": "uok", "o": "ipl",
    "p": "ol", "a": "qsz", "s": "awdx", "d": "sefc", "f": "drgv", "g": "fthb", "h": "gyjn", "j": "hukm", "k": "jil",
    "l": "kop", "z": "asx", "x": "zsdc", "c": "xdfv", "v": "cfgb", "b": "vghn", "n": "bhjm", "m": "njk",
}  # fmt: skip

Item = TypeVar("Item")
Alter = Callable[[str, frozenset[str], random.Random], str]
"""(text, protected words, folded; chance) becomes the altered text."""


@dataclass(frozen=True, slots=True)
class Perturbation:
    """One way of altering requests: the rows, or the form they stand in. `about` says how, for people."""

    name: str
    target: Literal["request", "prompt"]
    about: str
    alter: Alter | None = None
    reform: Callable[[PromptForm, Sequence[str], random.Random], PromptForm | None] | None = None


def altered(example: Example, perturbation: Perturbation, kind: str, seed: int) -> Example:
    """`example` with its last user message altered; the same for the same seed, whatever rows stand beside it."""
    if perturbation.alter is None:
        return example
    chance = random.Random(f"{perturbation.name}/{seed}/{example.id}")
    last = max((n for n, m in enumerate(example.messages) if m.role == "user"), default=None)
    if last is None:
        return example
    message = example.messages[last]
    text = perturbation.alter(message.content, answer_words(example, kind), chance)
    messages = (*example.messages[:last], replace(message, content=text), *example.messages[last + 1 :])
    return replace(example, messages=messages)


def reformed(form: PromptForm, perturbation: Perturbation, labels: Sequence[str], seed: int) -> PromptForm | None:
    """`form` altered, or None where there is nothing in it that this perturbation could alter."""
    if perturbation.reform is None:
        return form
    return perturbation.reform(form, labels, random.Random(f"{perturbation.name}/{seed}"))


def answer_words(example: Example, kind: str) -> frozenset[str]:
    """The words, folded, that an answer may be copied from; none where the answer is a label."""
    if kind in ("classification", "multilabel"):
        return frozenset()
    texts = [example.answer, *example.references, *(call.arguments for call in example.calls)]
    return frozenset(word.casefold() for text in texts for word in _WORDS.findall(text))


def is_protected(word: str, kept: frozenset[str]) -> bool:
    """Whether a word (what stands between spaces) carries the answer, or may; see the top of this module."""
    if any(sign.isdigit() for sign in word) or _LINK.search(word):
        return True
    parts = _WORDS.findall(word)
    return not parts or any(part.casefold() in kept for part in parts)


def typos(text: str, kept: frozenset[str], chance: random.Random) -> str:
    """Typing errors: a neighbouring key, two letters swapped, one left out or doubled."""
    words = _TOKENS.split(text)
    open_ = [n for n, word in enumerate(words) if _letters(word) >= _LEAST_LETTERS and not is_protected(word, kept)]
    if not open_:
        return text
    chosen = [n for n in open_ if chance.random() < TYPO_RATE] or [chance.choice(open_)]
    for number in chosen:
        words[number] = _mistyped(words[number], chance)
    return "".join(words)


def other_case(text: str, kept: frozenset[str], chance: random.Random) -> str:
    """All in capitals, or all in small letters where that changes something; each for half of the rows."""
    small = chance.random() < 0.5
    words = _TOKENS.split(text)
    for change in (str.lower, str.upper) if small else (str.upper, str.lower):
        changed = "".join(word if is_protected(word, kept) else change(word) for word in words)
        if changed != text:
            return changed
    return text


def other_spacing(text: str, kept: frozenset[str], chance: random.Random) -> str:
    """Spaces doubled or turned into line breaks, around the text too; full stops and commas left out."""
    words = _TOKENS.split(text)
    for number in range(0, len(words), 2):
        if not is_protected(words[number], kept) and chance.random() < 0.5:
            words[number] = _EDGE.sub("", words[number]) or words[number]
    for number in range(1, len(words), 2):
        between = (words[number - 1], words[number + 1])
        if all(word and is_protected(word, kept) for word in between) or "\n" in words[number]:
            continue
        if chance.random() < 0.25:
            words[number] = chance.choice(["  ", "   ", "\n"])
    return f" {''.join(words)} \n"


def _letters(word: str) -> int:
    return sum(sign.isalpha() for sign in word)


def _mistyped(word: str, chance: random.Random) -> str:
    """`word` with one typing error; never the same word."""
    places = [n for n, sign in enumerate(word) if sign.isalpha()]
    ways = ["left out", "doubled"]
    swaps = [n for n in places if n + 1 in places and word[n] != word[n + 1]]
    keys = [n for n in places if word[n].lower() in _NEIGHBOURS]
    ways += ["swapped"] * bool(swaps) + ["neighbour"] * 2 * bool(keys)
    way = chance.choice(ways)
    if way == "swapped":
        n = chance.choice(swaps)
        return word[:n] + word[n + 1] + word[n] + word[n + 2 :]
    if way == "neighbour":
        n = chance.choice(keys)
        key = chance.choice(_NEIGHBOURS[word[n].lower()])
        return word[:n] + (key.upper() if word[n].isupper() else key) + word[n + 1 :]
    n = chance.choice(places)
    return word[:n] + word[n + 1 :] if way == "left out" else word[: n + 1] + word[n:]


# Built-in sentences of the prompt forms, and other words for each. What a user wrote is not reworded: it gets a frame.
REWORDINGS: dict[str, tuple[str, str]] = {
    "Decide which label fits the message best.": (
        "Choose the label that describes the message most closely.",
        "Read the message and sort it under the most suitable label.",
    ),
    "Labels:": ("Possible labels:", "These are the labels to choose from:"),
    "Answer with exactly one label and nothing else.": (
        "Write only that label, without any other words.",
        "Your reply must be one of the labels and nothing more.",
    ),
    "Reply with the label of the message.": (
        "Write the label that belongs to the message.",
        "Answer with the message's label.",
    ),
}
_FRAMES = ("Please do the following. {}", "{} Thank you for your help.")


def _reworded(way: int) -> Callable[[PromptForm, Sequence[str], random.Random], PromptForm | None]:
    def reform(form: PromptForm, labels: Sequence[str], chance: random.Random) -> PromptForm | None:
        if not form.system:
            return None
        system = form.system
        for sentence, others in REWORDINGS.items():
            system = _replaced(system, sentence, others[way], labels)
        if system == form.system:
            system = _FRAMES[way].format(system)
        return replace(form, system=system)

    return reform


def _replaced(system: str, sentence: str, other: str, labels: Sequence[str]) -> str:
    """`sentence` reworded where it stands at the beginning of a line that is no label's."""
    lines = system.split("\n")
    known = {f"- {label}" for label in labels}
    return "\n".join(
        other + line[len(sentence) :] if line.startswith(sentence) and line not in known else line for line in lines
    )


def _labels_shuffled(form: PromptForm, labels: Sequence[str], chance: random.Random) -> PromptForm | None:
    """The listed labels in another order."""
    listed = "\n".join(f"- {label}" for label in labels)
    if not form.system or len(labels) < 2 or form.system.count(listed) != 1:
        return None
    order = _another_order(labels, chance)
    return replace(form, system=form.system.replace(listed, "\n".join(f"- {label}" for label in order)))


def _shots_shuffled(form: PromptForm, labels: Sequence[str], chance: random.Random) -> PromptForm | None:
    """The same examples in another order."""
    if len(form.shots) < 2:
        return None
    return replace(form, shots=tuple(_another_order(form.shots, chance)))


def _another_order(items: Sequence[Item], chance: random.Random) -> list[Item]:
    order = list(items)
    while order == list(items) and any(item != items[0] for item in items):
        chance.shuffle(order)
    return order


PERTURBATIONS = (
    Perturbation("typos", "request", f"one typing error in {TYPO_RATE:.0%} of the longer words", alter=typos),
    Perturbation("case", "request", "all in capitals, or all in small letters", alter=other_case),
    Perturbation("spacing", "request", "spaces doubled or broken, full stops and commas left out", alter=other_spacing),
    Perturbation("instruction-1", "prompt", "the instruction in other words", reform=_reworded(0)),
    Perturbation("instruction-2", "prompt", "the instruction in other words again", reform=_reworded(1)),
    Perturbation("examples-1", "prompt", "the shown examples in another order", reform=_shots_shuffled),
    Perturbation("examples-2", "prompt", "the shown examples in a third order", reform=_shots_shuffled),
    Perturbation("labels-1", "prompt", "the listed labels in another order", reform=_labels_shuffled),
    Perturbation("labels-2", "prompt", "the listed labels in a third order", reform=_labels_shuffled),
)
"""All perturbations, in the order in which they are asked."""
