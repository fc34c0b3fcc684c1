"""The verdict: which arm to use, by one rule, as a pure function of what the arms scored and cost.

The rule: the best arm has the highest mean score. Candidates are the best arm and every arm shown (paired,
corrected for several comparisons) not to be worse by as much as the minimum effect. The candidate with the
lowest total cost at the stated volume and horizon wins, and its family names the verdict. An arm that is
neither shown to be worse nor shown to be as good is undetermined; if it is of another family and not dearer
than the winner, the verdict hangs on it and there is not enough evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tuneworth.decision.costs import break_even, cost_curve, total_usd, usd_per_1k_correct, usd_per_request
from tuneworth.decision.power import rows_to_decide, smallest_detectable_difference
from tuneworth.decision.probes import LearningCurve, Probes
from tuneworth.decision.reasons import explain
from tuneworth.decision.records import (
    ArmResult,
    BreakEven,
    Case,
    Comparison,
    Family,
    Kind,
    Price,
    expected_after_doubling,
)
from tuneworth.decision.statistics import compare, holm, mean_interval
from tuneworth.task.schema import Decision

_KINDS: dict[Family, Kind] = {"fine-tune": "fine-tune", "prompt": "prompt", "classical": "simpler-model"}
_SIMPLICITY: dict[Family, int] = {"classical": 0, "prompt": 1, "fine-tune": 2}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict and all that it rests on. `rows_to_decide` is set where more test rows would decide."""

    kind: Kind
    winner: str | None
    why: tuple[str, ...]
    case: Case
    smallest_detectable_difference: float | None
    curve: Sequence[Mapping[str, Any]]
    rows_to_decide: int | None
    metric: str
    looks_at_test: int
    provenance: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """verdict.json, see the contract in the design."""
        case = self.case
        return {
            "schema": "tuneworth.verdict/1",
            "verdict": self.kind,
            "winner": self.winner,
            "why": list(self.why),
            "metric": self.metric,
            "test_rows": case.rows,
            "minimum_effect": case.decision.minimum_effect,
            "confidence": case.decision.confidence,
            "looks_at_test": self.looks_at_test,
            "provenance": {**self.provenance, "price": case.price.to_json()},
            "arms": [self._arm_json(arm) for arm in case.arms],
            "comparisons": [comparison.to_json() for comparison in case.comparisons],
            "break_even": case.break_even.to_json() if case.break_even else None,
            "cost_curve": [dict(point) for point in self.curve],
            "learning_curve": case.learning_curve.to_json() if case.learning_curve else None,
            "power": {"smallest_detectable_difference": self.smallest_detectable_difference},
        }

    def _arm_json(self, arm: ArmResult) -> dict[str, Any]:
        usd = usd_per_request(arm, self.case.price)
        return {
            "name": arm.name,
            "family": arm.family,
            "model": arm.model,
            "decoding": arm.decoding,
            "status": arm.status,
            "score": arm.mean if arm.done else None,
            "interval": list(self.case.intervals[arm.name]) if arm.done else None,
            "input_tokens": arm.input_tokens,
            "output_tokens": arm.output_tokens,
            "seconds": {"p50": arm.seconds_p50, "p95": arm.seconds_p95},
            "usd_per_1k_requests": None if usd is None else 1000 * usd,
            "usd_per_1k_correct": usd_per_1k_correct(arm, self.case.price, self.case.binary) if arm.done else None,
            "usd_to_build": arm.usd_to_build,
            "truncated": arm.truncated,
            "empty": arm.empty,
            "invalid": arm.invalid,
            **self.case.probes.get(arm.name, Probes()).to_json(),
        }


def decide(
    arms: Sequence[ArmResult],
    decision: Decision,
    *,
    metric: str,
    price: Price,
    provenance: Mapping[str, Any],
    learning_curve: LearningCurve | None = None,
    probes: Mapping[str, Probes] = MappingProxyType({}),
    looks_at_test: int = 1,
    seed: int = 0,
) -> Verdict:
    """Weigh the arms by the rule above. `learning_curve` is None if not measured; `probes` are by arm name.

    Raises ValueError when arms share a name or answered different numbers of rows: a fault of the caller, not
    of the user.
    """
    _check(arms)
    done = tuple(arm for arm in arms if arm.done)
    binary = all(arm.binary for arm in done)
    totals = {arm.name: total_usd(arm, price, _requests(decision)) for arm in arms}
    best = min(done, key=lambda arm: (-arm.mean, *_thrift(arm, totals))) if done else None
    alpha = (1 - decision.confidence) / _comparisons_that_matter(done)
    comparisons = _compare(best, done, alpha, decision.minimum_effect, seed) if best else ()
    kind, winner, doubtful = _rule(arms, best, comparisons, totals, decision, learning_curve)
    rows = len(best.values) if best else 0
    by_name = {comparison.b: comparison for comparison in comparisons}
    case = Case(
        arms=tuple(arms),
        decision=decision,
        price=price,
        binary=binary,
        rows=rows,
        intervals={arm.name: mean_interval(arm.values, arm.binary, decision.confidence, seed) for arm in done},
        best=best,
        winner=winner,
        comparisons=comparisons,
        totals=totals,
        doubtful={name: rows_to_decide(by_name[name], alpha, decision.minimum_effect) for name in doubtful},
        break_even=_break_even(done, winner, price, decision.confidence, seed),
        learning_curve=learning_curve,
        probes=probes,
        looks_at_test=looks_at_test,
    )
    deciding = [needed for needed in case.doubtful.values() if needed is not None]
    return Verdict(
        kind=kind,
        winner=winner.name if winner else None,
        why=explain(kind, case),
        case=case,
        smallest_detectable_difference=_detectable(comparisons, rows, alpha, binary),
        curve=cost_curve(done, price, _requests(decision)),
        rows_to_decide=max(deciding) if kind == "not-enough-evidence" and deciding else None,
        metric=metric,
        looks_at_test=looks_at_test,
        provenance=provenance,
    )


def _rule(
    arms: Sequence[ArmResult],
    best: ArmResult | None,
    comparisons: Sequence[Comparison],
    totals: Mapping[str, float | None],
    decision: Decision,
    learning_curve: LearningCurve | None,
) -> tuple[Kind, ArmResult | None, list[str]]:
    """The verdict, the winner, and the arms on which it hangs."""
    if best is None:
        return "not-enough-evidence", None, []
    required = decision.required_score
    if required is not None and best.mean < required:
        expected = expected_after_doubling(arms, learning_curve)
        if expected is None:
            return "not-enough-evidence", None, []
        if expected >= required:
            return "more-data", None, []
    by_name = {arm.name: arm for arm in arms}
    good = [best] + [by_name[c.b] for c in comparisons if c.not_inferior(decision.minimum_effect)]
    open_arms = [by_name[c.b] for c in comparisons if c.undetermined(decision.minimum_effect)]
    if required is not None and best.mean >= required:
        # Below the required score no arm is good enough, however cheap.
        good = [arm for arm in good if arm.mean >= required]
        open_arms = [arm for arm in open_arms if arm.mean >= required]
    winner = min(good, key=lambda arm: (*_thrift(arm, totals)[:2], -arm.mean, arm.name))
    if {arm.family for arm in arms if arm.done} == {winner.family} != {arm.family for arm in arms}:
        return "not-enough-evidence", None, []  # other families were wanted, and none of them was measured
    doubtful = [arm.name for arm in open_arms if _matters(arm, winner, totals)]
    if doubtful:
        return "not-enough-evidence", None, doubtful
    return _KINDS[winner.family], winner, []


def _matters(arm: ArmResult, winner: ArmResult, totals: Mapping[str, float | None]) -> bool:
    """Whether an undetermined arm could turn the verdict: another family, and not dearer as far as is known.

    A dearer arm has the burden of proof: it is named in the reasons, but it does not hold up the verdict.
    """
    dearer = totals[arm.name] is not None and _thrift(arm, totals)[0] > _thrift(winner, totals)[0]
    return arm.family != winner.family and not dearer


def _thrift(arm: ArmResult, totals: Mapping[str, float | None]) -> tuple[float, int, str]:
    """Order among equals: cheapest (an unknown cost last), then simplest, then by name. Costs equal to 9
    digits are equal, so that the order of adding decides nothing.
    """
    total = totals[arm.name]
    return float("inf") if total is None else float(f"{total:.9g}"), _SIMPLICITY[arm.family], arm.name


def _compare(
    best: ArmResult, done: Sequence[ArmResult], alpha: float, minimum_effect: float, seed: int
) -> tuple[Comparison, ...]:
    others = [arm for arm in done if arm is not best]
    pairs = [compare(best.values, arm.values, alpha, minimum_effect, seed) for arm in others]
    adjusted = holm([pair.p for pair in pairs])
    return tuple(
        Comparison(
            best.name,
            arm.name,
            pair.difference,
            pair.interval,
            pair.p,
            p_adjusted,
            pair.test,
            pair.equivalent,
            pair.variance,
            len(best.values),
        )
        for arm, pair, p_adjusted in zip(others, pairs, adjusted, strict=True)
    )


def _comparisons_that_matter(done: Sequence[ArmResult]) -> int:
    """Comparisons to correct for. Arms with the same score in every row are one: the same test twice is no
    second chance to err, so that an arm added twice changes nothing.
    """
    return max(1, len({arm.scores for arm in done}) - 1)


def _detectable(comparisons: Sequence[Comparison], rows: int, alpha: float, binary: bool) -> float | None:
    """For the closest pair, the one that is hardest to tell apart."""
    if not comparisons:
        return None
    closest = min(comparisons, key=lambda comparison: (comparison.difference, comparison.variance))
    return smallest_detectable_difference(closest.variance + closest.difference**2, rows, alpha, binary)


def _break_even(
    done: Sequence[ArmResult], winner: ArmResult | None, price: Price, confidence: float, seed: int
) -> BreakEven | None:
    """Of the winner, or where that is a prompt or none the best trained arm, against the best prompting
    arm.
    """
    ranked = sorted(done, key=lambda arm: (-arm.mean, arm.name))
    prompts = [arm for arm in ranked if arm.family == "prompt"]
    trained = [arm for arm in ranked if arm.family == "fine-tune"]
    subject = winner if winner is not None and winner.family != "prompt" else next(iter(trained), None)
    if not prompts or subject is None:
        return None
    return break_even(subject, prompts[0], price, confidence, seed)


def _requests(decision: Decision) -> float:
    return decision.requests_per_month * decision.horizon_months


def _check(arms: Sequence[ArmResult]) -> None:
    names = [arm.name for arm in arms]
    if len(set(names)) != len(names):
        raise ValueError(f"arms share a name: {sorted(names)}")
    if len({len(arm.values) for arm in arms if arm.done}) > 1:
        raise ValueError("arms answered different numbers of test rows, so they cannot be compared row by row")
