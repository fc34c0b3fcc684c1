"""Elementwise parts of a decoder block, each read and written in one pass over memory where a compiler is at hand.

Every kernel is a plain function of tensors that fills its first argument, or returns its result. Written once, it
runs in two ways: as it stands, or compiled by torch.compile (`compile_kernels`). Compiling the blocks whole does not
pay (docs/log.md); these few small functions cost seconds once per machine, since PyTorch caches what it compiled.

Shapes: T tokens, H features, I features inside the MLP, V tokens in the vocabulary, F features of heads side by side;
attention as in models/rows. T, and attention's N, R, S and P, are lengths: they change from call to call (and are
written as shape[d]: len() of one is a constant to the compiler).
"""

from __future__ import annotations

import functools
import inspect
import logging
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor
from torch._inductor.config import cpp
from torch.nn.functional import gelu, silu

from tuneworth.models.compiling import Dimensions, LengthsError, compiled, key_of

P = ParamSpec("P")
R = TypeVar("R")

_FOLDER = "TORCHINDUCTOR_CACHE_DIR"

_MOST_VARIANTS = 16  # of a kernel: other models, other numbers; what comes after runs as it stands

_log = logging.getLogger(__name__)


class _Compiling:
    """Whether kernels run compiled. One for the process, since what is compiled is shared by all models in it."""

    wanted = False
    failed = False


def compile_kernels(wanted: bool, folder: Path | None = None) -> bool:
    """Run kernels compiled from now on, if this machine has a compiler; returns whether they will be.

    What is compiled is kept in `folder` (PyTorch's own place by default), or where TORCHINDUCTOR_CACHE_DIR says.

    A kernel that cannot be compiled runs as it stands: slower, with the same result.
    """
    compilers = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    able = torch.cuda.is_available() or any(map(shutil.which, filter(None, compilers)))
    if wanted and able and cpp.vec_isa_ok is None and _knows_all_instructions(compilers[0] or "g++"):
        cpp.vec_isa_ok = True
    # PyTorch writes its own place, under the folder for temporary files, into the environment when it is first used.
    own = str(Path(tempfile.gettempdir(), "torchinductor_"))
    if wanted and folder is not None and os.environ.get(_FOLDER, own).startswith(own):
        os.environ[_FOLDER] = str(folder)
    _Compiling.wanted = wanted and able and not _Compiling.failed
    return _Compiling.wanted


def _knows_all_instructions(compiler: str) -> bool:
    """Whether what the processor offers need not be tried out by compiling and loading six programs, 4 s cold and 0.7 s
    warm: gcc and clang know AMX and AVX512-BF16, the newest that PyTorch asks for, since version 11.
    """
    try:
        found = subprocess.run([compiler, "-dumpversion"], capture_output=True, text=True, timeout=10, check=True)
        return int(found.stdout.split(".")[0]) >= 11
    except (OSError, ValueError, subprocess.SubprocessError):
        return False


class Kernel:
    """A function of tensors that runs as it stands, or compiled; see `kernel`."""

    def __init__(self, function: Callable[..., Any], shapes: Mapping[str, str]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        names = list(inspect.signature(function).parameters)
        self._named = [Dimensions.of(shapes[name]) if name in shapes else None for name in names]
        self._lengths = [(at, d) for at, each in enumerate(self._named) if each for d, _ in each.lengths]
        self._compiled: dict[Hashable, Callable[..., Any]] = {}
        self._by_torch: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        """Of all arguments."""
        return self._run(args, ()) if _Compiling.wanted else self._function(*args)

    def with_last(self, *last: Any) -> Callable[..., Any]:
        """The function of the arguments before `last`, which are not looked at again at each call."""
        last = tuple(x.detach() if isinstance(x, Tensor) else x for x in last)
        key = key_of([None] * len(last), last)
        return lambda *first: self._run(first, last, key) if _Compiling.wanted else self._function(*first, *last)

    def _run(self, first: tuple[Any, ...], last: tuple[Any, ...], key_of_last: tuple[Hashable, ...] = ()) -> Any:
        # A length of 1 would be compiled anew: PyTorch takes 0 and 1 for constants.
        short = any(first[at] is not None and first[at].shape[d] < 2 for at, d in self._lengths)
        if short or torch.compiler.is_compiling():
            return self._function(*first, *last)
        # Nothing is differentiated here.
        args = tuple(x.detach() if isinstance(x, Tensor) and x.requires_grad else x for x in (*first, *last))
        key = key_of(self._named[: len(first)], first) + key_of_last
        run = self._compiled.get(key)
        if run is None:
            if len(self._compiled) >= _MOST_VARIANTS:
                return self._function(*args)
            try:
                run = self._made(args, key)
            except LengthsError as error:
                _log.warning("one kernel runs uncompiled, a bit slower: %s", error)
                run = self._function
            except Exception as error:
                return self._given_up(error, args)
            self._compiled[key] = run
        try:
            return run(*args)
        except (AssertionError, torch._dynamo.exc.TorchDynamoException) as error:  # before anything was written
            return self._given_up(error, args)

    def _given_up(self, error: Exception, args: tuple[Any, ...]) -> Any:
        """From now on all kernels run as they stand."""
        _log.warning("kernels run uncompiled, a bit slower: %s", f"{error}".strip().split("\n")[0])
        _Compiling.wanted, _Compiling.failed = False, True
        return self._function(*args)

    def _made(self, args: tuple[Any, ...], key: Hashable) -> Callable[..., Any]:
        """The function compiled for arguments like these. Raises whatever a compiler raises."""
        if all(x.device.type == "cpu" for x in args if isinstance(x, Tensor)):
            return compiled(self._function, [*self._named, *[None] * len(args)][: len(args)], args, key)
        for at, d in self._lengths:
            if args[at] is not None:
                torch._dynamo.mark_dynamic(args[at], d)
        if self._by_torch is None:
            self._by_torch = torch.compile(self._function, fullgraph=True)
        return self._by_torch


def kernel(**shapes: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compile a function on its first call, if kernels are compiled; once for all lengths over 1.

    `shapes` names the dimensions of its tensors. All but lengths are constants to the compiler: with nothing known it
    takes half as long again to compile, twice as long to load what was kept, and some kernels run at half the speed
    (docs/results.md).
    """

    def compiling(function: Callable[P, R]) -> Callable[P, R]:
        return cast(Callable[P, R], Kernel(function, shapes))

    return compiling


def kernels_compiled() -> bool:
    """Whether kernels are compiled."""
    return _Compiling.wanted


def precise(x: Tensor) -> torch.dtype:
    """The type to add up in: float32, or float64 for float64."""
    return torch.promote_types(x.dtype, torch.float32)


def normed(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """RMSNorm (Zhang & Sennrich 2019) of x's last dimension, rounded where transformers rounds: before a weight of x's
    type, behind a wider one (Gemma)."""
    exact = x.to(precise(x))
    scaled = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + epsilon)
    return (weight * (scaled.to(x.dtype) if weight.dtype == x.dtype else scaled)).to(x.dtype)


def _through_norm(gradient: Tensor, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """The gradient of x from that of `normed`, not rounded."""
    exact = x.to(precise(x))
    scale = torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + epsilon)
    inner = (gradient * weight).to(exact.dtype)
    normal = exact * scale
    return (inner - normal * (inner * normal).mean(-1, keepdim=True)) * scale


@kernel(out="T H", x="T H", weight="H")
def norm_into(out: Tensor, x: Tensor, weight: Tensor, epsilon: float) -> None:
    """RMSNorm of x [T, H] into out [T, H], rounded where transformers rounds."""
    out.copy_(normed(x, weight, epsilon))


@kernel(x="T H", added="T H", weight="H")
def norm_of_sum(x: Tensor, added: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """x + added [T, H], and its RMSNorm; see `norm_into`."""
    total = x + added
    return total, normed(total, weight, epsilon)


@kernel(gradient="T H", x="T H", weight="H", residual="T H")
def norm_backward(gradient: Tensor, x: Tensor, weight: Tensor, residual: Tensor | None, epsilon: float) -> Tensor:
    """The gradient of x [T, H] from that of its norm, plus `residual` [T, H], that of the path around the norm."""
    own = _through_norm(gradient, x, weight, epsilon)
    return (own if residual is None else own + residual).to(x.dtype)


@kernel(wide="T F", query="D", key="D")
def norm_heads(wide: Tensor, query: Tensor, key: Tensor, kv_heads: int, epsilon: float) -> Tensor:
    """RMSNorm of each head of queries and keys, of wide [T, (H + 2 K) D], with their weights query and key [D].

    Values stay as they are; [T, H + 2 K, D], rounded where transformers rounds.
    """
    heads = wide.unflatten(1, (-1, query.shape[0]))
    own = normed(heads[:, :-kv_heads], _weights_of_heads(heads, query, key, kv_heads), epsilon)
    return torch.cat([own, heads[:, -kv_heads:]], 1)


@kernel(gradient="T F", wide="T F", query="D", key="D")
def norm_heads_backward(
    gradient: Tensor, wide: Tensor, query: Tensor, key: Tensor, kv_heads: int, epsilon: float
) -> Tensor:
    """The gradient of wide, as [T, H + 2 K, D], from that of `norm_heads`, [T, (H + 2 K) D]."""
    heads, found = (x.unflatten(1, (-1, query.shape[0])) for x in (wide, gradient))
    weights = _weights_of_heads(heads, query, key, kv_heads)
    own = _through_norm(found[:, :-kv_heads], heads[:, :-kv_heads], weights, epsilon)
    return torch.cat([own.to(wide.dtype), found[:, -kv_heads:]], 1)


def _weights_of_heads(heads: Tensor, query: Tensor, key: Tensor, kv_heads: int) -> Tensor:
    """[H + K, D] of heads [T, H + 2 K, D]."""
    queries = heads.shape[1] - 2 * kv_heads
    return torch.cat([query.expand(queries, -1), key.expand(kv_heads, -1)])


def activated(x: Tensor, activation: str) -> Tensor:
    """`silu`, or `gelu` by its usual approximation (Hendrycks & Gimpel 2016)."""
    return gelu(x, approximate="tanh") if activation == "gelu" else silu(x)


def _activated_with_slope(x: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """`activated`, and its derivative."""
    if activation == "gelu":
        root = math.sqrt(2 / math.pi)
        bent = torch.tanh(root * (x + 0.044715 * x**3))
        slope = 0.5 * (1 + bent) + 0.5 * x * (1 - bent * bent) * root * (1 + 3 * 0.044715 * x * x)
        return 0.5 * x * (1 + bent), slope
    share = torch.sigmoid(x)
    return x * share, share * (1 + x * (1 - share))


@kernel(out="T I", gate_up="T 2I")
def gate_into(out: Tensor, gate_up: Tensor, activation: str) -> None:
    """The activated gate times up (Shazeer 2020) into out [T, I], of gate_up [T, 2 I]."""
    gate, up = gate_up.chunk(2, -1)
    out.copy_(activated(gate, activation) * up)


@kernel(to_gate="T I", to_up="T I", gradient="T I", gate="T I", up="T I")
def gate_backward(
    to_gate: Tensor, to_up: Tensor, gradient: Tensor, gate: Tensor, up: Tensor, activation: str
) -> Tensor:
    """The gradients of gate and up [T, I] from that of `gate_into`'s result, which is returned again.

    Two results of their own, since halves of one tensor would be written in passes of their own.
    """
    exact, slope = _activated_with_slope(gate.to(precise(gate)), activation)
    opened = exact.to(gate.dtype)
    to_gate.copy_((gradient * up).to(exact.dtype) * slope)
    to_up.copy_(gradient * opened)
    return opened * up


@kernel(logits="N V")
def softmax_in_place(logits: Tensor) -> Tensor:
    """The softmax of logits [N, V] in their place; returns the logarithms of the sums of their exponentials [N]."""
    exact = logits.to(precise(logits))
    total = torch.logsumexp(exact, -1)
    logits.copy_(torch.exp(exact - total[:, None]))
    return total


@kernel(wide="R F", cos="R D", sin="R D", slots="N")
def rotate_to_slots(
    wide: Tensor, cos: Tensor | None, sin: Tensor | None, slots: Tensor, kv_heads: int, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Heads side by side, wide [R, (H + 2 K) D], become query [K, N, G, D], key and value [K, N, D] by slot.

    Slot n holds token slots[n]. With cos and sin [R, D] queries and keys are rotated (Su et al. 2021,
    arXiv:2104.09864).
    """
    slotted = wide[slots]
    heads = wide.shape[1] // size - 2 * kv_heads
    turned = slotted[:, : (heads + kv_heads) * size].unflatten(1, (-1, size))
    if cos is not None and sin is not None:
        turned = rotated(turned, cos[slots], sin[slots])
    query = turned[:, :heads].unflatten(1, (kv_heads, -1)).transpose(0, 1)
    key = turned[:, heads:].transpose(0, 1)
    value = slotted[:, (heads + kv_heads) * size :].unflatten(1, (-1, size)).transpose(0, 1)
    return query.contiguous(), key.contiguous(), value.contiguous()


@kernel(wide="T F", cos="T D", sin="T D")
def rotate(wide: Tensor, cos: Tensor, sin: Tensor, kv_heads: int, size: int) -> Tensor:
    """Heads side by side, wide [T, (H + 2 K) D], as [T, H + 2 K, D]; queries and keys rotated by cos and sin [T, D].

    Put together by heads: put together by features, the compiled kernel divides to find each one's place, and takes ten
    times as long.
    """
    heads = wide.unflatten(1, (-1, size))
    return torch.cat([rotated(heads[:, :-kv_heads], cos, sin), heads[:, -kv_heads:]], 1)


@kernel(query="K N G D", key="K N D", value="K N D", cos="R D", sin="R D", back="R")
def rotate_from_slots(
    query: Tensor, key: Tensor, value: Tensor, cos: Tensor | None, sin: Tensor | None, back: Tensor
) -> Tensor:
    """The gradient of `rotate_to_slots`' wide [R, (H + 2 K) D]: token r stands in slot back[r] alone."""
    turned = torch.cat([query[:, back].transpose(0, 1).flatten(1, 2), key[:, back].transpose(0, 1)], 1)
    if cos is not None and sin is not None:
        turned = _rotated_back(turned, cos, sin)
    return torch.cat([turned, value[:, back].transpose(0, 1)], 1).flatten(1)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [N, heads, D] turned by the angles of its tokens, cos and sin [N, D]."""
    first, second = x.to(precise(x)).chunk(2, -1)
    half = first.shape[-1]
    c, s = cos[:, None].to(first.dtype), sin[:, None].to(first.dtype)
    turned = first * c[..., :half] - second * s[..., :half], second * c[..., half:] + first * s[..., half:]
    return torch.cat(turned, -1).to(x.dtype)


def _rotated_back(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The transpose of `rotated`."""
    first, second = x.to(precise(x)).chunk(2, -1)
    half = first.shape[-1]
    c, s = cos[:, None].to(first.dtype), sin[:, None].to(first.dtype)
    turned = first * c[..., :half] + second * s[..., half:], second * c[..., half:] - first * s[..., :half]
    return torch.cat(turned, -1).to(x.dtype)


@kernel(own="K N G S", shared="K N G P", allowed="N S")
def softmax_of_both(own: Tensor, shared: Tensor, allowed: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """One softmax over the scores of a row's own keys, own [K, N, G, S], and shared keys, shared [K, N, G, P].

    allowed [N, S] tells which own keys a query may see; it may see all that are shared.
    """
    exact = (own.to(precise(own)) * scaling).masked_fill(~allowed[:, None], float("-inf"))
    exact_shared = shared.to(exact.dtype) * scaling
    peak = torch.maximum(exact.amax(-1, keepdim=True), exact_shared.amax(-1, keepdim=True))
    weight, weight_shared = torch.exp(exact - peak), torch.exp(exact_shared - peak)
    share = 1 / (weight.sum(-1, keepdim=True) + weight_shared.sum(-1, keepdim=True))
    return (weight * share).to(own.dtype), (weight_shared * share).to(own.dtype)


@kernel(own="K N G S", allowed="N S")
def softmax_of_own(own: Tensor, allowed: Tensor, scaling: float) -> Tensor:
    """`softmax_of_both` where nothing is shared."""
    exact = (own.to(precise(own)) * scaling).masked_fill(~allowed[:, None], float("-inf"))
    return torch.softmax(exact, -1).to(own.dtype)


@kernel(weight="K N G S", gradient="K N G S", weight_shared="K N G P", gradient_shared="K N G P")
def softmax_backward_of_both(
    weight: Tensor, gradient: Tensor, weight_shared: Tensor, gradient_shared: Tensor, scaling: float
) -> tuple[Tensor, Tensor]:
    """Gradients of the scores of `softmax_of_both` from those of its weights; shapes as there."""
    exact, exact_shared = weight.to(precise(weight)), weight_shared.to(precise(weight))
    mean = (exact * gradient).sum(-1, keepdim=True) + (exact_shared * gradient_shared).sum(-1, keepdim=True)
    to_own = exact * (gradient - mean) * scaling
    to_shared = exact_shared * (gradient_shared - mean) * scaling
    return to_own.to(weight.dtype), to_shared.to(weight.dtype)


@kernel(weight="K N G S", gradient="K N G S")
def softmax_backward_of_own(weight: Tensor, gradient: Tensor, scaling: float) -> Tensor:
    """`softmax_backward_of_both` where nothing is shared."""
    exact = weight.to(precise(weight))
    return (exact * (gradient - (exact * gradient).sum(-1, keepdim=True)) * scaling).to(weight.dtype)


@kernel(heads="N E D", cos="N D", sin="N D", keys="N K R D", values="N K R D", ends="N", places="S")
def attend_one_each(
    heads: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, ends: Tensor, places: Tensor, scaling: float
) -> Tensor:
    """One token of each of N rows attends to its row; heads [N, H + 2 K, D] of queries, keys and values, not rotated.

    The token's key and value are written to slot ends[n] of keys and values [N, K, R, D], of which the first S are in
    use: places [S] counts them. Returns [N, K, G, D].
    """
    kv_heads = keys.shape[1]
    turned = rotated(heads[:, :-kv_heads], cos, sin)
    own = _scores_of_one_each(turned, heads[:, -kv_heads:], keys, values, ends, places) * scaling
    weights = torch.softmax(own, -1)
    out: Tensor = (weights[..., None] * values[:, :, None, : places.shape[0]].to(weights.dtype)).sum(3)
    return out.to(heads.dtype)


@kernel(heads="N E D", keys="N K R D", values="N K R D", ends="N", places="S", common="K N G P")
def attend_one_each_of_both(
    heads: Tensor, keys: Tensor, values: Tensor, ends: Tensor, places: Tensor, common: Tensor, scaling: float
) -> tuple[Tensor, Tensor]:
    """`attend_one_each` of rotated heads, where all rows share keys: common [K, N, G, P] are the scores of those.

    Returns the output [K, N, G, D] of the own keys, and the weights [K, N, G, P] of the shared ones.
    """
    kv_heads = keys.shape[1]
    scores = _scores_of_one_each(heads[:, :-kv_heads], heads[:, -kv_heads:], keys, values, ends, places)
    own = scores.transpose(0, 1) * scaling
    shared = common.to(own.dtype) * scaling
    peak = torch.maximum(own.amax(-1, keepdim=True), shared.amax(-1, keepdim=True))
    own, shared = torch.exp(own - peak), torch.exp(shared - peak)
    share = 1 / (own.sum(-1, keepdim=True) + shared.sum(-1, keepdim=True))
    seen = values.transpose(0, 1)[:, :, None, : places.shape[0]].to(own.dtype)
    return ((own * share)[..., None] * seen).sum(3).to(heads.dtype), (shared * share).to(heads.dtype)


def _scores_of_one_each(
    turned: Tensor, value: Tensor, keys: Tensor, values: Tensor, ends: Tensor, places: Tensor
) -> Tensor:
    """[N, K, G, S] of turned [N, H + K, D], queries and keys; see `attend_one_each`."""
    kv_heads = keys.shape[1]
    rows = torch.arange(ends.shape[0], device=ends.device)
    keys[rows, :, ends] = turned[:, -kv_heads:]
    values[rows, :, ends] = value
    query = turned[:, :-kv_heads].unflatten(1, (kv_heads, -1))
    exact = precise(query)
    scores: Tensor = (query[:, :, :, None].to(exact) * keys[:, :, None, : places.shape[0]].to(exact)).sum(-1)
    return scores.masked_fill((places > ends[:, None])[:, None, None], float("-inf"))


@kernel(slotted="K N G D", back="R")
def tokens_of(slotted: Tensor, back: Tensor) -> Tensor:
    """Slots [K, N, G, D] become tokens, their heads side by side: [R, K G D]."""
    return slotted[:, back].transpose(0, 1).flatten(1)


@kernel(tokens="R F", slots="N", filled="N")
def slots_of(tokens: Tensor, slots: Tensor, filled: Tensor, kv_heads: int, size: int) -> Tensor:
    """The transpose of `tokens_of`: tokens [R, K G D] become slots [K, N, G, D]; those not filled [N] are 0."""
    slotted = torch.where(filled[:, None], tokens[slots], 0)
    return slotted.view(-1, kv_heads, tokens.shape[1] // (kv_heads * size), size).transpose(0, 1).contiguous()
