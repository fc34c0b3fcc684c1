"""Tiny parts that tests share: a byte-level tokenizer, chat templates, random models, plain reference runs."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo3Config,
    Olmo3ForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tuneworth.models.attention import ATTENTION
from tuneworth.rendering import Renderer
from tuneworth.training import Hooks, Row, Settings

VOCABULARY = 300
SPECIAL = {"bos_token": "<bos>", "eos_token": "<|im_end|>", "pad_token": "<pad>"}
CONTROL = ("<bos>", "<eos>", "<pad>", "<|im_start|>", "<|im_end|>")
PLAIN_ADDED = ("<think>", "</think>")  # structural, but not marked special in the tokenizer

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# The prompt ends in an empty thinking block, the finished conversation has none (as in Qwen3).
THINKING = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}{% endif %}"
)
LLAMA3 = (
    "{{- bos_token }}{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{- message['content'] | trim + '<|eot_id|>' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
MISTRAL = """\
{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}\
{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if loop.last and system_message is defined %}
            {{- '[INST] ' + system_message + '\n\n' + message['content'] + '[/INST]' }}
        {%- else %}
            {{- '[INST] ' + message['content'] + '[/INST]' }}
        {%- endif %}
    {%- else %}
        {{- ' ' + message['content'] + eos_token }}
    {%- endif %}
{%- endfor %}
"""
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}"
    "{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
_TOKENS = {
    LLAMA3: (
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
        ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
    ),
    MISTRAL: ({"bos_token": "<s>", "eos_token": "</s>"}, ("<s>", "</s>", "[INST]", "[/INST]")),
    GEMMA: (
        {"bos_token": "<bos>", "eos_token": "<eos>"},
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
    ),
}
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_MERGES = (
    ("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("a", "n"), ("Ġ", "a"), ("o", "n"), ("e", "r"), ("Ġ", "i"),
    ("y", "e"), ("ye", "s"), (":", ")"), ("Ċ", "Ċ"), ("Ġ", "Ġ"), ("n", "o"), ("r", "e"), ("Ġ", "n"),
)  # fmt: skip


def tiny_tokenizer(template: str = CHATML, *, adds_bos: bool = False) -> Tokenizer:
    """Byte-level BPE with the control tokens of `template`; with `adds_bos` its post-processor writes a BOS."""
    special, control = _TOKENS.get(template, (SPECIAL, CONTROL))
    vocabulary = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for left, right in _MERGES:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(_MERGES)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if template == LLAMA3:  # its pre-tokenizer keeps line ends together, GPT-2's does not
        split = pre_tokenizers.Split(Regex(_LLAMA3_SPLIT), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in PLAIN_ADDED])
    if adds_bos:
        bos = special["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    assert tokenizer.get_vocab_size() <= VOCABULARY
    return tokenizer


def tiny_renderer(template: str = CHATML, *, adds_bos: bool = False) -> Renderer:
    """Our renderer over the tiny tokenizer."""
    return Renderer(tiny_tokenizer(template, adds_bos=adds_bos), template, _TOKENS.get(template, (SPECIAL,))[0])


def their_tokenizer(template: str = CHATML, *, adds_bos: bool = False) -> PreTrainedTokenizerFast:
    """transformers' own tokenizer over the same tokens and template."""
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(template, adds_bos=adds_bos), **_TOKENS.get(template, (SPECIAL,))[0]
    )
    theirs.chat_template = template
    return theirs


def write_tokenizer(folder: Path, template: str | None = CHATML, *, config: dict[str, Any] | None = None) -> None:
    """`tokenizer.json`, `tokenizer_config.json` and, with a template, `chat_template.jinja`."""
    tiny_tokenizer(template or CHATML).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(SPECIAL if config is None else config))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)


KINDS = ("gqa", "mha", "window", "alternating", "other")  # the last is no family of models.structure
"""Grouped-query Llama, multi-head Llama, Mistral with a window of 4, Gemma 3 with one in every other layer."""


def tiny_model(
    kind: str = "gqa", *, attention: str = ATTENTION, dtype: torch.dtype = torch.float64, seed: int = 0
) -> PreTrainedModel:
    """A random model: 2 layers, width 32, 4 heads, weights large enough that attention is far from uniform."""
    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4 if kind == "mha" else 2, "max_position_embeddings": 1024,
        "initializer_range": 0.3, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
        "attn_implementation": attention,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel
        if kind == "window":
            model = MistralForCausalLM(MistralConfig(**shape, head_dim=8, sliding_window=4))
        elif kind in ("alternating", "wide alternating"):
            layers = ["sliding_attention", "full_attention"]
            config = Gemma3TextConfig(
                **shape, head_dim=8, sliding_window=4 if kind == "alternating" else 512, layer_types=layers,
                query_pre_attn_scalar=8, tie_word_embeddings=False,  # tied, it says the same token for ever
            )  # fmt: skip
            model = Gemma3ForCausalLM(config)
            for weight in (p for name, p in model.named_parameters() if name.endswith("norm.weight")):
                torch.nn.init.uniform_(weight, -0.5, 0.5)
        elif kind == "other":
            layers = ["sliding_attention", "full_attention"]
            model = Olmo3ForCausalLM(Olmo3Config(**shape, sliding_window=4, layer_types=layers))
        elif kind == "bias":  # of queries, keys and values
            model = Qwen2ForCausalLM(Qwen2Config(**shape))
            for bias in (p for name, p in model.named_parameters() if name.endswith("bias")):
                torch.nn.init.normal_(bias)
        elif kind == "head norms":
            model = Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=12))
            for weight in (
                p for name, p in model.named_parameters() if name.endswith(("q_norm.weight", "k_norm.weight"))
            ):
                torch.nn.init.uniform_(weight, 0.5, 1.5)
        else:
            model = LlamaForCausalLM(LlamaConfig(**shape))
    return _exact_norms(model.to(dtype)).eval()


def _exact_norms(model: PreTrainedModel) -> PreTrainedModel:
    """transformers' norms compute in float32 whatever the model's dtype; in float64 ours shall be exact."""
    if model.dtype == torch.float64:
        for module in model.modules():
            if type(module).__name__.endswith("RMSNorm"):
                module.forward = functools.partial(_norm, module)  # type: ignore[method-assign]
    return model


def _norm(module: Any, x: Tensor) -> Tensor:
    gemma = hasattr(module, "eps")
    scale = 1 + module.weight if gemma else module.weight
    eps = module.eps if gemma else module.variance_epsilon
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * scale


def plain_twin(model: PreTrainedModel, attention: str = "sdpa") -> PreTrainedModel:
    """The same weights with transformers' own attention: what everything of ours is compared with.

    `sdpa`, since transformers' eager attention rounds its weights to float32 even for float64 models.
    """
    config = type(model.config)(**model.config.to_dict() | {"attn_implementation": attention})
    twin = type(model)(config).to(model.dtype)
    twin.load_state_dict(model.state_dict())
    twin.config._attn_implementation = attention
    return _exact_norms(twin).eval()


def plain_logits(twin: PreTrainedModel, ids: Sequence[int]) -> Tensor:
    """Logits [T, V] of one sequence: no cache, no batch, no packing."""
    return twin(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]


def plain_greedy(twin: PreTrainedModel, prompt: Sequence[int], count: int, end_id: int | None = None) -> list[int]:
    """Argmax by argmax with a whole forward pass each; stops before `end_id`."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            token = int(plain_logits(twin, ids)[-1].argmax())
            if token == end_id:
                break
            ids.append(token)
    return ids[len(prompt) :]


def random_ids(count: int, seed: int) -> list[int]:
    """Token ids below the vocabulary's size."""
    return torch.randint(0, VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def random_row(name: str, prompt: int, answer: int, seed: int, shared: Sequence[int] = ()) -> Row:
    """A row of `shared` and `prompt` random tokens, then `answer` trained ones."""
    ids = [*shared, *random_ids(prompt + answer, seed)]
    return Row(name, tuple(ids), (False,) * (len(shared) + prompt) + (True,) * answer)


def settings(**changes: Any) -> Settings:
    """Settings of a short training; nothing is clipped unless said."""
    values: dict[str, Any] = {
        "steps": 4, "batch_size": 2, "learning_rate": 1e-2, "warmup_steps": 1, "evaluate_every": 1, "seed": 0,
        "clip_norm": 1e9,
    }  # fmt: skip
    return Settings(**values | changes)


def hooks(**changes: Any) -> Hooks:
    """Hooks whose evaluation always finds the latest step the best."""
    return Hooks(**{"evaluate": lambda: {"validation_loss": 0.0, "validation_score": 0.0}} | changes)


def all_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Every parameter, made trainable."""
    return {name: parameter.requires_grad_(True) for name, parameter in model.named_parameters()}


def close(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> bool:
    """max|a - b| <= tolerance * max|b|, as LAWS.md defines equal."""
    if a.shape != b.shape:
        return False
    a, b = a.detach(), b.detach()
    return a.numel() == 0 or float((a - b).abs().max()) <= tolerance * max(float(b.abs().max()), 1e-300)


def saved_adapters(folder: Path) -> None:
    """Two unlike LoRA adapters of the tiny model, in the folders a and b."""
    from tuneworth.models.adapters import add_lora, save_adapter

    for number, name in enumerate(("a", "b")):
        tuned = add_lora(tiny_model(), rank=2 + number, alpha=8, seed=number)
        with torch.no_grad():
            for key, parameter in tuned.named_parameters():
                if "lora_B" in key:
                    parameter.normal_(generator=torch.Generator().manual_seed(number))
        save_adapter(tuned, folder / name, "tiny")
