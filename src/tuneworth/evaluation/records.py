"""The records of evaluation: what an arm answered, row by row, and how that was scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

FinishReason = Literal["stop", "length", "error"]
Decoding = Literal["generate", "constrained", "scored"]


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """What a model wrote for one row, before it is read. `seconds` is this row's share of machine time.

    `parts` are further numbers where there are any: `confidence` (0..1, of the label that was answered), `margin` and
    `margin_per_token` (nats by which the better answer of a pair is ahead), `closed` (1 where an object was so long
    that it was brought to an end, else 0).
    """

    text: str
    finish_reason: FinishReason
    prompt_hash: str
    input_tokens: int
    output_tokens: int
    seconds: float
    error: str | None = None
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """One line of answers.jsonl. `wanted` and `parsed` are in the plain form of the kind (a label, a JSON text, a final
    number); `parsed` is None when the text is no valid answer; `score` is in 0..1, `parts` as in RawAnswer."""

    id: str
    group: str | None
    prompt_hash: str
    wanted: str
    raw: str
    parsed: str | None
    score: float
    input_tokens: int
    output_tokens: int
    seconds: float
    finish_reason: FinishReason
    error: str | None = None
    parts: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """One line of answers.jsonl."""
        return asdict(self)
