"""The loss over the vocabulary, a few tokens at a time, is the loss of all logits at once."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from tiny import close, random_row, tiny_model
from tuneworth.models.structure import plain_head
from tuneworth.training import answer_loss, loss, pack


@pytest.mark.parametrize("at_once", [1, 3, 256])
@pytest.mark.parametrize("head_is_trained", [False, True])
def test_law_3_loss_and_gradients_in_chunks_are_those_of_all_logits(
    head_is_trained: bool, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "_TOKENS_AT_ONCE", at_once)
    torch.manual_seed(0)
    hidden = torch.randn(7, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 8, dtype=torch.float64, requires_grad=head_is_trained)
    target = torch.tensor([1, 4, 4, 10, 0, 3, 7])
    scale = torch.rand(7, dtype=torch.float64)  # preference losses weigh tokens differently
    found = loss._LogProbabilities.apply(hidden, weight, target)
    wanted = -cross_entropy(hidden @ weight.t(), target, reduction="none")
    assert close(found, wanted)
    inputs = [hidden, weight] if head_is_trained else [hidden]
    for ours, theirs in zip(
        torch.autograd.grad((found * scale).sum(), inputs),
        torch.autograd.grad((wanted * scale).sum(), inputs),
        strict=True,
    ):
        assert close(ours, theirs)


def test_a_head_that_bends_its_logits_is_asked_whole() -> None:
    bent, gemma, llama, other = (tiny_model(kind) for kind in ("alternating", "alternating", "gqa", "other"))
    bent.config.final_logit_softcapping = 2.0
    assert plain_head(bent) is None
    assert plain_head(gemma) is gemma.lm_head
    assert plain_head(llama) is llama.lm_head
    assert plain_head(other) is None
    packed = pack([random_row("a", 4, 3, 1)])
    with torch.no_grad():
        for model in (bent, gemma, llama, other):
            logits = model(
                input_ids=packed.ids, position_ids=packed.positions, layout=packed.layout, use_cache=False
            ).logits
            wanted = cross_entropy(logits[0, packed.source], packed.target, reduction="sum")
            assert close(answer_loss(model, packed), wanted)
        assert not close(answer_loss(bent, packed), answer_loss(gemma, packed))
