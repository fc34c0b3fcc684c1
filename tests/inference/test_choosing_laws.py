"""Constrained generation walks the tree of choices as plain generation with all other tokens forbidden would."""

from __future__ import annotations

import pytest
import torch

from tiny import KINDS, plain_logits, plain_twin, random_ids, tiny_model
from tuneworth.inference import Engine

END = 7
CHOICES = [[40, 41], [40, 42], [40, 41, 43], [40, 50, 51], [60, 61], [60, 62, 63], [70, 71, 72, 73], [80, 40]]


def walked(twin: torch.nn.Module, prompt: list[int], choices: list[list[int]]) -> list[int]:
    """The choice that greedy decoding without a cache reaches when only beginnings of choices are allowed."""
    written: list[int] = []
    while True:
        left = [[*choice, END] for choice in choices if [*choice, END][: len(written)] == written]
        allowed = sorted({choice[len(written)] for choice in left})
        with torch.no_grad():
            logits = plain_logits(twin, [*prompt, *written])[-1]
        written.append(max(allowed, key=lambda token: float(logits[token])))
        if written[-1] == END:
            return written[:-1]


@pytest.mark.parametrize("shared", [0, 11])
@pytest.mark.parametrize("kind", KINDS)
def test_law_6_constrained_answers_equal_plain_masked_greedy(kind: str, shared: int) -> None:
    model = tiny_model(kind)
    twin = plain_twin(model)
    common = random_ids(shared, seed=77)
    prompts = [[*common, 200 + i, *random_ids(n, seed=i)] for i, n in enumerate((1, 8, 29, 0, 16, 3, 3, 5))]
    found = Engine(model, end_id=END).generate(prompts, max_new_tokens=9, choices=CHOICES)
    assert [list(answer.ids) for answer in found] == [walked(twin, prompt, CHOICES) for prompt in prompts]
    assert len({answer.ids for answer in found}) > 1


def test_a_single_choice_is_always_the_answer() -> None:
    (answer,) = Engine(tiny_model(), end_id=END).generate([[5, 6]], max_new_tokens=4, choices=[[40, 41]])
    assert answer.ids == (40, 41)
    assert answer.finish_reason == "stop"


@pytest.mark.parametrize("choices", [[[40], [40]], [[40], []]])
def test_equal_or_empty_choices_are_refused(choices: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="differ from each other"):
        Engine(tiny_model(), end_id=END).generate([[5, 6]], max_new_tokens=4, choices=choices)
