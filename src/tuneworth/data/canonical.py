"""Rows in one form, whatever file they came from, so that the same content always has the same hash."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import date, time
from decimal import Decimal
from typing import Any

import orjson

from tuneworth.errors import InputError


def canonical_row(cells: Mapping[str, Any]) -> bytes:
    """One row as JSON without spaces, UTF-8, its columns sorted by name; what is nested keeps its order, since the
    order of a tool's parameters is shown to models. Dates and decimals become text, missing numbers null.

    Rows that are read from this form and written again give the same bytes. Raises InputError for a cell that JSON
    cannot hold.
    """
    ordered = {name: cells[name] for name in sorted(cells)}
    try:
        return orjson.dumps(ordered, default=_plain, option=orjson.OPT_PASSTHROUGH_DATETIME)
    except orjson.JSONEncodeError as error:
        cause = error.__cause__
        if isinstance(cause, InputError):
            raise cause from None
    # Integers of more than 64 bits are all that is left.
    return json.dumps(ordered, default=_plain, ensure_ascii=False, separators=(",", ":")).encode()


def _plain(value: object) -> str:
    if isinstance(value, date | time | Decimal):
        return str(value)
    raise InputError(f"a cell holds {type(value).__name__}, which is no text, number, list or object")


def columns_of(rows: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Every column that a row has, in the order of their first appearance."""
    return tuple(dict.fromkeys(name for row in rows for name in row))
