"""Preference: of two answers to one prompt, which one does the arm find likelier?"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from tuneworth.data.example import Example
from tuneworth.evaluation.metrics.metric import Kit
from tuneworth.evaluation.records import Answer, RawAnswer

BETTER, WORSE, TIE = "better", "worse", "tie"


def preferred(margin: float) -> str:
    """What a margin (how far the better answer is ahead) says."""
    return BETTER if margin > 0 else WORSE if margin < 0 else TIE


def pair_kit() -> Kit:
    """Reading and measuring preferences. The main metric is pair accuracy; a tie is half right.

    A model's margin is log p(better answer) - log p(worse answer) in nats under the arm's own prompt, for prompting and
    fine-tuned arms alike. Sums favour short answers; what the same arm says per token is among the further numbers.
    """

    def parse(example: Example, answer: RawAnswer) -> str | None:
        return answer.text if answer.text in (BETTER, WORSE, TIE) else None

    def accuracy(example: Example, answer: RawAnswer, parsed: str | None) -> float:
        return {BETTER: 1.0, TIE: 0.5}.get(parsed or "", 0.0)

    return Kit(parse, {"pair-accuracy": accuracy}, _totals, lambda example: BETTER)


def _totals(examples: Sequence[Example], answers: Sequence[Answer]) -> dict[str, Any]:
    margins = [a.parts["margin"] for a in answers if "margin" in a.parts]
    a_token = [a.parts["margin_per_token"] for a in answers if "margin_per_token" in a.parts]
    longer = [
        len(example.answer) > len(example.rejected.content) for example in examples if example.rejected is not None
    ]
    return {
        "pair_accuracy": sum(a.score for a in answers) / len(answers),
        "mean_margin": statistics.fmean(margins) if margins else None,
        "median_margin": statistics.median(margins) if margins else None,
        "pair_accuracy_per_token": sum(m > 0 for m in a_token) / len(a_token) if a_token else None,
        "better_answer_is_longer": sum(longer) / len(longer) if longer else None,
    }
