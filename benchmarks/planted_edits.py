"""Edits of known size for the planted-fault benchmark of the audit: a row that nearly repeats another one.

Two kinds. `reworded`: whole words are dropped, doubled with a filler, replaced by a word of another row, or swapped,
as a paraphrase does it. `mistyped`: single characters are replaced, dropped, inserted or swapped. Both go on until the
changed characters make up the wanted share of the text, and never beyond it by more than one word.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from random import Random

FILLERS = ["please", "really", "just", "also", "now", "actually", "maybe", "so", "well", "then", "still", "again"]


def reworded(random: Random, text: str, share: float, vocabulary: Sequence[str]) -> str:
    """`text` with words changed until `share` of its characters are."""
    words = text.split(" ")
    left = share * len(text)
    for _ in range(200):
        if left < 1:
            break
        place = random.randrange(len(words))
        fitting = [word for word in random.sample(vocabulary, 30) if len(word) <= left + 2]
        action = random.choice(["drop", "fill", "replace", "swap"])
        if action == "drop" and len(words) > 2 and len(words[place]) <= left + 2:
            left -= len(words.pop(place)) + 1
        elif action == "fill":
            filler = random.choice(FILLERS)
            if len(filler) <= left + 2:
                words.insert(place, filler)
                left -= len(filler) + 1
        elif action == "replace" and fitting and len(words[place]) <= left + 2:
            left -= max(len(words[place]), len(fitting[0]))
            words[place] = fitting[0]
        elif action == "swap" and place and 2 * len(words[place]) <= left + 2:
            words[place - 1], words[place] = words[place], words[place - 1]
            left -= 2 * len(words[place])
    return " ".join(words)


def mistyped(random: Random, text: str, share: float) -> str:
    """`text` with round(share * length) single characters changed, at least one."""
    signs = list(text)
    for _ in range(max(1, round(share * len(text)))):
        place = random.randrange(len(signs))
        action = random.choice(["replace", "drop", "insert"])
        if action == "replace":
            signs[place] = random.choice(string.ascii_lowercase)
        elif action == "drop" and len(signs) > 5:
            signs.pop(place)
        else:
            signs.insert(place, random.choice(string.ascii_lowercase))
    return "".join(signs)
