"""What a training, an evaluation and a request need of memory and time: closed formulas, no weights, no measuring.

Memory follows what this project's engine keeps, not a textbook: tests and benchmarks/predictions.py hold it against
what happens. Sources of the formulas: what a pass keeps for its backward pass, counted as in Korthikanti et al. 2022
(arXiv:2205.05198) but for the operations of models/blocks (fused LoRA blocks) and of transformers' own blocks;
optimiser and master copies as in Rajbhandari et al. 2020 (arXiv:1910.02054) and training/loop; operations of a pass as
in Kaplan et al. 2020 (arXiv:2001.08361): 2 a parameter and token forward, twice that backward.

Values are counted per token, in values of the model's precision; T tokens of a micro-batch, H width, I inner, A
queries of all heads, K keys of all heads, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuneworth.models.architecture import Architecture

ITEM_BYTES = {"bf16": 2, "fp32": 4}
FULL_METHOD = "full"
# training/loop, of each trained parameter in float32: master, gradient, two moments, the best so far.
MASTER_BYTES = 20
_EXACT = 4  # bytes of a float32, in which norms, softmax and losses are computed

# models/rows: up to how many tokens a segment's attention is plain products, and the blocks of longer ones.
_BLOCK_TOKENS, _PLAIN_TOKENS = 256, 1024
_CHUNK_TOKENS = 256  # training/loss: logits held at a time, where the head is a plain layer
_ROUNDS = 1.12  # a step against the rates of doctor: what is not a matrix product, see docs/log.md

# Resident memory of Python with torch, transformers and peft before any model, on a processor (measured).
RUNTIME_BYTES = 435_000_000
# What the passes of a block take besides what is kept: its own gradients and intermediate values, and the holes that
# glibc's heap leaves between tensors of changing size. In times of what one block keeps (measured).
_FUSED_BLOCKS, _FUSED_BLOCKS_AGAIN, _PLAIN_BLOCKS, _PLAIN_BLOCKS_AGAIN = 7.7, 11.0, 5.3, 4.2
_STEADY_BYTES = 40_000_000  # packs, layouts, tables of angles and small buffers (measured)


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch: `rows` of `length` tokens each (padding included) behind `prefix` shared ones.

    `trained` is the number of trained tokens in all rows together.
    """

    rows: int
    length: int
    trained: int
    prefix: int = 0

    @property
    def tokens(self) -> int:
        """Tokens that are computed."""
        return self.prefix + self.rows * self.length

    @property
    def weights(self) -> int:
        """Attention weights of one head that are kept for the backward pass (models/rows)."""
        own = self.rows * _kept_weights(self.length, self.prefix)
        return own + (_kept_weights(self.prefix, 0) if self.prefix else 0)


@dataclass(frozen=True, slots=True)
class Method:
    """How a model is tuned: `name` as in training.method; `rank` of adapters; whether blocks are computed again."""

    name: str
    rank: int = 16
    recompute: bool = False

    @property
    def is_full(self) -> bool:
        """Whether all weights are trained."""
        return self.name == FULL_METHOD


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes by part at the moment when most is needed."""

    parts: Mapping[str, int]

    @property
    def peak(self) -> int:
        """Their sum."""
        return sum(self.parts.values())


def trained_parameters(model: Architecture, method: Method) -> int:
    """Parameters that are trained."""
    if method.is_full:
        return model.parameters
    extra = sum(outputs for _, outputs in model.block_matrices) * model.layers if method.name == "dora" else 0
    return model.lora_parameters(method.rank) + extra


def training_memory(model: Architecture, method: Method, batch: Batch, precision: str, device: str = "cpu") -> Memory:
    """Peak memory of a training by part; `precision` is bf16 or fp32.

    On a processor the weights are those of the file, mapped; fused LoRA blocks stand in matrices of their own beside
    it. A training of all weights keeps a copy of what they were.
    """
    item, trained = ITEM_BYTES[precision], trained_parameters(model, method)
    weights = item * model.parameters
    if method.is_full:
        weights *= 2
    elif _is_fused(model, method) and device == "cpu":
        weights += item * model.layers * sum(map(_matrix_values, _fused_matrices(model, method.rank)))
    block = item * _block_values(model, method, batch)
    if _is_fused(model, method):
        passing = (_FUSED_BLOCKS_AGAIN if method.recompute else _FUSED_BLOCKS) * block
    else:
        passing = (_PLAIN_BLOCKS_AGAIN if method.recompute else _PLAIN_BLOCKS) * block
    gradients = item * trained if method.is_full else 0
    logits = _logit_bytes(model, batch, item)
    optimiser = (MASTER_BYTES - 4) * trained
    parts = {
        "weights": weights + (0 if method.is_full else item * trained),
        "gradients": 4 * trained + gradients,
        "optimiser": optimiser,
        "activations": round(item * _kept_values(model, method, batch) + passing),
        "logits": logits,
    }
    if device == "cpu":
        parts["runtime"] = RUNTIME_BYTES + _STEADY_BYTES
    return Memory(parts)


def request_memory(model: Architecture, tokens: int, precision: str, rows: int = 1, device: str = "cpu") -> Memory:
    """Peak memory of answering `rows` requests of `tokens` tokens (prompt and answer) at once."""
    item = ITEM_BYTES[precision]
    parts = {
        "weights": item * model.parameters,
        "cache": cache_bytes(model, precision) * tokens * rows,
        "logits": rows * model.vocabulary * (item + 2 * _EXACT),
        "activations": item * tokens * rows * (4 * model.width + 2 * model.inner),
    }
    if device == "cpu":
        parts["runtime"] = RUNTIME_BYTES + _STEADY_BYTES
    return Memory(parts)


def cache_bytes(model: Architecture, precision: str) -> int:
    """Bytes of keys and values of one token in all layers."""
    return ITEM_BYTES[precision] * 2 * model.kv_width * model.layers


def activation_bytes_a_token(model: Architecture, method: Method, length: int, precision: str) -> int:
    """Bytes of activations for each token of a training in rows of `length` tokens."""
    batch = Batch(1, length, 1)
    return math.ceil(training_memory(model, method, batch, precision).parts["activations"] / batch.tokens)


def kept_bytes(model: Architecture, method: Method, batch: Batch, precision: str) -> int:
    """Bytes that a forward pass of `batch` keeps for its backward pass."""
    return ITEM_BYTES[precision] * _kept_values(model, method, batch)


def training_operations(model: Architecture, method: Method, batch: Batch) -> float:
    """Floating-point operations of one pass, forward and backward, over `batch`.

    2 a weight and token forward; as many for the gradient of the input, and again for that of the weight where it is
    trained; forward once more where blocks are computed again. Attention: 4 A a token and key, each way twice.
    """
    body = model.layers * model.block_parameters
    passes = 6 if method.is_full else 4
    passes += 2 if method.recompute else 0
    adapters = 0 if method.is_full else 6 * model.lora_parameters(method.rank)
    attention = 4 * model.attention_width * batch.weights / max(1, batch.tokens) * model.layers * (passes / 2)
    head = passes * model.vocabulary * model.width * batch.trained
    return batch.tokens * (passes * body + adapters + attention) + head


def training_seconds(
    model: Architecture, method: Method, batch: Batch, flops: float, bytes_per_second: float, precision: str
) -> float:
    """Seconds of one pass over `batch`: its operations at the measured rate of products, and what is kept being
    written, read and read again at the measured rate of memory.
    """
    moved = 6 * kept_bytes(model, method, batch, precision)
    return _ROUNDS * training_operations(model, method, batch) / flops + moved / bytes_per_second


def request_seconds(
    model: Architecture, prompt: int, answer: int, flops: float, bytes_per_second: float, precision: str
) -> float:
    """Seconds of one request alone: the prompt in one pass, then every weight read once for each token written."""
    body = model.layers * model.block_parameters
    weights = ITEM_BYTES[precision] * (body + model.vocabulary * model.width)
    a_token = max(weights / bytes_per_second, 2 * weights / ITEM_BYTES[precision] / flops)
    return _ROUNDS * 2 * body * prompt / flops + weights / bytes_per_second + max(0, answer - 1) * a_token


def largest_batch(
    lengths: Sequence[int], trained: Sequence[int], batch_size: int, maximum_tokens: int, prefix: int = 0
) -> Batch:
    """The micro-batch that needs most: the longest rows, as many as training/batches puts side by side."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row], reverse=True)
    longest = max(1, lengths[order[0]] - prefix) if order else 1
    rows = max(1, min(batch_size, len(order), (maximum_tokens - prefix) // longest))
    count = sum(trained[row] for row in order[:rows])
    return Batch(rows, longest, count, prefix if rows > 1 else 0)


def _is_fused(model: Architecture, method: Method) -> bool:
    return model.traits.is_known and method.name in ("lora", "rslora")


def _kept_values(model: Architecture, method: Method, batch: Batch) -> int:
    """Values kept for the backward pass; with recomputed blocks their inputs alone."""
    values = model.layers * _block_values(model, method, batch)
    if method.recompute:
        values = model.layers * model.width * batch.tokens
    return values + 2 * model.width * batch.tokens  # of the last norm


def _block_values(model: Architecture, method: Method, batch: Batch) -> int:
    """Kept by one block. Fused: H + R of each linear layer's input and [gate, up] alone (models/blocks). Otherwise:
    each norm's input in float32, the inputs of the linear layers, and the four parts of a gated MLP."""
    width, inner, wide, kv = model.width, model.inner, model.attention_width, model.kv_width
    attention = wide + 2 * kv
    if _is_fused(model, method):
        a_token = (model.traits.norms + 2) * width + attention + wide + 2 * inner + 7 * method.rank
        a_token += attention if model.traits.qk_norm else 0
    else:
        traits, lora = model.traits, 0 if method.is_full else 7 * method.rank
        exact = 2  # a float32 in values of bfloat16
        normed = (wide + kv) if traits.qk_norm else 0
        a_token = (exact * traits.norms + 2) * width + exact * normed + attention + wide + lora
        a_token += (4 if traits.is_gated else 7) * inner
        if method.is_full:
            a_token += (traits.norms * width + normed) * (exact if traits.has_exact_scale else 1)
        if method.name == "dora":
            a_token += sum(outputs for _, outputs in model.block_matrices)
    if max(batch.length, batch.prefix) > _PLAIN_TOKENS:
        a_token += 2 * attention  # the fused attention takes copies in another order
    return a_token * batch.tokens + model.heads * batch.weights


def _logit_bytes(model: Architecture, batch: Batch, item: int) -> int:
    """Of the trained tokens' logits: a chunk at a time, once exact and once as an exponential, where the head is a
    plain layer; else of all of them, exact, as logarithms, with two gradients."""
    if model.traits.is_known:
        return min(batch.trained, _CHUNK_TOKENS) * model.vocabulary * (item + 2 * _EXACT)
    return batch.trained * model.vocabulary * (item + 4 * _EXACT)


def _kept_weights(length: int, before: int) -> int:
    """Attention weights of one head and one segment of `length` tokens that sees `before` shared ones."""
    if length > _PLAIN_TOKENS:
        return 0
    if length <= _BLOCK_TOKENS:
        return length * (before + length)
    blocks = range(0, length, _BLOCK_TOKENS)
    return sum(min(_BLOCK_TOKENS, length - start) * (before + min(start + _BLOCK_TOKENS, length)) for start in blocks)


def _fused_matrices(model: Architecture, rank: int) -> list[tuple[int, int, int]]:
    """(inputs, outputs, ranks) of the matrices of a fused block: q k v, o, gate up, down."""
    width, inner, wide, kv = model.width, model.inner, model.attention_width, model.kv_width
    return [
        (width, wide + 2 * kv, 3 * rank),
        (wide, width, rank),
        (width, 2 * inner, 2 * rank),
        (inner, width, rank),
    ]


def _matrix_values(matrix: tuple[int, int, int]) -> int:
    inputs, outputs, ranks = matrix
    return (inputs + ranks) * (outputs + ranks)
