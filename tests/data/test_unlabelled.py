"""Requests that a model answers for another to learn from: nothing held out is among them, in any spelling."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tuneworth.data import Example, Message
from tuneworth.data.near import SIMILAR, likeness
from tuneworth.data.normalising import normalise
from tuneworth.data.sketches import candidates_across, signatures_of
from tuneworth.data.unlabelled import unseen_requests

WORDS = (
    "parcel", "lamp", "card", "order", "refund", "voucher", "courier", "broken", "late", "twice", "missing", "wrong",
    "colour", "address", "invoice",
)  # fmt: skip


def row(text: str, system: str = "") -> Example:
    first = (Message("system", system),) if system else ()
    return Example(text[:12], (*first, Message("user", text)), "x", "f", 1)


def sentences(count: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    return [f"{' '.join(chance.choices(WORDS, k=9))} please {n}x{seed}" for n in range(count)]


HELD_OUT = sentences(60, 1)


@pytest.mark.parametrize(
    "spelt",
    [
        lambda text: text,
        lambda text: text.upper(),
        lambda text: f"  {text.replace(' ', '   ')} ",
        lambda text: text.replace("please", "plaese"),
        lambda text: f"Hi, {text}",
        lambda text: text.replace("x1", "x7"),  # another number
    ],
)  # fmt: skip
@pytest.mark.parametrize("system", ["", "Sort the messages."])
def test_law_50_no_request_that_is_held_out_or_nearly_so_is_kept(spelt: object, system: str) -> None:
    assert callable(spelt)
    others = sentences(40, 2)
    requests = [row(text) for text in [*map(spelt, HELD_OUT), *others]]
    found = unseen_requests(requests, [], [row(text, system) for text in HELD_OUT], 0)
    assert sorted(example.text for example in found.rows) == sorted(others)
    assert sum(found.left_out.values()) == len(HELD_OUT)


def test_what_is_left_out_is_counted_by_reason_and_the_rest_is_a_seeded_order() -> None:
    learnt, others = sentences(10, 3), sentences(30, 4)
    requests = [row(text) for text in [*learnt, *HELD_OUT[:5], *others, *others[:7]]]
    found = unseen_requests(requests, [row(text) for text in learnt], [row(text) for text in HELD_OUT], 0)
    assert found.left_out == {"in the training rows": 10, "held out": 5, "repeats another request": 7}
    assert sorted(example.text for example in found.rows) == sorted(others)
    again = unseen_requests(requests, [row(text) for text in learnt], [row(text) for text in HELD_OUT], 0)
    other = unseen_requests(requests, [row(text) for text in learnt], [row(text) for text in HELD_OUT], 1)
    assert found == again
    assert found.rows != other.rows


def test_texts_of_one_template_are_all_compared_and_not_only_with_the_first() -> None:
    hidden = [normalise(f"where is my parcel number {word} please") for word in WORDS]
    texts = [text.replace("please", "pleese") for text in hidden]
    pairs = candidates_across(signatures_of(texts), signatures_of(hidden))
    like = likeness([texts[one] for one, _ in pairs], [hidden[other] for _, other in pairs])
    assert {(n, n) for n in range(len(texts))} <= set(map(tuple, pairs[like >= SIMILAR].tolist()))
    assert candidates_across(signatures_of([]), signatures_of(hidden)).shape == (0, 2)
    assert candidates_across(signatures_of(texts), signatures_of([])).shape == (0, 2)
    assert np.all(like <= 1)
