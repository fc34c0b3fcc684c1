"""Requests that a model answers for another to learn from: nothing held out is among them, in any spelling."""

from __future__ import annotations

import random

import pytest

from tuneworth.data import Example, Message
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


SHORT = [" ".join(pair) for pair in zip(WORDS, WORDS[3:], strict=False)]
HELD_OUT = [*sentences(60, 1), *(f"{text} x1" for text in SHORT)]


@pytest.mark.parametrize(
    "spelt",
    [
        lambda text: text,
        lambda text: text.upper(),
        lambda text: f"  {text.replace(' ', '   ')} ",
        lambda text: text.replace("e", "a", 1),
        lambda text: f"a {text}",
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


def test_a_template_that_all_texts_are_written_by_takes_no_time_and_leaves_nothing() -> None:
    template = "please tell me where the parcel with number {} is that i ordered last week, since it has not come"
    requests = [row(template.format(number)) for number in range(300)]
    assert not unseen_requests(requests, [], [row(template.format(number)) for number in range(5000, 8000)], 0).rows
    assert len(unseen_requests(requests, [], [], 0).rows) == 300
