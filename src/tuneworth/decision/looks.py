"""What looking at the same test rows again costs."""

from __future__ import annotations


def confidence_after(looks: int, confidence: float) -> float:
    """The confidence at which the verdict of look number `looks` at the same test rows is stated.

    The first look may err in 1 - confidence of cases, and so may all later ones together, however many: look k gets
    1 / (k (k - 1)) of it, which sums to one.
    """
    return confidence if looks <= 1 else 1 - (1 - confidence) / (looks * (looks - 1))
