"""Sampling: each limit does what its definition says, and an answer depends on its own seed alone."""

from __future__ import annotations

import math

import pytest
import torch

from tiny import plain_logits, plain_twin, random_ids, tiny_model
from tuneworth.errors import InputError
from tuneworth.inference import Engine, Request, Sampling
from tuneworth.inference.sampling import Sampler

NEVER = 10**6
LOGITS = torch.log(torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05], dtype=torch.float64))


def drawn(count: int = 400, logits: torch.Tensor = LOGITS, prompt: tuple[int, ...] = (), **wishes: object) -> set[int]:
    sampler = Sampler(Sampling(**{"temperature": 1.0, **wishes}), prompt)  # type: ignore[arg-type]
    return {sampler.choose(logits) for _ in range(count)}


@pytest.mark.parametrize(
    ("wishes", "tokens"),
    [
        ({}, {0, 1, 2, 3, 4}),
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.69}, {0, 1}),  # the token that reaches it is the last one in
        ({"top_p": 0.71}, {0, 1, 2}),
        ({"min_p": 0.3}, {0, 1, 2}),
        ({"top_k": 3, "top_p": 0.5}, {0, 1}),
        ({"logit_bias": ((4, 100.0),)}, {4}),
        ({"logit_bias": ((0, -math.inf), (1, -math.inf))}, {2, 3, 4}),
        ({"temperature": 0.01}, {0}),
    ],
)
def test_limits_leave_the_candidates_of_their_definition(wishes: dict[str, object], tokens: set[int]) -> None:
    assert drawn(**wishes) == tokens  # type: ignore[arg-type]


def test_limits_hold_when_more_candidates_are_left_than_are_looked_at_first() -> None:
    flat = torch.zeros(5000, dtype=torch.float64)
    flat[:2500] += 1.0
    assert max(drawn(300, flat, top_p=0.7)) > 1100
    assert max(drawn(300, flat, min_p=0.9)) < 2500


def test_penalties_follow_their_definitions() -> None:
    logits = torch.tensor([2.0, 1.9, -1.0, -1.2])
    greedy = Sampler(Sampling(frequency_penalty=0.05), ())
    assert [greedy.choose(logits) for _ in range(6)] == [0, 0, 0, 1, 0, 1]
    presence = Sampler(Sampling(presence_penalty=0.2), ())
    assert [presence.choose(logits) for _ in range(4)] == [0, 1, 0, 0]
    repeated = Sampler(Sampling(repetition_penalty=1.2), (0,))
    assert repeated.choose(logits) == 1  # 2.0 / 1.2 is below 1.9
    negative = Sampler(Sampling(repetition_penalty=1.5), (2,))
    assert negative.choose(torch.tensor([-5.0, -5.0, -1.0, -1.2])) == 3  # -1.0 * 1.5 is below -1.2


def test_frequencies_follow_the_distribution() -> None:
    sampler = Sampler(Sampling(temperature=1.0, seed=3), ())
    counts = torch.bincount(torch.tensor([sampler.choose(LOGITS) for _ in range(4000)]), minlength=5) / 4000
    assert torch.allclose(counts.double(), LOGITS.exp(), atol=4 * (0.25 / 4000) ** 0.5)


def test_the_same_seed_gives_the_same_answer_whatever_the_batch_mates_are() -> None:
    model = tiny_model()
    prompts = [random_ids(3 + n, seed=n) for n in range(6)]
    wishes = [Sampling(temperature=1.3, top_p=0.9, seed=n) for n in range(6)]
    requests = [Request(prompt, 8, wish) for prompt, wish in zip(prompts, wishes, strict=True)]
    together = [answer.ids for answer in Engine(model, end_id=NEVER).answer(requests)]
    alone = [Engine(model, end_id=NEVER).answer([request])[0].ids for request in requests]
    fewer = [answer.ids for answer in Engine(model, end_id=NEVER, batch_rows=2).answer(requests[::-1])][::-1]
    streamed = [tuple(Engine(model, end_id=NEVER).stream(request)) for request in requests]
    assert together == alone == fewer == streamed


def test_n_answers_differ_and_are_reproducible() -> None:
    model, prompt = tiny_model(), random_ids(5, seed=1)
    requests = [Request(prompt, 8, wish) for wish in Sampling(temperature=1.5, seed=7).copies(5)]
    first = [answer.ids for answer in Engine(model, end_id=NEVER).answer(requests)]
    assert first == [answer.ids for answer in Engine(model, end_id=NEVER).answer(requests)]
    assert len(set(first)) > 3
    assert Sampling(seed=7).copies(1) == [Sampling(seed=7)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_log_probabilities_are_the_models_and_stand_beside_their_tokens(temperature: float) -> None:
    model, prompt = tiny_model(), random_ids(5, seed=1)
    request = Request(prompt, 6, Sampling(temperature=temperature, logprobs=3, seed=2))
    found = Engine(model, end_id=NEVER).answer([request, Request(random_ids(9, seed=2), 6)])[0]
    logs = torch.log_softmax(plain_logits(plain_twin(model), [*prompt, *found.ids]), -1).detach()
    assert len(found.logprobs) == len(found.ids) == 6
    for place, (token, written) in enumerate(zip(found.ids, found.logprobs, strict=True), len(prompt) - 1):
        assert written.logprob == pytest.approx(float(logs[place, token]), abs=1e-8)
        best = torch.topk(logs[place], 3)
        assert [token for token, _ in written.top] == best.indices.tolist()
        assert [value for _, value in written.top] == pytest.approx(best.values.tolist(), abs=1e-8)


def test_values_out_of_range_are_all_named() -> None:
    with pytest.raises(InputError, match=r"temperature -1.*top_p 0.*logprobs 50"):
        Sampling(temperature=-1, top_p=0, logprobs=50)


def test_an_answer_ends_where_its_request_says() -> None:
    model, prompt = tiny_model(), random_ids(5, seed=1)
    whole = Engine(model, end_id=NEVER).answer([Request(prompt, 8)])[0]
    cut = Engine(model, end_id=NEVER).answer([Request(prompt, 8, over=lambda ids: len(ids) == 3)])[0]
    assert (cut.ids, cut.finish_reason) == (whole.ids[:3], "stop")


def test_requests_join_while_others_run_and_can_be_cancelled() -> None:
    model = tiny_model()
    engine = Engine(model, end_id=NEVER)
    prompts = [random_ids(4 + n, seed=n) for n in range(4)]
    batch, answers = engine.batch([]), {}
    tickets = [batch.add(Request(prompts[0], 9))]
    batch.step()
    batch.step()
    tickets += [batch.add(Request(prompt, 5)) for prompt in prompts[1:]]
    batch.step()
    batch.cancel(tickets[2])
    while batch.busy:
        answers |= {step.ticket: step.done.ids for step in batch.step() if step.done}
    wanted = engine.answer([Request(prompts[0], 9), Request(prompts[1], 5), Request(prompts[3], 5)])
    assert [answers[tickets[i]] for i in (0, 1, 3)] == [answer.ids for answer in wanted]
    assert tickets[2] not in answers
