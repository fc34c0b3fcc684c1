"""The rule of the verdict, a pure function of comparisons and costs.

The best arm has the highest mean score. Candidates are the best arm and every arm shown (paired, corrected for several
comparisons) not to be worse by as much as the minimum effect. The candidate with the lowest total cost at the stated
volume and horizon wins, and its family names the verdict. Withheld is it while an arm of another family could turn it:

- an arm that is not dearer than the winner, and is neither shown to be worse than the best nor shown to be as good;
- a dearer arm that may be better than the winner by the minimum effect or more;
- an arm whose answers were cut off, empty or unreadable so much more often that, had they been as good as its other
  answers, it would be a candidate or better than the winner: the difference may be one of form.

Intervals hold together for all pairs of arms, so in at most one of 20 verdicts (at 95 %) the truly best arm is taken
for worse, or a winner that is worse by the minimum effect for as good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuneworth.decision.probes import LearningCurve, Probes
from tuneworth.decision.records import ArmResult, Comparison, Family, Kind, expected_after_doubling
from tuneworth.task.schema import Decision

KINDS: dict[Family, Kind] = {"fine-tune": "fine-tune", "prompt": "prompt", "classical": "simpler-model"}
UNLIKE_FORM = 0.05
"""Arms whose shares of ill-formed answers differ by more are not compared before form is ruled out."""
ENOUGH_WELL_FORMED = 30
"""Fewer answers of good form do not say how good the others would have been."""
_SIMPLICITY: dict[Family, int] = {"classical": 0, "prompt": 1, "fine-tune": 2}


@dataclass(frozen=True, slots=True)
class Ruling:
    """The verdict, the winner, and what holds it up.

    `leader` is the arm that would win if nothing held the verdict up; `doubtful` names the arms that too few rows tell
    apart from it, `artefacts` those whose score may be one of form.
    """

    kind: Kind
    winner: ArmResult | None = None
    leader: ArmResult | None = None
    doubtful: tuple[str, ...] = ()
    artefacts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the rule weighs. `pairs` holds a comparison for each two arms, under both names, the better one first."""

    arms: Sequence[ArmResult]
    best: ArmResult | None
    pairs: Mapping[frozenset[str], Comparison]
    totals: Mapping[str, float | None]
    learning_curve: LearningCurve | None
    probes: Mapping[str, Probes]

    def pair(self, one: ArmResult, other: ArmResult) -> Comparison:
        """The comparison of two arms."""
        return self.pairs[frozenset((one.name, other.name))]


def rule(evidence: Evidence, decision: Decision) -> Ruling:
    """The verdict by the rule above."""
    best, arms = evidence.best, evidence.arms
    if best is None or best.mean == 0:
        return Ruling("not-enough-evidence")  # what gets nothing right is not recommended, however cheap
    required = decision.required_score
    if required is not None and best.mean < required:
        expected = expected_after_doubling(arms, evidence.learning_curve)
        if expected is None:
            return Ruling("not-enough-evidence")
        if expected >= required:
            return Ruling("more-data")
    done = [arm for arm in arms if arm.done and not forgets_too_much(arm, evidence.probes, decision)]
    others = [arm for arm in done if arm is not best]
    good = [best] + [arm for arm in others if evidence.pair(best, arm).not_inferior(decision.minimum_effect)]
    if required is not None and best.mean >= required:
        # Below the required score no arm is good enough, however cheap.
        good = [arm for arm in good if arm.mean >= required]
        others = [arm for arm in others if arm.mean >= required]
    leader = min(good, key=lambda arm: (*thrift(arm, evidence.totals)[:2], -arm.mean, arm.name))
    if {arm.family for arm in arms if arm.done} == {leader.family} != {arm.family for arm in arms}:
        # Other families were wanted, and none of them was measured.
        return Ruling("not-enough-evidence", leader=leader)
    rivals = [arm for arm in (best, *others) if arm.family != leader.family]
    doubtful = tuple(arm.name for arm in rivals if _may_turn(arm, leader, evidence, decision))
    unlike = [arm for arm in done if arm.family != leader.family and arm not in good]
    artefacts = tuple(arm.name for arm in unlike if _may_be_form(arm, leader, evidence, decision))
    if doubtful or artefacts:
        return Ruling("not-enough-evidence", None, leader, doubtful, artefacts)
    return Ruling(KINDS[leader.family], leader, leader)


def forgets_too_much(arm: ArmResult, probes: Mapping[str, Probes], decision: Decision) -> bool:
    """Whether an arm lost more general knowledge than the task allows; one that was not measured passes."""
    found = probes.get(arm.name, Probes()).forgetting
    limit = decision.largest_forgetting
    if limit is None or found is None or found.choice_before is None or found.choice_after is None:
        return False
    return found.choice_before - found.choice_after > limit


def thrift(arm: ArmResult, totals: Mapping[str, float | None]) -> tuple[float, int, str]:
    """Order among equals: cheapest (an unknown cost last), then simplest, then by name. Costs equal to 9
    digits are equal, so that the order of adding decides nothing.
    """
    total = totals[arm.name]
    return float("inf") if total is None else float(f"{total:.9g}"), _SIMPLICITY[arm.family], arm.name


def dearer(arm: ArmResult, leader: ArmResult, totals: Mapping[str, float | None]) -> bool:
    """Whether `arm` is known to cost more than `leader`."""
    return totals[arm.name] is not None and thrift(arm, totals)[0] > thrift(leader, totals)[0]


def _may_turn(arm: ArmResult, leader: ArmResult, evidence: Evidence, decision: Decision) -> bool:
    """Whether too few rows leave open that `arm`, of another family, should have won."""
    assert evidence.best is not None
    if dearer(arm, leader, evidence.totals):
        pair = evidence.pair(arm, leader)
        lead = pair.interval[1] if pair.a == arm.name else -pair.interval[0]
        return lead >= decision.minimum_effect and not pair.equivalent
    return arm is not evidence.best and evidence.pair(evidence.best, arm).undetermined(decision.minimum_effect)


def ill_formed(arm: ArmResult) -> float:
    """Share of answers that were cut off, empty or unreadable, whichever is most: they overlap."""
    return max(arm.truncated or 0.0, arm.empty or 0.0, arm.invalid or 0.0)


def well_formed(arm: ArmResult) -> int:
    """How many answers were neither cut off nor empty nor unreadable."""
    return round((1 - ill_formed(arm)) * len(arm.values))


def if_well_formed(arm: ArmResult) -> float:
    """The score if ill-formed answers were as good as the others; 1 where fewer than 30 others say how good those
    are."""
    if well_formed(arm) < ENOUGH_WELL_FORMED:
        return 1.0
    return min(1.0, arm.mean / (1 - ill_formed(arm)))


def _may_be_form(arm: ArmResult, leader: ArmResult, evidence: Evidence, decision: Decision) -> bool:
    """Whether `arm` would turn the verdict if its ill-formed answers were as good as its others."""
    if ill_formed(arm) - ill_formed(leader) <= UNLIKE_FORM:
        return False
    lead = if_well_formed(arm) - if_well_formed(leader)
    if decision.required_score is not None and if_well_formed(arm) < decision.required_score:
        return False
    margin = decision.minimum_effect
    return lead > (margin if dearer(arm, leader, evidence.totals) else -margin)
