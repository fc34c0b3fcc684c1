"""Statistics, costs and the verdict: pure functions of what the arms scored; no files, no models, no
torch.
"""

from tuneworth.decision.costs import machine_hour_price
from tuneworth.decision.records import ArmResult, BreakEven, Comparison, Family, Kind, Price
from tuneworth.decision.verdict import Verdict, decide

__all__ = [
    "ArmResult",
    "BreakEven",
    "Comparison",
    "Family",
    "Kind",
    "Price",
    "Verdict",
    "decide",
    "machine_hour_price",
]
