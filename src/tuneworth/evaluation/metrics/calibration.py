"""Whether an arm is right as often as it is sure: reliability bins and the expected calibration error.

Only what an arm itself says of its answer counts: the probability of the label that it answered, or, of a preference,
that of the answer it prefers, 1 / (1 + exp(-margin)). A constrained walk to a label tells none, since a token's
probability on the way is not the label's. Reference: Naeini et al. 2015, "Obtaining Well Calibrated Probabilities Using
Bayesian Binning".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tuneworth.evaluation.metrics.pairs import TIE
from tuneworth.evaluation.records import Answer, Decoding

BINS = 10
KINDS = ("classification", "preference")


def calibration(answers: Sequence[Answer], decoding: Decoding) -> dict[str, Any]:
    """`calibration` of arm.json: `error`, the `rows` that it is measured on, `bins` of equal width that hold rows (low,
    high, rows, mean confidence, share right), and `why` where it is not measured. Rows that failed are left out."""
    if decoding != "scored":
        return _not_measured(f"answers are {decoding}, which tells no probability of a label")
    told = [(answer, _confidence(answer)) for answer in answers if answer.error is None]
    known = [(confidence, _right(answer)) for answer, confidence in told if confidence is not None]
    if not known or len(known) < len(told):
        return _not_measured("the arm tells no probabilities")
    bins = [_bin(place, [pair for pair in known if _place(pair[0]) == place]) for place in range(BINS)]
    full = [one for one in bins if one["rows"]]
    error = sum(one["rows"] * abs(one["right"] - one["confidence"]) for one in full) / len(known)
    return {"error": error, "rows": len(known), "bins": full, "why": None}


def _confidence(answer: Answer) -> float | None:
    if "confidence" in answer.parts:
        return answer.parts["confidence"]
    margin = answer.parts.get("margin")
    return None if margin is None else 1 / (1 + math.exp(-abs(margin)))


def _right(answer: Answer) -> float:
    return 0.5 if answer.parsed == TIE and "margin" in answer.parts else float(answer.parsed == answer.wanted)


def _place(confidence: float) -> int:
    return min(BINS - 1, math.floor(confidence * BINS))


def _bin(place: int, pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    count = max(1, len(pairs))
    return {
        "low": place / BINS,
        "high": (place + 1) / BINS,
        "rows": len(pairs),
        "confidence": sum(confidence for confidence, _ in pairs) / count,
        "right": sum(right for _, right in pairs) / count,
    }


def _not_measured(why: str) -> dict[str, Any]:
    return {"error": None, "rows": 0, "bins": [], "why": why}
