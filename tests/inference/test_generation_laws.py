"""LAW 6: cached, batched, prefix-shared and streamed generation is plain generation."""

from __future__ import annotations

import pytest
import torch

from tiny import KINDS, plain_greedy, plain_twin, random_ids, tiny_model
from tuneworth.inference import Engine, Request, Sampling
from tuneworth.models import attention

NEVER = 10**6  # an end token that no model writes
COUNT = 12


def uneven(shared: int = 0) -> list[list[int]]:
    common = random_ids(shared, seed=77)
    return [[*common, 200 + i, *random_ids(n - 1, seed=i)] for i, n in enumerate((2, 9, 30, 1, 17))]


@pytest.mark.parametrize("shared", [0, 1, 11])
@pytest.mark.parametrize("kind", KINDS)
def test_law_6_32_and_34_batched_with_a_cache_equals_argmax_by_argmax(kind: str, shared: int) -> None:
    model = tiny_model(kind)
    twin = plain_twin(model)
    prompts = uneven(shared)
    found = Engine(model, end_id=NEVER).generate(prompts, max_new_tokens=COUNT)
    assert [list(answer.ids) for answer in found] == [plain_greedy(twin, prompt, COUNT) for prompt in prompts]
    assert {answer.finish_reason for answer in found} == {"length"}
    assert all(answer.seconds > 0 for answer in found)


@pytest.mark.parametrize("kind", KINDS)
def test_law_6_long_prompts_take_the_fused_path_and_agree(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_TILE_SCORES", 300)
    model = tiny_model(kind)
    twin = plain_twin(model)
    prompts = uneven(3)
    found = Engine(model, end_id=NEVER).generate(prompts, max_new_tokens=4)
    assert [list(answer.ids) for answer in found] == [plain_greedy(twin, prompt, 4) for prompt in prompts]


@pytest.mark.parametrize("batch_tokens", [1, 20, 40, 10**6])
def test_law_6_and_35_batch_mates_change_no_answer(batch_tokens: int) -> None:
    model = tiny_model()
    prompts = uneven(2)
    done: list[int] = []
    engine = Engine(model, end_id=NEVER, batch_tokens=batch_tokens)
    found = engine.generate(prompts, max_new_tokens=COUNT, on_done=done.append)
    alone = [engine.generate([prompt], max_new_tokens=COUNT)[0] for prompt in prompts]
    assert [answer.ids for answer in found] == [answer.ids for answer in alone]
    assert sum(done) == len(prompts)


def end_that_stops_unevenly(answers: list[list[int]]) -> int:
    """The token whose first places in `answers` differ the most."""
    tokens = {token for answer in answers for token in answer}

    def places(token: int) -> set[int]:
        return {answer.index(token) if token in answer else -1 for answer in answers}

    return max(sorted(tokens), key=lambda token: len(places(token)))


@pytest.mark.parametrize("kind", KINDS)
def test_law_6_rows_end_at_different_steps_and_the_rest_go_on_unchanged(kind: str) -> None:
    model = tiny_model(kind)
    twin = plain_twin(model)
    # Few-token vocabulary: many short prompts, so that some token comes up at several places.
    prompts = [[i, 3 * i + 1, *random_ids(i % 7, seed=i)] for i in range(12)]
    end = end_that_stops_unevenly([plain_greedy(twin, prompt, COUNT) for prompt in prompts])
    wanted = [plain_greedy(twin, prompt, COUNT, end) for prompt in prompts]
    assert len({len(answer) for answer in wanted}) >= 3
    found = Engine(model, end_id=end).generate(prompts, max_new_tokens=COUNT)
    assert [list(answer.ids) for answer in found] == wanted
    assert [answer.finish_reason for answer in found] == ["stop" if len(w) < COUNT else "length" for w in wanted]


@pytest.mark.parametrize("kind", KINDS)
def test_law_33_the_first_token_is_the_argmax_at_the_prompts_last_token(kind: str) -> None:
    model = tiny_model(kind)
    twin = plain_twin(model)
    found = Engine(model, end_id=NEVER).generate(uneven(), max_new_tokens=1)
    assert [list(answer.ids) for answer in found] == [plain_greedy(twin, prompt, 1) for prompt in uneven()]


def test_law_6_one_token_prompts_and_identical_prompts() -> None:
    model = tiny_model()
    twin = plain_twin(model)
    engine = Engine(model, end_id=NEVER)
    for prompts in ([[5], [6], [7]], [[5]], [[5, 6, 7]] * 4, [[5], [5]], [[5, 6], [5, 6, 7], [5, 6, 7, 8]]):
        found = engine.generate(prompts, max_new_tokens=5)
        assert [list(answer.ids) for answer in found] == [plain_greedy(twin, prompt, 5) for prompt in prompts]


def test_law_6_an_answer_that_ends_at_once_is_empty_and_says_stop() -> None:
    model = tiny_model()
    prompt = random_ids(6, seed=1)
    end = plain_greedy(plain_twin(model), prompt, 1)[0]
    answer = Engine(model, end_id=end).generate([prompt], max_new_tokens=4)[0]
    assert (answer.ids, answer.finish_reason) == ((), "stop")
    assert list(Engine(model, end_id=end).stream(Request(prompt, 4))) == []


def test_law_6_the_end_token_as_the_last_allowed_token_is_a_stop() -> None:
    model = tiny_model()
    prompt = random_ids(6, seed=3)
    written = plain_greedy(plain_twin(model), prompt, COUNT)
    place = next(i for i, token in enumerate(written) if i and token not in written[:i])
    answer = Engine(model, end_id=written[place]).generate([prompt], max_new_tokens=place + 1)[0]
    assert (list(answer.ids), answer.finish_reason) == (written[:place], "stop")


@pytest.mark.parametrize("kind", KINDS)
def test_law_6_streamed_equals_batched(kind: str) -> None:
    model = tiny_model(kind)
    engine = Engine(model, end_id=NEVER)
    prompts = uneven(4)
    batched = engine.generate(prompts, max_new_tokens=COUNT)
    for prompt, answer in zip(prompts, batched, strict=True):
        assert tuple(engine.stream(Request(prompt, COUNT))) == answer.ids


def test_law_6_an_abandoned_stream_leaves_nothing_behind() -> None:
    model = tiny_model()
    engine = Engine(model, end_id=NEVER)
    prompt = random_ids(9, seed=2)
    stream = engine.stream(Request(prompt, COUNT))
    first = next(stream)
    stream.close()
    assert next(engine.stream(Request(prompt, COUNT))) == first
    assert not torch.is_inference_mode_enabled()


def test_no_prompts_no_answers() -> None:
    assert Engine(tiny_model(), end_id=0).generate([], max_new_tokens=3) == []


def test_sampling_is_reproducible_by_seed() -> None:
    engine = Engine(tiny_model(), end_id=NEVER)
    prompt = random_ids(5, seed=1)

    def sample(seed: int, temperature: float = 1.5) -> list[int]:
        return list(engine.stream(Request(prompt, COUNT, Sampling(temperature=temperature, seed=seed))))

    torch.manual_seed(1)
    first = sample(3)
    torch.manual_seed(2)
    assert sample(3) == first
    assert len({tuple(sample(seed)) for seed in range(6)}) > 1
    assert sample(3, 1e-6) == list(engine.stream(Request(prompt, COUNT)))


def test_sampling_follows_the_models_distribution() -> None:
    model = tiny_model()
    prompt = random_ids(5, seed=1)
    with torch.no_grad():
        logits = plain_twin(model)(input_ids=torch.tensor([prompt]), use_cache=False).logits[0, -1]
    wanted = torch.softmax(logits / 2.0, -1)
    engine = Engine(model, end_id=NEVER)
    drawn = [next(engine.stream(Request(prompt, 1, Sampling(temperature=2.0, seed=seed)))) for seed in range(300)]
    top = int(wanted.argmax())
    share = drawn.count(top) / len(drawn)
    assert share == pytest.approx(float(wanted[top]), abs=4 * (0.25 / 300) ** 0.5)
