"""Constrained answers: always one of the choices, and the one that plain step-by-step decoding walks to (LAW 6)."""

from __future__ import annotations

import pytest
import torch

from tiny import KINDS, plain_logits, plain_twin, random_ids, tiny_model, tiny_renderer
from tuneworth.inference import Chat, Engine

END = 7
CHOICES = [
    [40], [40, 41], [40, 41, 43, 44], [40, 50, 51], [60], [60, 62, 63], [60, 64], [70, 71, 72, 73, 74], [80, 40], [81],
    [82, 83], [82, 83, 84], [END, 5],
]  # fmt: skip


def walked(twin: torch.nn.Module, prompt: list[int], choices: list[list[int]]) -> list[int]:
    """The choice reached by taking, token by token, the likeliest one that still leads to a choice."""
    left, ids = [[*choice, END] for choice in choices], list(prompt)
    depth = 0
    with torch.no_grad():
        while len(left) > 1:
            logits = plain_logits(twin, ids)[-1]
            token = max({choice[depth] for choice in left}, key=lambda token: float(logits[token]))
            left = [choice for choice in left if choice[depth] == token]
            ids.append(token)
            depth += 1
    return left[0][:-1]


def prompts_behind(shared: int) -> list[list[int]]:
    common = random_ids(shared, seed=77)
    return [[*common, 200 + i, *random_ids(n, seed=i)] for i, n in enumerate((1, 8, 29, 0, 16, 3, 3, 5, 2, 7))]


@pytest.mark.parametrize("shared", [0, 1, 11])
@pytest.mark.parametrize("kind", KINDS)
def test_law_6_the_choice_is_the_one_that_plain_constrained_decoding_reaches(kind: str, shared: int) -> None:
    model = tiny_model(kind)
    twin = plain_twin(model)
    prompts = prompts_behind(shared)
    found = Engine(model, end_id=END).generate(prompts, max_new_tokens=9, choices=CHOICES)
    wanted = [walked(twin, prompt, CHOICES) for prompt in prompts]
    assert [list(answer.ids) for answer in found] == wanted
    assert {answer.finish_reason for answer in found} == {"stop"}
    assert len({tuple(answer) for answer in wanted}) > 1


@pytest.mark.parametrize("seed", range(6))
def test_law_6_it_holds_for_choices_that_branch_late(seed: int) -> None:
    model = tiny_model(seed=seed)
    stem = random_ids(6, seed=seed)
    choices = [[*stem[:n], 290 + m] for n in range(7) for m in range(4)]
    prompts = [random_ids(n, seed=seed + n) for n in (1, 4, 9)]
    found = Engine(model, end_id=END).generate(prompts, max_new_tokens=9, choices=choices)
    twin = plain_twin(model)
    assert [list(answer.ids) for answer in found] == [walked(twin, prompt, choices) for prompt in prompts]


@pytest.mark.parametrize("batch_tokens", [1, 20, 10**6])
def test_law_35_batch_mates_change_no_choice(batch_tokens: int) -> None:
    engine = Engine(tiny_model(), end_id=END, batch_tokens=batch_tokens)
    prompts, done = prompts_behind(2), []
    found = engine.generate(prompts, max_new_tokens=9, choices=CHOICES, on_done=done.append)
    alone = [engine.generate([prompt], max_new_tokens=9, choices=CHOICES)[0] for prompt in prompts]
    assert [answer.ids for answer in found] == [answer.ids for answer in alone]
    assert sum(done) == len(prompts)


def test_the_order_of_the_choices_does_not_matter() -> None:
    engine = Engine(tiny_model(), end_id=END)
    prompts = prompts_behind(0)
    forward = engine.generate(prompts, max_new_tokens=9, choices=CHOICES)
    backward = engine.generate(prompts, max_new_tokens=9, choices=CHOICES[::-1])
    assert [answer.ids for answer in forward] == [answer.ids for answer in backward]


def test_a_single_choice_is_always_the_answer() -> None:
    found = Engine(tiny_model(), end_id=END).generate([[1, 2], [3]], max_new_tokens=9, choices=[[40, 41]])
    assert [answer.ids for answer in found] == [(40, 41), (40, 41)]


@pytest.mark.parametrize("choices", [[[40], [41], [40]], [[40], []]])
def test_equal_and_empty_choices_are_refused(choices: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="choices must"):
        Engine(tiny_model(), end_id=END).generate([[1, 2]], max_new_tokens=9, choices=choices)


def test_a_chat_with_labels_answers_with_one_of_them_streamed_and_whole() -> None:
    renderer, labels = tiny_renderer(), ("yes", "yes and no", "né <|im_end|>")
    chat = Chat(renderer, Engine(tiny_model(), end_id=renderer.end_id), 500, labels)
    found = {chat.chat([{"role": "user", "content": f"question {n}"}]) for n in range(12)}
    assert found <= set(labels)
    assert "".join(chat.stream([{"role": "user", "content": "x"}])) in labels
