"""The verdict: which arm to use, as a pure function of what the arms scored and cost. The rule is in `rule`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import Any

import numpy as np

from tuneworth.decision.costs import break_even, cost_curve, total_usd, usd_at_once, usd_per_1k_correct, usd_per_request
from tuneworth.decision.looks import confidence_after
from tuneworth.decision.power import rows_to_decide, smallest_detectable_difference
from tuneworth.decision.probes import Interval, LearningCurve, Probes
from tuneworth.decision.reasons import explain, flip_words
from tuneworth.decision.records import ArmResult, BreakEven, Case, Comparison, Kind, Price, Saving, Terms
from tuneworth.decision.rule import Evidence, Ruling, dearer, forgets_too_much, rule, thrift
from tuneworth.decision.sensitivity import flips
from tuneworth.decision.statistics import Codes, SeedSpread, compare, holm, mean_interval, pairwise_level, with_seeds
from tuneworth.task.schema import Decision


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
            "meanwhile": case.leader.name if case.leader and not self.winner else None,
            "why": list(self.why),
            "metric": self.metric,
            "test_rows": case.rows,
            "test_groups": case.groups,
            "minimum_effect": case.decision.minimum_effect,
            "confidence": case.decision.confidence,
            "looks_at_test": self.looks_at_test,
            "provenance": {**self.provenance, "price": case.price.to_json()},
            "arms": [self._arm_json(arm) for arm in case.arms],
            "comparisons": [comparison.to_json() for comparison in case.comparisons],
            "break_even": case.break_even.to_json() if case.break_even else None,
            "cost_curve": [dict(point) for point in self.curve],
            "saving": case.saving.to_json() if case.saving else None,
            "sensitivity": [{**flip.to_json(), "words": flip_words(flip)} for flip in case.flips],
            "learning_curve": case.learning_curve.to_json() if case.learning_curve else None,
            "power": {
                "smallest_detectable_difference": self.smallest_detectable_difference,
                "rows_to_decide": self.rows_to_decide,
            },
        }

    def _arm_json(self, arm: ArmResult) -> dict[str, Any]:
        price = self.case.price
        usd = usd_per_request(arm, price)
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
            "usd_per_1k_correct": usd_per_1k_correct(arm, price, self.case.binary) if arm.done else None,
            "usd_to_build": arm.usd_to_build,
            "token_price": arm.token_price.to_json() if arm.token_price else None,
            "at_once": [
                {
                    "requests": point.requests,
                    "seconds": {"p50": point.seconds_p50, "p95": point.seconds_p95},
                    "usd_per_1k_requests": 1000 * (usd_at_once(arm, point, price) or 0.0),
                }
                for point in arm.at_once
            ],
            "truncated": arm.truncated,
            "empty": arm.empty,
            "invalid": arm.invalid,
            **self.case.probes.get(arm.name, Probes()).to_json(),
        }


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the rule found, and on what: `alpha` is the level of each comparison, `groups` the rows' [rows]."""

    ruling: Ruling
    evidence: Evidence
    alpha: float
    groups: Codes | None


def judge(
    arms: Sequence[ArmResult],
    decision: Decision,
    terms: Terms,
    *,
    learning_curve: LearningCurve | None = None,
    probes: Mapping[str, Probes] = MappingProxyType({}),
    looks_at_test: int = 1,
) -> Judgement:
    """Compare the arms and apply the rule; without words, curves and sensitivity, which `decide` adds.

    Raises ValueError as `decide` does.
    """
    _check(arms)
    done = [arm for arm in arms if arm.done]
    requests = decision.requests_per_month * decision.horizon_months
    totals = {arm.name: total_usd(arm, terms, requests) for arm in arms}
    admitted = [arm for arm in done if not forgets_too_much(arm, probes, decision)]
    best = min(admitted, key=lambda arm: (-arm.mean, *thrift(arm, totals)), default=None)
    alpha = pairwise_level(_distinct(done), 1 - confidence_after(looks_at_test, decision.confidence))
    groups = _groups(done)
    pairs = {
        frozenset((one.name, other.name)): _compared(one, other, alpha, decision.minimum_effect, groups)
        for one, other in combinations(sorted(done, key=lambda arm: (arm is not best, -arm.mean, arm.name)), 2)
    }
    evidence = Evidence(arms, best, pairs, totals, learning_curve, probes)
    return Judgement(rule(evidence, decision), evidence, alpha, groups)


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
) -> Verdict:
    """Weigh the arms by the rule. `learning_curve` is None if not measured; `probes` are by arm name.

    `looks_at_test` counts this verdict and those made from the same test rows before; see `confidence_after`.
    Raises ValueError when arms share a name or answered different numbers of rows: a fault of the caller, not
    of the user.
    """
    terms = Terms.of(decision, price)
    judged = judge(arms, decision, terms, learning_curve=learning_curve, probes=probes, looks_at_test=looks_at_test)
    ruling, evidence = judged.ruling, judged.evidence
    done, best = tuple(arm for arm in arms if arm.done), evidence.best
    binary = all(arm.binary for arm in done)
    comparisons = _reported(evidence, ruling)
    doubtful = {name: _doubt(name, judged, decision) for name in ruling.doubtful}
    confidence = confidence_after(looks_at_test, decision.confidence)
    case = Case(
        arms=tuple(arms),
        decision=decision,
        price=price,
        binary=binary,
        rows=len(best.values) if best else 0,
        intervals={arm.name: _interval(arm, confidence, judged.groups) for arm in done},
        best=best,
        winner=ruling.winner,
        leader=ruling.leader,
        comparisons=comparisons,
        totals=evidence.totals,
        doubtful=doubtful,
        artefacts=ruling.artefacts,
        break_even=_break_even(done, ruling.winner or ruling.leader, terms, decision.confidence),
        saving=_saving(done, ruling.winner or ruling.leader, evidence, decision),
        flips=flips(evidence, decision, terms, ruling.kind),
        learning_curve=learning_curve,
        probes=probes,
        groups=None if judged.groups is None else int(judged.groups.max()) + 1,
        looks_at_test=looks_at_test,
    )
    deciding = [needed for _, needed in doubtful.values() if needed is not None]
    requests = decision.requests_per_month * decision.horizon_months
    return Verdict(
        kind=ruling.kind,
        winner=ruling.winner.name if ruling.winner else None,
        why=explain(ruling.kind, case),
        case=case,
        smallest_detectable_difference=_detectable(comparisons, case.rows, judged.alpha, binary),
        curve=cost_curve(done, terms, requests),
        rows_to_decide=max(deciding) if deciding else None,
        metric=metric,
        looks_at_test=looks_at_test,
        provenance=provenance,
    )


def _interval(arm: ArmResult, confidence: float, groups: Codes | None) -> Interval:
    interval = mean_interval(arm.values, arm.binary, confidence, groups)
    low, high = with_seeds(arm.mean, interval, confidence, _seeds(arm))
    return max(0.0, low), min(1.0, high)


def _seeds(*arms: ArmResult) -> SeedSpread | None:
    """How far another training would move the score of an arm, or the difference of two."""
    spread = [(arm.seed_spread, arm.seeds) for arm in arms if arm.seed_spread and arm.seeds > 1]
    if not spread:
        return None
    variance = sum(deviation**2 for deviation, _ in spread)
    return SeedSpread(float(variance**0.5), sum(seeds - 1 for _, seeds in spread))


def _groups(done: Sequence[ArmResult]) -> Codes | None:
    """The rows' groups as numbers from 0; None when no arm has groups, or none has several rows."""
    grouped = next((arm for arm in done if arm.grouped), None)
    return None if grouped is None else np.unique(np.asarray(grouped.groups), return_inverse=True)[1].astype(np.int64)


def _compared(
    one: ArmResult, other: ArmResult, alpha: float, minimum_effect: float, groups: Codes | None
) -> Comparison:
    """The comparison of two arms; its p stands alone until `_reported` corrects it."""
    pair = compare(one.values, other.values, alpha, minimum_effect, groups, _seeds(one, other))
    return Comparison(
        one.name, other.name, pair.difference, pair.interval, pair.p, pair.p, pair.test, pair.equivalent,
        pair.variance, len(one.values), pair.skewness,
    )  # fmt: skip


def _reported(evidence: Evidence, ruling: Ruling) -> tuple[Comparison, ...]:
    """The best arm with each other, then the winner (or who leads) with each other if it is not the best."""
    best, leader = evidence.best, ruling.winner or ruling.leader
    if best is None:
        return ()
    done = [arm for arm in evidence.arms if arm.done]
    found = [evidence.pair(best, arm) for arm in done if arm is not best]
    if leader is not None and leader is not best:
        found += [_from(evidence.pair(leader, arm), leader) for arm in done if arm not in (best, leader)]
    # Holm over all pairs, since the best arm was chosen among them.
    ordered = list(evidence.pairs)
    adjusted = dict(zip(ordered, holm([evidence.pairs[names].p for names in ordered]), strict=True))
    return tuple(pair.with_p(adjusted[frozenset((pair.a, pair.b))]) for pair in found)


def _from(pair: Comparison, arm: ArmResult) -> Comparison:
    return pair if pair.a == arm.name else pair.flipped()


def _doubt(name: str, judged: Judgement, decision: Decision) -> tuple[Comparison, int | None]:
    """The comparison that leaves `name` in doubt, and the rows that would settle it."""
    evidence, leader = judged.evidence, judged.ruling.leader
    arm = next(arm for arm in evidence.arms if arm.name == name)
    assert leader is not None and evidence.best is not None
    if dearer(arm, leader, evidence.totals):
        pair = _from(evidence.pair(arm, leader), arm)
    else:
        pair = _from(evidence.pair(evidence.best, arm), evidence.best)
    return pair, rows_to_decide(pair, judged.alpha, decision.minimum_effect)


def _distinct(done: Sequence[ArmResult]) -> int:
    """Arms to correct for. Arms with the same score in every row are one: the same test twice is no second chance to
    err, so that an arm added twice changes nothing.
    """
    return len({arm.scores for arm in done})


def _detectable(comparisons: Sequence[Comparison], rows: int, alpha: float, binary: bool) -> float | None:
    """For the closest pair, the one that is hardest to tell apart."""
    if not comparisons:
        return None
    closest = min(comparisons, key=lambda comparison: (abs(comparison.difference), comparison.variance))
    square = closest.variance + closest.difference**2
    return smallest_detectable_difference(square, rows, alpha, binary, closest.skewness)


def _break_even(
    done: Sequence[ArmResult], leader: ArmResult | None, terms: Terms, confidence: float
) -> BreakEven | None:
    """Of the winner (or who leads), or where that is a prompt or none the best trained arm, against the best
    prompting arm.
    """
    ranked = sorted(done, key=lambda arm: (-arm.mean, arm.name))
    prompts = [arm for arm in ranked if arm.family == "prompt"]
    trained = [arm for arm in ranked if arm.family == "fine-tune"]
    subject = leader if leader is not None and leader.family != "prompt" else next(iter(trained), None)
    if not prompts or subject is None:
        return None
    return break_even(subject, prompts[0], terms, confidence)


def _saving(
    done: Sequence[ArmResult], leader: ArmResult | None, evidence: Evidence, decision: Decision
) -> Saving | None:
    """Of the winner (or who leads) against the best prompting arm, or the best other one where that is the winner."""
    ranked = sorted(done, key=lambda arm: (arm.family != "prompt", -arm.mean, arm.name))
    other = next((arm for arm in ranked if arm is not leader), None)
    if leader is None or other is None:
        return None
    own, others = evidence.totals[leader.name], evidence.totals[other.name]
    if own is None or others is None:
        return None
    return Saving(leader.name, other.name, decision.requests_per_month * decision.horizon_months, others - own)


def _check(arms: Sequence[ArmResult]) -> None:
    names = [arm.name for arm in arms]
    if len(set(names)) != len(names):
        raise ValueError(f"arms share a name: {sorted(names)}")
    if len({len(arm.values) for arm in arms if arm.done}) > 1:
        raise ValueError("arms answered different numbers of test rows, so they cannot be compared row by row")
