"""What the blocks of known decoders are made of, read from transformers' modules once for training and answering.

All are one shape: norm, attention, sum; norm, gated MLP, sum. They differ in what is normalised besides (heads of
queries and keys; what attention and MLP give, before it is added), in how a norm's weight is applied, in the gate's
activation, and in windows and angles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tuneworth.models.kernels import precise

# Blocks whose forward pass is the one of models/blocks; where their attention's window is found, if it has one.
_WINDOWS = {
    "LlamaDecoderLayer": "",
    "MistralDecoderLayer": "config.sliding_window",
    "Qwen2DecoderLayer": "sliding_window",
    "Qwen3DecoderLayer": "sliding_window",
    "Gemma3DecoderLayer": "sliding_window",
}
_MODELS = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Gemma3ForCausalLM")
_ACTIVATIONS = {"SiLUActivation": "silu", "SiLU": "silu", "GELUTanh": "gelu"}

Norm = tuple[Tensor, float]  # weight [H] and epsilon; see kernels.normed


@dataclass(frozen=True, slots=True)
class Structure:
    """A block's norms and numbers. `heads` is what kernels.norm_heads is to be given besides the heads; `angles` the
    kind of layer that names its angles, where they differ ("" elsewhere)."""

    before_attention: Norm
    behind_attention: Norm | None
    before_mlp: Norm
    behind_mlp: Norm | None
    heads: tuple[Tensor, Tensor, int, float] | None
    activation: str
    window: int | None
    angles: str
    index: int
    scaling: float
    shape: tuple[int, int]  # key/value heads, head size

    @classmethod
    def of(cls, layer: Any) -> Structure:
        """Of a block that `is_known`."""
        attention, four = layer.self_attn, hasattr(layer, "pre_feedforward_layernorm")
        kv_heads, heads = attention.k_proj.out_features // attention.head_dim, None
        if hasattr(attention, "q_norm"):
            (query, epsilon), (key, _) = norm_of(attention.q_norm), norm_of(attention.k_norm)
            heads = query, key, kv_heads, epsilon
        window: Any = attention if _WINDOWS[type(layer).__name__] else None
        for name in filter(None, _WINDOWS[type(layer).__name__].split(".")):
            window = getattr(window, name, None)
        return cls(
            before_attention=norm_of(layer.input_layernorm),
            behind_attention=norm_of(layer.post_attention_layernorm) if four else None,
            before_mlp=norm_of(layer.pre_feedforward_layernorm if four else layer.post_attention_layernorm),
            behind_mlp=norm_of(layer.post_feedforward_layernorm) if four else None,
            heads=heads,
            activation=_ACTIVATIONS[type(layer.mlp.act_fn).__name__],
            window=window,
            angles=attention.layer_type if type(layer).__name__ == "Gemma3DecoderLayer" else "",
            index=attention.layer_idx,
            scaling=attention.scaling,
            shape=(kv_heads, attention.head_dim),
        )


def is_known(layer: torch.nn.Module) -> bool:
    """Whether a block is one of those above, with nothing in it that they leave out."""
    if type(layer).__name__ not in _WINDOWS:
        return False
    whole: Any = layer
    return (
        type(whole.mlp.act_fn).__name__ in _ACTIVATIONS
        and getattr(whole.self_attn, "attn_logit_softcapping", None) is None
        and getattr(whole.self_attn, "is_causal", True)
    )


def plain_head(model: Any) -> torch.nn.Linear | None:
    """The output layer of a known model, adapters on it or not, if logits are that layer of the last hidden states and
    nothing else; others may scale or bend them."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    if type(whole).__name__ not in _MODELS or getattr(whole.config, "final_logit_softcapping", None) is not None:
        return None
    head = whole.get_output_embeddings()
    return head if type(head) is torch.nn.Linear and head.bias is None else None


def linear_layers(layer: Any) -> list[Any]:
    """A known block's: q, k, v, o, gate, up, down."""
    attention, mlp = layer.self_attn, layer.mlp
    return [*(getattr(attention, f"{x}_proj") for x in "qkvo"), mlp.gate_proj, mlp.up_proj, mlp.down_proj]


def norm_of(module: Any) -> Norm:
    """The weight of an RMSNorm as `normed` applies it, and its epsilon. Gemma's is one more, in the exact type."""
    weight: Tensor = module.weight.detach()
    if type(module).__name__ == "Gemma3RMSNorm":
        return 1 + weight.to(precise(weight)), float(module.eps)
    return weight, float(module.variance_epsilon)
