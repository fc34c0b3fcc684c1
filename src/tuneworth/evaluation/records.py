"""The records of evaluation: what an arm answered, row by row, and how that was scored."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

FinishReason = Literal["stop", "length", "error"]
Decoding = Literal["generate", "constrained"]


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """What a model wrote for one row, before it is read. `seconds` is this row's share of machine time."""

    text: str
    finish_reason: FinishReason
    prompt_hash: str
    input_tokens: int
    output_tokens: int
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One line of answers.jsonl. `parsed` is None when the text is no valid answer; `score` is in 0..1."""

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

    def to_json(self) -> dict[str, Any]:
        """One line of answers.jsonl."""
        return asdict(self)
