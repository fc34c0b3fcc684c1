"""What rows are alike in, when a few are drawn to stand for all."""

from __future__ import annotations

from tuneworth.data.example import Example


def stratum(example: Example, kind: str) -> str:
    """The class of a row where its kind has classes: the label, the first of several, the first tool called ("" for an
    answer in words). All rows of other kinds are one class."""
    if kind == "classification":
        return example.answer
    if kind == "multilabel":
        return next(iter(example.labels), "")
    if kind == "tools":
        return example.calls[0].name if example.calls else ""
    return ""
