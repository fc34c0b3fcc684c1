"""LAW 6 for rows that are written side by side: the compiled pass of one token a row is the model's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tiny import plain_greedy, plain_twin, random_ids, tiny_model
from tuneworth.inference import Engine, Request, cache
from tuneworth.models import kernels

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler, at its import
NEVER = 10**6


@pytest.fixture
def rows(compiled: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """How many rows each compiled pass through a block had, by kernel."""
    seen: dict[str, list[int]] = {}

    def counted(name: str) -> None:
        plain, found = getattr(cache, name), seen.setdefault(name, [])

        def call(heads: torch.Tensor, *others: Any) -> Any:
            found.append(len(heads))
            return plain(heads, *others)

        monkeypatch.setattr(cache, name, call)

    counted("attend_one_each")
    counted("attend_one_each_of_both")
    return seen


@pytest.mark.parametrize("kind", ["gqa", "mha", "bias", "head norms", "wide alternating"])
@pytest.mark.parametrize("shared", [0, 6, 70])
def test_law_6_rows_side_by_side_are_written_as_alone(rows: dict[str, list[int]], kind: str, shared: int) -> None:
    model = tiny_model(kind)
    beginning = random_ids(shared, seed=9)
    # Uneven rows that end at different times: who moves into a place finds the keys of a longer row behind its own.
    prompts = [beginning + random_ids(length, seed=length) for length in (3, 4, 17, 9, 30)]
    requests = [Request(prompt, count) for prompt, count in zip(prompts, (9, 2, 5, 7, 3), strict=True)]
    answers = Engine(model, end_id=NEVER).answer(requests)
    for request, answer in zip(requests, answers, strict=True):
        assert list(answer.ids) == plain_greedy(plain_twin(model), list(request.prompt), request.max_new_tokens)
    used = "attend_one_each_of_both" if shared == 70 else "attend_one_each"
    # Two blocks; rows leave after 2, 3, 5 and 7 tokens, and the last goes on alone.
    assert rows.pop(used) == [n for n in (5, 4, 3, 3, 2, 2) for _ in range(2)] and not any(rows.values())
    assert not kernels._Compiling.failed


@pytest.mark.parametrize("kind", ["bias", "head norms", "wide alternating"])
def test_law_6_logits_of_rows_side_by_side_are_exact(rows: dict[str, list[int]], kind: str) -> None:
    model = tiny_model(kind)
    for shared in (0, 70):
        beginning = random_ids(shared, seed=9)
        prompts = [beginning + random_ids(length, seed=length) for length in (5, 12)]
        engine = Engine(model, end_id=NEVER)
        found: list[torch.Tensor] = []
        decoder = engine._decoder

        class Recorded:
            names = ()
            refresh = staticmethod(decoder.refresh)

            def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
                found.append(decoder(*args, **kwargs))  # noqa: B023 (called in this turn of the loop alone)
                return found[-1]  # noqa: B023

        engine._decoder = Recorded()
        answers = engine.answer([Request(prompt, 4) for prompt in prompts])
        for place, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            with torch.no_grad():
                whole = plain_twin(model)(torch.tensor([[*prompt, *answer.ids[:-1]]])).logits[0, len(prompt) :]
            written = torch.stack([logits[place] for logits in found[-3:]])
            torch.testing.assert_close(written, whole, rtol=1e-10, atol=1e-10)
    assert all(rows.values())


def test_a_window_keeps_the_general_pass(rows: dict[str, list[int]]) -> None:
    model = tiny_model("window")
    prompts = [random_ids(length, seed=length) for length in (5, 14)]
    answers = Engine(model, end_id=NEVER).answer([Request(prompt, 6) for prompt in prompts])
    for prompt, answer in zip(prompts, answers, strict=True):
        assert list(answer.ids) == plain_greedy(plain_twin(model), prompt, 6)
    assert not any(rows.values())


@pytest.mark.parametrize("kind", ["window", "alternating"])
@pytest.mark.parametrize("shared", [0, 70])
def test_law_37_rows_longer_than_a_window_are_written_as_alone(
    rows: dict[str, list[int]], kind: str, shared: int
) -> None:
    model = tiny_model(kind)
    prompts = [random_ids(shared, seed=9) + random_ids(length, seed=length) for length in (1, 2, 17)]
    answers = Engine(model, end_id=NEVER).answer([Request(prompt, 6) for prompt in prompts])
    for prompt, answer in zip(prompts, answers, strict=True):
        assert list(answer.ids) == plain_greedy(plain_twin(model), prompt, 6)
    assert len(rows["attend_one_each_of_both" if shared else "attend_one_each"]) == (5 if kind == "alternating" else 0)
