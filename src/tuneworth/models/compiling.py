"""Functions of tensors, compiled for the processor once for all lengths, and kept on disk for the next process.

torch.compile asks before every call whether what it compiled still fits: 40 microseconds for functions that often
compute for less. Here that is known beforehand, since the dimensions of a kernel's tensors have names: lengths may
change from call to call, and everything else (types, sizes, strides, numbers) is a constant that is looked up, a few
microseconds. What was compiled is loaded in a new process without being traced and lowered again.

Compiled code checks the sizes and strides that it is given before it writes anything. It depends on nothing but the
lengths' being 2 or more: what the compiler assumed about lengths is tried on others before it is used. One assumption
is let be: float32 sums of over 4,096 values would be added up in parts, for precision alone, had they been seen that
long when they were compiled. As they stand they are off by a few millionths at 9,000 values (tests).
"""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import Tensor
from torch._dynamo.source import ConstantSource
from torch._inductor.runtime.cache_dir_utils import cache_dir
from torch._inductor.standalone_compile import CompiledArtifact, standalone_compile
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

# What each length is while a function is traced: different, so that no two are taken for the same; S is never over R.
# Of the others, those that are summed over (S, P) go up to 4,096: see above.
_LENGTHS = {"T": 509, "N": 257, "S": 131, "R": 263, "P": 311}
_OTHER_LENGTHS = (
    {"T": 2, "N": 3, "S": 2, "R": 4, "P": 5},
    {"T": 4096, "N": 64, "S": 2000, "R": 2001, "P": 7},
    {"T": 9000, "N": 9001, "S": 4096, "R": 9002, "P": 4095},
)


class LengthsError(ValueError):
    """A function would be compiled for some lengths only."""


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Which dimensions of an argument are lengths, by their names, and which are constants."""

    lengths: tuple[tuple[int, str], ...]
    constants: tuple[int, ...]

    @classmethod
    def of(cls, shape: str) -> Dimensions:
        """Of names with spaces between them."""
        names = list(enumerate(shape.split()))
        return cls(
            tuple((d, name) for d, name in names if name in _LENGTHS),
            tuple(d for d, name in names if name not in _LENGTHS),
        )

    def key(self, x: Tensor) -> tuple[Hashable, ...]:
        """All of a tensor that is a constant to the compiler."""
        shape = x.shape
        return x.dtype, *[shape[d] for d in self.constants], x.is_contiguous() or x.stride()


def key_of(dimensions: Sequence[Dimensions | None], args: Sequence[Any]) -> tuple[Hashable, ...]:
    """Everything about arguments that is a constant to the compiler; all dimensions of tensors that have no names."""
    return tuple(
        (named.key(x) if named is not None else (x.dtype, x.shape, x.is_contiguous() or x.stride()))
        if isinstance(x, Tensor)
        else x
        for named, x in zip(dimensions, args, strict=True)
    )


def compiled(
    function: Callable[..., Any], dimensions: Sequence[Dimensions | None], args: Sequence[Any], key: Hashable
) -> Callable[..., Any]:
    """`function` for arguments like `args`, at any lengths: from disk, or compiled now and written there.

    Raises whatever the compiler raises, and LengthsError where the result would hold for some lengths only.
    """
    path = Path(cache_dir()) / "kernels" / f"{function.__name__.strip('_')}-{_digest(function, key)}.bin"
    run = _kept(path)
    if run is None:
        run = _built(function, dimensions, args, path)
    places = [at for at, x in enumerate(args) if isinstance(x, Tensor)]
    returned = get_type_hints(function)["return"]

    def call(*given: Any) -> Any:
        out = run(*[given[at] for at in places])
        return out[0] if returned is Tensor else tuple(out) if out else None

    return call


def _kept(path: Path) -> Callable[..., Any] | None:
    """What was compiled before, unless it cannot be read: it is from another PyTorch, or damaged."""
    try:
        return CompiledArtifact.load(path=str(path))
    except Exception:  # of whatever kind: then it is compiled again
        return None


@torch.no_grad()
def _built(
    function: Callable[..., Any], dimensions: Sequence[Dimensions | None], args: Sequence[Any], path: Path
) -> Callable[..., Any]:
    mode = FakeTensorMode(shape_env=ShapeEnv())
    places = [at for at, x in enumerate(args) if isinstance(x, Tensor)]
    fakes = [_example(args[at], dimensions[at], mode, str(at)) for at in places]

    def traced(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(places, tensors, strict=True))
        out = function(*[given.get(at, x) for at, x in enumerate(args)])
        return () if out is None else (out,) if isinstance(out, Tensor) else tuple(out)

    with mode:
        graph = make_fx(traced)(*fakes)
    built = standalone_compile(
        graph,
        fakes,
        dynamic_shapes="from_example_inputs",
        options={},
        aot=True,
        donate_graph_module=True,
        fake_mode=mode,
    )
    _check_lengths(function, mode, fakes, [(args[at], dimensions[at]) for at in places])
    path.parent.mkdir(parents=True, exist_ok=True)
    built.save(path=str(path))
    return _kept(path) or built


def _example(x: Tensor, named: Dimensions | None, mode: FakeTensorMode, name: str) -> Tensor:
    """A tensor without content like `x`, its lengths unknown to the compiler."""
    kinds = [DimDynamic.STATIC] * x.dim()
    for d, _ in named.lengths if named is not None else ():
        kinds[d] = DimDynamic.DUCK
    context: Any = StatelessSymbolicContext(dynamic_sizes=kinds)
    like = _of_lengths(x, named, _LENGTHS)
    return mode.from_tensor(like, symbolic_context=context, source=ConstantSource(f"argument_{name}"))


def _of_lengths(x: Tensor, named: Dimensions | None, lengths: Mapping[str, int], device: str = "cpu") -> Tensor:
    """A tensor like `x` with other lengths; a part of something wider stays one."""
    sizes = list(x.shape)
    for d, name in named.lengths if named is not None else ():
        sizes[d] = lengths[name]
    if x.is_contiguous():
        return torch.empty(sizes, dtype=x.dtype, device=device)
    return torch.empty_strided(sizes, x.stride(), dtype=x.dtype, device=device)


def _check_lengths(
    function: Callable[..., Any],
    mode: FakeTensorMode,
    fakes: Sequence[Tensor],
    tensors: Sequence[tuple[Tensor, Dimensions | None]],
) -> None:
    """Raise LengthsError if the compiler assumed something about lengths that does not hold for others."""
    environment: Any = mode.shape_env
    code = environment.produce_guards_expression(list(fakes), ignore_static=True)
    for lengths in _OTHER_LENGTHS if code else ():
        others = [_of_lengths(x, named, lengths, "meta") for x, named in tensors]
        if not environment.evaluate_guards_expression(code, others):
            raise LengthsError(f"{function.__name__} would be compiled for some lengths only: {code}")


def _digest(function: Callable[..., Any], key: Hashable) -> str:
    """Names what was compiled: by the code of the kernels, the constants, and the machine it was compiled for."""
    found = hashlib.sha256()
    for source in sorted({Path(__file__), Path(__file__).with_name("kernels.py"), Path(inspect.getfile(function))}):
        found.update(source.read_bytes())
    facts = key, torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), _processor()
    found.update(repr((torch.__version__, function.__name__, *facts, os.environ.get("CXX"))).encode())
    return found.hexdigest()[:24]


def _processor() -> str:
    """The processor's name and what it can do: code is compiled for just that."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    wanted = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return "\n".join(dict.fromkeys(wanted)) or f"{platform.machine()} {platform.processor()}"
