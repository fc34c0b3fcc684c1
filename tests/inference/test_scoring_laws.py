"""Choosing among known answers: the best-first search answers what scoring every choice whole answers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from tiny import KINDS, plain_logits, plain_twin, random_ids, tiny_model
from tuneworth.inference import Engine

END = 7
CHOICES = [
    [40], [40, 41], [40, 41, 43, 44], [40, 50, 51], [60], [60, 62, 63], [60, 64], [70, 71, 72, 73, 74], [80, 40], [81],
    [82, 83], [82, 83, 84], [END, 5],
]  # fmt: skip


def exhaustive(twin: torch.nn.Module, prompt: Sequence[int], choices: Sequence[Sequence[int]]) -> list[float]:
    """Log probability of every choice and its end token, a whole forward pass each."""
    found = []
    with torch.no_grad():
        for choice in choices:
            tokens = [*choice, END]
            logs = torch.log_softmax(plain_logits(twin, [*prompt, *tokens]), -1)  # type: ignore[arg-type]
            found.append(sum(float(logs[len(prompt) - 1 + i, token]) for i, token in enumerate(tokens)))
    return found


def prompts_behind(shared: int) -> list[list[int]]:
    common = random_ids(shared, seed=77)
    return [[*common, 200 + i, *random_ids(n, seed=i)] for i, n in enumerate((1, 8, 29, 0, 16, 3, 3, 5, 2, 7))]


@pytest.mark.parametrize("shared", [0, 1, 11])
@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_and_every_score_equal_exhaustive_scoring(kind: str, shared: int) -> None:
    model = tiny_model(kind)
    twin = plain_twin(model)
    prompts = prompts_behind(shared)
    engine = Engine(model, end_id=END)
    searched, whole = engine.score(prompts, CHOICES), engine.score(prompts, CHOICES, everything=True)
    saved = 0
    for prompt, found, everything in zip(prompts, searched, whole, strict=True):
        wanted = exhaustive(twin, prompt, CHOICES)
        assert found.best == everything.best == max(range(len(CHOICES)), key=lambda i: wanted[i])
        assert all(value == pytest.approx(wanted[i], abs=1e-8) for i, value in found.logprobs.items())
        assert [everything.logprobs[i] for i in range(len(CHOICES))] == pytest.approx(wanted, abs=1e-8)
        assert everything.unexplored == 0
        left = sum(math.exp(wanted[i]) for i in range(len(CHOICES)) if i not in found.logprobs)
        assert left <= found.unexplored + 1e-12
        saved += everything.tokens - found.tokens
    assert saved > 0


def test_the_answer_differs_from_the_greedy_walk_where_that_is_led_astray() -> None:
    """Some prompt's likeliest first token leads to no likely choice: that is what scoring is for."""
    engine = Engine(tiny_model(), end_id=END)
    prompts = [random_ids(4, seed=seed) for seed in range(40)]
    walked = [answer.ids for answer in engine.generate(prompts, max_new_tokens=9, choices=CHOICES)]
    scored = [tuple(CHOICES[found.best]) for found in engine.score(prompts, CHOICES)]
    assert walked != scored


def test_probabilities_add_up_to_one_and_follow_the_scores() -> None:
    engine = Engine(tiny_model(), end_id=END)
    for found in engine.score(prompts_behind(2), CHOICES):
        chances = found.probabilities(len(CHOICES))
        assert sum(chances) == pytest.approx(1)
        assert max(chances) == chances[found.best]


def test_batch_mates_change_no_score() -> None:
    prompts = prompts_behind(3)
    together = Engine(tiny_model(), end_id=END).score(prompts, CHOICES)
    for prompt, found in zip(prompts, together, strict=True):
        alone = Engine(tiny_model(), end_id=END).score([prompt], CHOICES)[0]
        assert found.best == alone.best
        assert found.logprobs[found.best] == pytest.approx(alone.logprobs[alone.best], abs=1e-8)
