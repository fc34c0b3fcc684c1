"""Statistics, costs and the verdict: pure functions of what the arms scored; no files, no models, no
torch.
"""

from tuneworth.decision.costs import machine_hour_price
from tuneworth.decision.probes import CurvePoint, Forgetting, LearningCurve, OutOfScope, Perturbed, Probes
from tuneworth.decision.records import (
    ArmResult,
    AtOnce,
    BreakEven,
    Comparison,
    Family,
    Kind,
    Price,
    TokenPrice,
)
from tuneworth.decision.verdict import Verdict, decide

__all__ = [
    "ArmResult",
    "AtOnce",
    "BreakEven",
    "Comparison",
    "CurvePoint",
    "Family",
    "Forgetting",
    "Kind",
    "LearningCurve",
    "OutOfScope",
    "Perturbed",
    "Price",
    "Probes",
    "TokenPrice",
    "Verdict",
    "decide",
    "machine_hour_price",
]
