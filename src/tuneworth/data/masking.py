"""Private values in a text are replaced by their kind, as in [EMAIL]. Only done on request."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from tuneworth.data.private import has_card
from tuneworth.errors import InputError, Problem, nearest

_EMAIL = re.compile(r"[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}(?![A-Za-z0-9-])")
_NUMBER = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?!\d)")


def _emails(text: str) -> str:
    return _EMAIL.sub("[EMAIL]", text) if "@" in text else text


def _cards(text: str) -> str:
    return _NUMBER.sub(lambda match: "[CARD]" if has_card(match.group()) else match.group(), text)


MASKS: Mapping[str, Callable[[str], str]] = {"pii-email": _emails, "pii-card": _cards}
"""Code of the finding: what replaces its values in a text. Masking twice changes nothing."""


def check_masks(codes: Collection[str]) -> None:
    """Raise InputError that names every code that is not in `MASKS`."""
    problems = [Problem(f"'{code}' cannot be masked", "--mask", nearest(code, MASKS)) for code in codes]
    problems = [problem for problem, code in zip(problems, codes, strict=True) if code not in MASKS]
    if problems:
        raise InputError.of(problems)


def masked(value: Any, code: str) -> Any:
    """A cell with the private values of all its texts replaced, however deep they lie; names of columns stay."""
    if isinstance(value, str):
        return MASKS[code](value)
    if isinstance(value, list):
        return [masked(item, code) for item in value]
    if isinstance(value, Mapping):
        return {key: masked(item, code) for key, item in value.items()}
    return value
