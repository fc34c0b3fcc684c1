"""What is read from transformers' modules is what they compute."""

from __future__ import annotations

import pytest
import torch
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from tiny import tiny_model
from tuneworth.models.kernels import normed
from tuneworth.models.structure import Structure, is_known, norm_of


@pytest.mark.parametrize("kind", [LlamaRMSNorm, Gemma3RMSNorm])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_norm_is_rounded_where_transformers_rounds(kind: type[torch.nn.Module], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module = kind(64).to(dtype)
    with torch.no_grad():
        next(module.parameters()).uniform_(0.3, 1.7)
    x = torch.randn(500, 64).to(dtype)
    assert torch.equal(normed(x, *norm_of(module)), module(x))


def test_what_the_known_blocks_leave_out_makes_a_block_unknown() -> None:
    layer = tiny_model("alternating").model.layers[0]
    assert is_known(layer)
    assert Structure.of(layer).window == 4 and Structure.of(layer).angles == "sliding_attention"
    for name, value in (("attn_logit_softcapping", 50.0), ("is_causal", False)):
        before = getattr(layer.self_attn, name)
        setattr(layer.self_attn, name, value)
        assert not is_known(layer)
        setattr(layer.self_attn, name, before)
    layer.mlp.act_fn = torch.nn.ReLU()
    assert not is_known(layer)
    assert not is_known(torch.nn.Linear(2, 2))
