"""The user's own metric: `package.module:function`, called as `score(example, answer) -> float`. Runs only when the
user allows code."""

from __future__ import annotations

import importlib
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuneworth.data.example import Example
from tuneworth.errors import InputError
from tuneworth.evaluation.metrics.metric import MetricFailed, Value
from tuneworth.evaluation.records import RawAnswer

_OWN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_own(name: str) -> bool:
    """Whether a metric's name is that of a Python function."""
    return _OWN.fullmatch(name) is not None


def own_value(name: str, *, allow_code: bool) -> Value:
    """The metric that calls the function `name`; it is given the Example and the text that was answered.

    What it raises is the error of its row. Raises InputError when code is not allowed or the function cannot be loaded,
    and later, naming the row, when it returns anything but a number in 0..1.
    """
    if not allow_code:
        raise InputError(
            f"'{name}' is Python code of yours, which runs only when you say so",
            where="metric",
            cure="add --allow-code (in Python: allow_code=True) if you trust it",
        )
    function = _load(name)

    def value(example: Example, answer: RawAnswer, parsed: str | None) -> float:
        try:
            found = function(example, answer.text)
        except Exception as error:  # a fault in the user's code concerns its row alone
            raise MetricFailed(f"{name} raised {type(error).__name__}: {error}") from error
        number = _number(found)
        if number is None:
            raise InputError(
                f"{name} returned {found!r:.80}; a score is a number from 0 to 1",
                where=f"{example.file}:{example.line} (id {example.id})",
                cure="let it return a float in 0..1 for every row",
            )
        return number

    return value


def _load(name: str) -> Callable[[Example, str], Any]:
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())  # a console script does not look in the folder it was started in
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module_name), function_name, None)
    except Exception as error:
        raise InputError(
            f"{module_name} cannot be imported: {type(error).__name__}: {error}",
            where="metric",
            cure="name an installed module, or start tuneworth in the folder that holds it",
        ) from error
    finally:
        if added:
            sys.path.remove(here)
    if not callable(function):
        raise InputError(f"{module_name} has no function '{function_name}'", where="metric", cure="check the name")
    return function  # type: ignore[no-any-return]


def _number(found: Any) -> float | None:
    if isinstance(found, str | bytes):
        return None
    try:
        number = float(found)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and 0 <= number <= 1 else None
