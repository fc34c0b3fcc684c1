"""The numbers that a decoder's size and needs follow from, read from the catalogue or from a model's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from tuneworth.errors import InputError


@dataclass(frozen=True, slots=True)
class Family:
    """What decoders of one `model_type` have in common.

    `norms` a block; `qk_norm` is of heads or of all of them; `has_exact_scale`: a norm's weight is applied in float32.
    `is_known` to models.structure: models.blocks has a forward pass for its LoRA blocks, and training.loss takes its
    logits a few tokens at a time. `unsupported` says what of it this project's attention lacks.
    """

    is_gated: bool = True
    qkv_bias: bool = False
    other_bias: bool = False  # of the output projection, the MLP and the head
    norms: int = 2
    norm_bias: bool = False
    qk_norm: str = ""
    has_exact_scale: bool = False
    is_tied: bool = False
    is_known: bool = False
    unsupported: str = ""


FAMILIES: Mapping[str, Family] = {
    "llama": Family(is_known=True),
    "mistral": Family(is_known=True),
    "qwen2": Family(qkv_bias=True, is_known=True),
    "qwen3": Family(qk_norm="heads", is_known=True),
    "gemma2": Family(norms=4, has_exact_scale=True, is_tied=True, unsupported="attention with capped logits (softcap)"),
    "gemma3_text": Family(norms=4, qk_norm="heads", has_exact_scale=True, is_tied=True, is_known=True),
    "olmo2": Family(qk_norm="all", has_exact_scale=True),
    "granite": Family(),
    "smollm3": Family(is_tied=True),
    "phi3": Family(),
    "phi": Family(is_gated=False, qkv_bias=True, other_bias=True, norms=1, norm_bias=True),
}
_PLAIN = Family()


@dataclass(frozen=True, slots=True)
class Architecture:
    """A decoder of `layers` blocks: `width` H, `inner` I (of the MLP), `heads` and `kv_heads` of `head_size` D."""

    family: str
    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    context: int
    is_tied: bool
    traits: Family = field(repr=False)

    @classmethod
    def of(cls, numbers: Mapping[str, Any]) -> Architecture:
        """From the catalogue's fields; `head_size` and `is_tied` have defaults."""
        traits = FAMILIES.get(numbers["family"], _PLAIN)
        own = {name: numbers[name] for name in _NUMBERS if name in numbers}
        return cls(
            **{"head_size": own["width"] // own["heads"], "kv_heads": own["heads"], **own},
            family=numbers["family"],
            is_tied=numbers.get("is_tied", traits.is_tied),
            traits=traits,
        )

    @classmethod
    def of_config(cls, config: Mapping[str, Any], where: str) -> Architecture:
        """From a `config.json` of transformers. Raises InputError that names the keys which are missing or wrong."""
        text = config.get("text_config", config)
        family = str(text.get("model_type", config.get("model_type", "")))
        found: dict[str, Any] = {"family": family}
        for name, key in _CONFIG_KEYS.items():
            value = text.get(key)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                found[name] = value
        wrong = [_CONFIG_KEYS[name] for name in _REQUIRED if name not in found]
        if wrong:
            raise InputError(
                f"config.json says no usable {', '.join(wrong)}",
                where=where,
                cure="give a model in transformers' layout",
            )
        found.setdefault("inner", 4 * found["width"])
        tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
        return cls.of(found | ({"is_tied": tied} if isinstance(tied, bool) else {}))

    @property
    def attention_width(self) -> int:
        """Queries of all heads together."""
        return self.heads * self.head_size

    @property
    def kv_width(self) -> int:
        """Keys (or values) of all their heads together."""
        return self.kv_heads * self.head_size

    @property
    def block_matrices(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of the linear layers of a block, in order: q, k, v, o, then those of the MLP."""
        width, inner, wide, kv = self.width, self.inner, self.attention_width, self.kv_width
        attention = ((width, wide), (width, kv), (width, kv), (wide, width))
        opening = ((width, inner),) * (2 if self.traits.is_gated else 1)
        return (*attention, *opening, (inner, width))

    @property
    def block_parameters(self) -> int:
        """Of one block, norms and biases included."""
        traits, width = self.traits, self.width
        count = sum(inputs * outputs for inputs, outputs in self.block_matrices)
        count += traits.norms * width * (2 if traits.norm_bias else 1)
        count += {"heads": 2 * self.head_size, "all": self.attention_width + self.kv_width}.get(traits.qk_norm, 0)
        count += (self.attention_width + 2 * self.kv_width) * traits.qkv_bias
        return count + (2 * width + self.inner) * traits.other_bias

    @property
    def embedding_parameters(self) -> int:
        """Of the embedding, and of the output head where that is a matrix of its own."""
        count = self.vocabulary * self.width * (1 if self.is_tied else 2)
        return count + self.vocabulary * self.traits.other_bias

    @property
    def parameters(self) -> int:
        """Of the whole model."""
        last_norm = self.width * (2 if self.traits.norm_bias else 1)
        return self.layers * self.block_parameters + self.embedding_parameters + last_norm

    def lora_parameters(self, rank: int) -> int:
        """Of adapters of `rank` on every linear layer of the blocks (Hu et al. 2021: rank x (inputs + outputs))."""
        return self.layers * sum(rank * (inputs + outputs) for inputs, outputs in self.block_matrices)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {name: value for name, value in asdict(self).items() if name != "traits"}


_NUMBERS = tuple(f.name for f in fields(Architecture) if f.name not in ("family", "traits", "is_tied"))
_CONFIG_KEYS = {
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "inner": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_size": "head_dim",
    "vocabulary": "vocab_size",
    "context": "max_position_embeddings",
}
_REQUIRED = ("layers", "width", "heads", "vocabulary", "context")
