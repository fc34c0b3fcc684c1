"""LAW 6 for an answer that is alone: its compiled pass is the model's own, with every adapter, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tiny import plain_greedy, plain_twin, random_ids, saved_adapters, tiny_model
from tuneworth.inference import Engine, Request
from tuneworth.models import kernels, packed
from tuneworth.models.adapters import add_adapter, load_adapter

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler, at its import
NEVER = 10**6


@pytest.fixture
def passes(compiled: None, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The length of the row at each compiled pass through a block."""
    seen: list[int] = []
    plain = packed.SingleToken.__call__

    def counted(self: Any, x: Any, angles: Any, slots: Any, adapter: Any) -> Any:
        seen.append(len(slots.used))
        return plain(self, x, angles, slots, adapter)

    monkeypatch.setattr(packed.SingleToken, "__call__", counted)
    return seen


@pytest.mark.parametrize("kind", ["gqa", "mha", "bias", "head norms", "wide alternating"])
def test_law_6_a_compiled_token_is_the_models_own(passes: list[int], kind: str) -> None:
    model = tiny_model(kind)
    engine = Engine(model, end_id=NEVER)
    for length in (1, 2, 9, 40):
        prompt = random_ids(length, seed=length)
        found = engine.answer([Request(prompt, 6)])[0]
        assert list(found.ids) == plain_greedy(plain_twin(model), prompt, 6)
    # Five more tokens of each prompt, two blocks; a row of one token is not compiled for.
    assert passes == [n for length in (1, 2, 9, 40) for n in range(length + 1, length + 6) for _ in range(2)]
    assert not kernels._Compiling.failed


@pytest.mark.parametrize("kind", ["bias", "head norms", "wide alternating"])
def test_law_6_the_logits_of_a_compiled_token_are_exact(passes: list[int], kind: str) -> None:
    model = tiny_model(kind)
    prompt = random_ids(7, seed=3)
    engine = Engine(model, end_id=NEVER)
    found: list[torch.Tensor] = []
    decoder = engine._decoder

    class Recorded:
        names = ()
        refresh = staticmethod(decoder.refresh)

        def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            found.append(decoder(*args, **kwargs))
            return found[-1]

    engine._decoder = Recorded()
    written = list(engine.answer([Request(prompt, 4)])[0].ids)
    with torch.no_grad():
        wanted = plain_twin(model)(torch.tensor([[*prompt, *written[:-1]]])).logits[0, len(prompt) - 1 :]
    torch.testing.assert_close(torch.cat(found), wanted, rtol=1e-10, atol=1e-10)
    assert passes


def test_law_6_the_last_of_several_rows_goes_on_where_it_stands(passes: list[int]) -> None:
    model = tiny_model()
    prompts = [random_ids(3, seed=1), random_ids(11, seed=2)]
    requests = [Request(prompts[0], 2), Request(prompts[1], 8)]
    engine = Engine(model, end_id=NEVER)
    batch = engine.batch([requests[0]])  # behind no shared beginning
    tickets = [batch.add(request) for request in requests]
    done = {}
    while batch.busy:
        done |= {step.ticket: step.done for step in batch.step() if step.done is not None}
    for ticket, prompt, count in zip(tickets, prompts, (2, 8), strict=True):
        assert list(done[ticket].ids) == plain_greedy(plain_twin(model), prompt, count)
    assert passes and min(passes) > len(prompts[1])


def test_adapters_answer_a_lone_request_each_for_itself(passes: list[int], tmp_path: Path) -> None:
    prompt = random_ids(8, seed=4)
    saved_adapters(tmp_path)
    both = load_adapter(tiny_model(), tmp_path / "a", name="a")
    add_adapter(both, tmp_path / "b", "b")
    engine = Engine(both, end_id=NEVER)

    def answers(names: list[str | None]) -> list[tuple[int, ...]]:
        return [engine.answer([Request(prompt, 5, adapter=name)])[0].ids for name in names]

    alone = answers(["a", "b", "", None])
    assert passes
    kernels.compile_kernels(False)
    assert alone == answers(["a", "b", "", None])
    assert alone[0] == alone[3] and len(set(alone)) == 3


def test_a_window_or_a_constraint_to_labels_keeps_the_general_pass(passes: list[int]) -> None:
    model = tiny_model("window")
    prompt = random_ids(9, seed=5)
    found = Engine(model, end_id=NEVER).answer([Request(prompt, 6)])[0]
    assert list(found.ids) == plain_greedy(plain_twin(model), prompt, 6)
    assert not passes


@pytest.mark.parametrize("kind", ["window", "alternating"])
def test_law_37_a_lone_token_behind_more_than_its_window_is_the_models_own(passes: list[int], kind: str) -> None:
    """Compiled it sees the whole row: only while that is no longer than any window."""
    model = tiny_model(kind)
    assert model.config.sliding_window == 4
    for length in (2, 9):
        prompt = random_ids(length, seed=length)
        found = Engine(model, end_id=NEVER).answer([Request(prompt, 5)])[0]
        assert list(found.ids) == plain_greedy(plain_twin(model), prompt, 5)
    assert passes == [3, 3, 4, 4]
