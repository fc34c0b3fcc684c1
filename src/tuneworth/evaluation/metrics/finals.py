r"""Reasoning: the final answer is found in the text, brought into one form, and compared exactly.

Where the final answer is looked for, in this order:

1. after the last `####` at the beginning of a line, to the end of that line (GSM8K's form);
2. in the last `\boxed{...}`, braces matched (MATH's form);
3. after the last "answer is" or "answer:", to the end of the sentence;
4. the last number of the text.

The last two are guesses, so of a text that was cut off (`finish_reason` length) only the first two count: the last
number of half a calculation is no answer (LAWS.md 51). The first two count in a cut text only when something follows
them that ends the answer.

Numbers are compared by value: thousands separators, currency, percent signs, a full stop at the end, zeros behind the
decimal point and one word of unit make no difference; `1/2` equals `0.5`. Other answers are compared as text without
letter case, quotes and white space at the ends.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from tuneworth.data.example import Example
from tuneworth.evaluation.metrics.labels import fold
from tuneworth.evaluation.metrics.metric import Kit
from tuneworth.evaluation.metrics.texts import text_kit
from tuneworth.evaluation.records import Answer, RawAnswer

_HASHES = re.compile(r"^[ \t]*####[ \t]*(?P<final>[^\n]*)(?P<end>\n)?", re.MULTILINE)
_SAYS = re.compile(r"\banswer\s*(?:is|:|=)\s*(?P<final>[^\n]+?)(?=[.!]?\s*(?:\n|\Z)|[.!]\s)", re.IGNORECASE)
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(rf"(?<![\w.])[-+−]?\s?[$€£]?\s?(?:{_DIGITS})(?:\s?/\s?\d+(?![\d/]))?")
_ALONE = re.compile(
    rf"(?P<sign>[-+−])?\s*[$€£]?\s*(?P<minus>[-−])?(?P<number>{_DIGITS})(?:\s?/\s?(?P<below>\d+))?"
    r"\s*[$€£%]?\s*(?:\\?%|[A-Za-z²³°]+)?\.?"
)
_LONGEST = 40  # digits of a number that is compared by value


def final_answer(text: str, *, whole: bool = True) -> str | None:
    """The final answer that `text` states, as it is written there. `whole` is False for a text that was cut off."""
    marks = [found for found in _HASHES.finditer(text) if found["final"].strip()]
    if marks and (whole or marks[-1]["end"]):
        return marks[-1]["final"].strip()
    boxed = _boxed(text)
    if boxed is not None:
        return boxed
    if not whole:
        return None
    said = [found["final"].strip() for found in _SAYS.finditer(text)]
    if said:
        return _number_in(said[-1]) or said[-1]
    return _number_in(text)


def normal_form(final: str) -> str:
    """A final answer in the form in which it is compared: a number by its value, else folded text."""
    cleaned = final.strip().strip("$*`\"' ").replace("\\$", "$").replace("\\!", "").replace("\\,", ",")
    cleaned = re.sub(r"\\text\{([^{}]*)\}", r"\1", cleaned)
    cleaned = re.sub(r"\\[dt]?frac\{(-?\d+)\}\{(\d+)\}", r"\1/\2", cleaned)
    found = _ALONE.fullmatch(cleaned)
    if found is None or sum(map(str.isdigit, cleaned)) > _LONGEST:
        return fold(cleaned)
    value = Fraction(Decimal(found["number"].replace(",", "")))
    if found["below"]:
        if int(found["below"]) == 0:
            return fold(cleaned)
        value /= int(found["below"])
    if ((found["sign"] or "") in "-−" and found["sign"]) or found["minus"]:
        value = -value
    return _written(value)


def finals_kit() -> Kit:
    """Reading and measuring final answers. The main metric is whether the final answer is right."""

    def parse(example: Example, answer: RawAnswer) -> str | None:
        final = final_answer(answer.text, whole=answer.finish_reason != "length")
        return None if final is None else normal_form(final)

    def right(example: Example, answer: RawAnswer, parsed: str | None) -> float:
        return float(parsed is not None and parsed in wanted_finals(example))

    texts = {name: value for name, value in text_kit().values.items() if name != "exact-match"}
    return Kit(parse, {"final-answer": right, **texts}, _totals, lambda example: wanted_finals(example)[0])


def wanted_finals(example: Example) -> tuple[str, ...]:
    """The final answers that are right, in normal form; of an answer that states none, the whole answer."""
    texts = (example.answer, *example.references)
    return tuple(normal_form(final_answer(text) or text) for text in texts)


def _totals(examples: Sequence[Example], answers: Sequence[Answer]) -> dict[str, Any]:
    """Every row is one of: right, wrong, cut off before a final answer, finished without one, or failed."""
    ends = Counter(_end(example, answer) for example, answer in zip(examples, answers, strict=True))
    count = len(answers)
    marked = sum(bool(_HASHES.search(a.raw)) or _boxed(a.raw) is not None for a in answers)
    return {
        "final_answer_right": ends["right"] / count,
        "wrong": ends["wrong"] / count,
        "truncated_before_the_final_answer": ends["truncated"] / count,
        "no_final_answer": ends["none"] / count,
        "failed": ends["failed"] / count,
        "final_answer_marked": marked / count,
    }


def _end(example: Example, answer: Answer) -> str:
    if answer.error is not None:
        return "failed"
    if answer.parsed is None:
        return "truncated" if answer.finish_reason == "length" else "none"
    return "right" if answer.parsed in wanted_finals(example) else "wrong"


def _boxed(text: str) -> str | None:
    """What the last `\\boxed{...}` that is closed holds."""
    start = text.rfind("\\boxed{")
    while start >= 0:
        depth = 0
        for place in range(start + len("\\boxed"), len(text)):
            depth += (text[place] == "{") - (text[place] == "}")
            if depth == 0:
                inside = text[start + len("\\boxed{") : place].strip()
                if inside:
                    return inside
                break
        start = text.rfind("\\boxed{", 0, start)
    return None


def _number_in(text: str) -> str | None:
    found = _NUMBER.findall(text)
    return found[-1].strip() if found else None


def _written(value: Fraction) -> str:
    """A number without an exponent; what has no end as a decimal stays a fraction."""
    below = value.denominator
    for factor in (2, 5):
        while below % factor == 0:
            below //= factor
    if below != 1:
        return f"{value.numerator}/{value.denominator}"
    whole = Decimal(value.numerator) / Decimal(value.denominator) if value.denominator != 1 else value.numerator
    return format(whole, "f") if isinstance(whole, Decimal) else str(whole)
