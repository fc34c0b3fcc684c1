"""The verdict in plain sentences, the most important first: what to do, how sure, what it costs, what is
open.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

from tuneworth.decision.looks import confidence_after
from tuneworth.decision.records import ArmResult, Case, Comparison, Flip, Kind, expected_after_doubling
from tuneworth.decision.rule import ENOUGH_WELL_FORMED, UNLIKE_FORM, forgets_too_much, well_formed
from tuneworth.decision.wording import (
    about,
    count,
    finding,
    interval_percent,
    interval_points,
    percent,
    points,
    usd,
)

FEW_ROWS = 30
_NEARLY = 0.9  # of the epochs that are wished for
VERDICT_WORDS: dict[Kind, str] = {
    "fine-tune": "fine-tune",
    "prompt": "keep prompting",
    "simpler-model": "a simpler model",
    "more-data": "label more data",
    "not-enough-evidence": "not enough evidence",
}
_FAMILY_WORDS = {"prompt": "prompting", "fine-tune": "fine-tuned", "classical": "classical"}


def explain(kind: Kind, case: Case) -> tuple[str, ...]:
    """Sentences with numbers that a product manager understands."""
    if case.best is None:
        return ("No arm finished, so there is nothing to decide from.", *_not_run(case))
    return (
        *_headline(kind, case, case.best),
        *_not_measured(case),
        *_cut_short(case),
        *_cut_off(case, case.best),
        *_few_rows(case),
        *_required(kind, case, case.best),
        *_compared(case, case.best),
        *_money(case, case.best),
        *_sensitivity(case),
        *_still_open(case),
        *_form(case, case.best),
        *_doubling(kind, case),
        *_caveats(case),
        *_not_run(case),
    )


def _headline(kind: Kind, case: Case, best: ArmResult) -> Iterator[str]:
    if case.winner is None:
        yield from _no_winner(kind, case, best)
    elif len(case.done) == 1:
        yield f"Only {best.name} was measured ({_scored(case, best)}), so it was compared with nothing."
    elif case.winner is best:
        yield f"Use {best.name}: {_scored(case, best)}, the highest of {len(case.done)} arms."
    else:
        within = points(case.decision.minimum_effect)
        cheaper = "costs less in total" if _cheaper(case, case.winner, best) else "is simpler at no greater cost"
        yield (
            f"Use {case.winner.name}: {_scored(case, case.winner)}. It is shown to be less than "
            f"{within} points "
            f"worse than the best arm, {best.name} ({percent(best.mean)}), and {cheaper}."
        )


def _no_winner(kind: Kind, case: Case, best: ArmResult) -> Iterator[str]:
    required = case.decision.required_score
    if best.mean == 0:
        yield (
            f"No arm scored above 0 on {case.rows:,} test rows, so none can be used as it is: give more time, so that "
            "an arm is trained, tell the model how an answer must look, or check whether answers follow from inputs."
        )
        return
    if required is not None and best.mean < required:
        missed = (
            f"No arm reaches the required score of {percent(required)}: the best is {best.name}, {_scored(case, best)}"
        )
        if kind == "more-data":
            expected = expected_after_doubling(case.arms, case.learning_curve) or 0.0
            yield (f"{missed}. With twice the data about {percent(expected)} is expected: label more, then decide.")
        else:
            yield f"{missed}. Whether twice the data would reach it was not measured."
        return
    if not case.doubtful and not case.artefacts:
        missing = sorted({_FAMILY_WORDS[arm.family] for arm in case.arms if not arm.done} - {_word(best)})
        yield (
            f"Only {_word(best)} arms were measured; no {' and no '.join(missing)} arm finished, so "
            "there is nothing "
            f"to compare with. Best so far: {best.name}, {_scored(case, best)}."
        )
        return
    by_name = {arm.name: arm for arm in case.arms}
    for name in case.artefacts:
        yield _artefact(case, by_name[name])
    for pair, needed in sorted(case.doubtful.values(), key=lambda doubt: doubt[1] or 0, reverse=True):
        yield _doubt(case, pair, needed)
    if case.leader is not None:
        yield (
            f"Until then {case.leader.name} is the one to use: {_scored(case, case.leader)}, and of the arms that may "
            "be best it costs least as far as is known."
        )


def _artefact(case: Case, arm: ArmResult) -> str:
    leader = case.leader
    assert leader is not None
    shares = max(
        ("truncated", "cut off"), ("empty", "empty"), ("invalid", "not readable as an answer"),
        key=lambda item: getattr(arm, item[0]) or 0.0,
    )  # fmt: skip
    cure = {
        "truncated": "allow longer answers",
        "empty": "see why nothing was answered",
        "invalid": "say in the prompt how the answer must look, or let only known answers be written",
    }[shares[0]]
    own = getattr(leader, shares[0]) or 0.0
    whole = well_formed(arm)
    if whole < ENOUGH_WELL_FORMED:
        how_many = {0: "None of its answers was", 1: "Only 1 of its answers was"}
        few = how_many.get(whole, f"Only {whole} of its answers were")
        why = f"{few} of good form, too few to say how good all of them could be"
    else:
        why = "Had they been as good as its other answers, the verdict would be another"
    return (
        f"{percent(getattr(arm, shares[0]))} of {arm.name}'s answers were {shares[1]}, against {percent(own)} of "
        f"{leader.name}'s. {why}, so the difference in score may be one of form: {cure} and run again, or leave "
        f"{arm.name} out."
    )


def _doubt(case: Case, pair: Comparison, needed: int | None) -> str:
    rows = (
        f"About {about(needed)} test rows would decide (80 % chance, if they differ as much as estimated)."
        if needed is not None
        else "No number of test rows would decide: they score the same, and with a minimum effect of 0 "
        "nothing counts as equal. Set decision.minimum_effect above 0."
    )
    matter = f"{points(case.decision.minimum_effect)} points matter"
    if case.leader is not None and pair.b == case.leader.name and pair.a != getattr(case.best, "name", None):
        return (
            f"{case.rows:,} test rows cannot tell whether {pair.a} is better than {pair.b}, which costs less: it may "
            f"be better by up to {points(pair.interval[1])} points, and {matter}. {rows}"
        )
    if case.leader is not None and pair.b == case.leader.name:
        return (
            f"{case.rows:,} test rows cannot tell how much better {pair.a} is than {pair.b}, which costs less: by "
            f"{interval_points(*pair.interval)} points, and {matter}. {rows}"
        )
    return (
        f"{case.rows:,} test rows cannot tell whether {pair.b} is as good as {pair.a}, and it does not "
        f"cost more. {pair.a} scored {points(pair.difference)} points higher (interval "
        f"{interval_points(*pair.interval)}), and {matter}. {rows}"
    )


def _cut_off(case: Case, best: ArmResult) -> Iterator[str]:
    for shares in _unlike(case, best, "truncated", "cut off"):
        yield (f"WARNING: {shares}. These scores do not compare like with like: allow longer answers and run again.")


def _form(case: Case, best: ArmResult) -> Iterator[str]:
    for attribute, what in (("empty", "empty"), ("invalid", "not readable as an answer")):
        for shares in _unlike(case, best, attribute, what):
            yield f"{shares}: part of the difference is form, not knowledge."


def _unlike(case: Case, best: ArmResult, attribute: str, what: str) -> Iterator[str]:
    """The shares of answers that are `what`, for arms that are far from the winner in this."""
    judged = case.winner or best
    own = getattr(judged, attribute)
    for arm in case.done:
        other = getattr(arm, attribute)
        if arm.name not in case.artefacts and own is not None and other is not None and abs(own - other) > UNLIKE_FORM:
            yield (f"{percent(other)} of {arm.name}'s answers were {what}, against {percent(own)} of {judged.name}'s")


def _few_rows(case: Case) -> Iterator[str]:
    if case.rows < FEW_ROWS:
        yield (
            f"Only {case.rows} test rows: every number here is rough. Use at least {FEW_ROWS}, better several hundred."
        )


def _required(kind: Kind, case: Case, best: ArmResult) -> Iterator[str]:
    required = case.decision.required_score
    if required is None or case.winner is None:
        return
    if best.mean < required:
        expected = expected_after_doubling(case.arms, case.learning_curve) or 0.0
        yield (
            f"WARNING: no arm reaches the required score of {percent(required)}, and twice the data "
            "is expected to "
            f"give only about {percent(expected)}. {case.winner.name} is the best choice of those "
            "measured, not good enough."
        )
        return
    low, high = case.intervals[case.winner.name]
    sure = "" if low >= required else f", but its interval ({interval_percent(low, high)}) reaches below it"
    yield f"{case.winner.name} reaches the required score of {percent(required)}{sure}."


def _compared(case: Case, best: ArmResult) -> Iterator[str]:
    for pair in sorted(case.comparisons, key=lambda c: (c.difference, c.b)):
        if pair.a != best.name or pair.b in case.doubtful:
            continue  # told in the headline
        yield (
            f"{best.name} against {pair.b}: {points(pair.difference)} points higher, interval "
            f"{interval_points(*pair.interval)}: "
            f"{finding(pair.interval, pair.equivalent, case.decision.minimum_effect)}."
        )


def _money(case: Case, best: ArmResult) -> Iterator[str]:
    decision, totals = case.decision, case.totals
    known = [(name, total) for name, total in totals.items() if total is not None]
    if known:
        listed = ", ".join(f"{name} {usd(total)}" for name, total in sorted(known, key=lambda item: (item[1], item[0])))
        yield (
            f"Total cost of {count(decision.requests_per_month * decision.horizon_months)} requests "
            f"({count(decision.requests_per_month)} a month for {decision.horizon_months:g} months), "
            "building "
            f"included: {listed}."
        )
    unknown = [arm.name for arm in case.done if totals[arm.name] is None]
    if unknown:
        yield f"The cost of {', '.join(unknown)} was not measured, so it could not win by being cheaper."
    if case.break_even is not None:
        yield _pays_back(case)


def _pays_back(case: Case) -> str:
    crossing = case.break_even
    assert crossing is not None
    if crossing.status == "already-cheaper":
        return f"{crossing.arm} is cheaper than {crossing.against} from the first request on."
    if crossing.requests is None:
        return f"{crossing.arm} never pays back against {crossing.against}: its requests cost no less."
    span = "how sure was not measured row by row"
    if crossing.requests.interval is not None:
        low, high = crossing.requests.interval
        span = f"interval {about(low)} to {about(high)}" if isfinite(high) else f"at least {about(low)}, maybe never"
    count = about(crossing.requests.estimate)
    requests = "1 request" if count == "1" else f"about {count} requests"
    words = f"{crossing.arm} pays back against {crossing.against} after {requests} ({span})."
    if crossing.correct is not None:
        words += f" For the same number of right answers, after about {about(crossing.correct.estimate)} of them."
    return words


def flip_words(flip: Flip) -> str:
    """Where the verdict turns, as a sentence."""
    to = VERDICT_WORDS[flip.to]
    way = "falls" if flip.side == "below" else "rises"
    if flip.of == "requests":
        bound = "under" if flip.side == "below" else "over"
        return f"The verdict becomes {to} if volume {way} {bound} about {about(flip.at)} requests in all."
    bound = "under" if flip.side == "below" else "over"
    what = {
        "usd_per_machine_hour": "the price of a machine hour",
        "usd_per_million_input": "the price of a million input tokens (output in proportion)",
    }[flip.of]
    return f"The verdict becomes {to} if {what} {way} {bound} {usd(flip.at)}; it is {usd(flip.now)} now."


def _sensitivity(case: Case) -> Iterator[str]:
    for flip in case.flips:
        yield flip_words(flip)


def _still_open(case: Case) -> Iterator[str]:
    if case.winner is None:
        return
    families = {arm.name: arm.family for arm in case.arms}
    for pair in case.comparisons:
        if pair.a != getattr(case.best, "name", None) or not pair.undetermined(case.decision.minimum_effect):
            continue
        if families[pair.b] == case.winner.family:
            if pair.b != case.winner.name:
                yield (f"{pair.b} may be as good as {pair.a}; it is {_word(case.winner)} too, so the verdict stands.")
        else:
            yield (
                f"{pair.b} may be as good as {pair.a}; it costs more or scored below what is required, so it does "
                "not win."
            )


def _doubling(kind: Kind, case: Case) -> Iterator[str]:
    curve = case.learning_curve
    if curve is not None and curve.gain is not None and kind != "more-data":
        span = f" (interval {interval_points(*curve.interval)})" if curve.interval else ""
        gain = f"{points(curve.gain)} points{span}"
        yield f"Twice the training data is expected to change the fine-tuned score by {gain}."


def _caveats(case: Case) -> Iterator[str]:
    for arm in case.done:
        if forgets_too_much(arm, case.probes, case.decision):
            yield (
                f"{arm.name} forgot more than is allowed ({points(case.decision.largest_forgetting or 0.0)} points of "
                "general questions), so it could not win."
            )
    if case.groups is not None:
        yield (
            f"The {case.rows:,} test rows come in {case.groups:,} groups; intervals and tests count groups, not rows."
        )
    if case.looks_at_test > 1:
        yield (
            f"This is verdict number {case.looks_at_test} from these test rows. Looking again is a chance more to err, "
            f"so it is stated at {100 * confidence_after(case.looks_at_test, case.decision.confidence):.4g} % instead "
            f"of {100 * case.decision.confidence:g} %; fresh test rows would lift that."
        )
    seeded = [arm for arm in case.done if arm.seeds > 1 and arm.seed_spread]
    for arm in seeded:
        yield (
            f"{arm.name} was trained with {arm.seeds} seeds, whose scores spread by {points(arm.seed_spread or 0.0)} "
            "points (standard deviation); its intervals carry that."
        )
    if case.price.source == "default" and any(total is not None for total in case.totals.values()):
        yield (
            f"Costs assume {usd(case.price.usd_per_machine_hour)} per machine hour ({case.price.as_of}): "
            f"{case.price.statement}."
        )


def _not_run(case: Case) -> Iterator[str]:
    for arm in case.arms:
        if not arm.done:
            ended = "failed" if arm.status == "failed" else f"was {arm.status}"
            yield f"{arm.name} ({_word(arm)}) {ended}" + (f": {arm.why.rstrip('.')}." if arm.why else ".")


def _not_measured(case: Case) -> Iterator[str]:
    """A winner among fewer ways than were wanted is not one over all of them, nor is a doubt between some of them."""
    if case.winner is not None or case.doubtful or case.artefacts:
        measured = {arm.family for arm in case.done}
        for family in sorted({arm.family for arm in case.arms} - measured):
            yield f"No {_FAMILY_WORDS[family]} arm was measured, so the verdict says nothing about that way."


def _cut_short(case: Case) -> Iterator[str]:
    """A training that the budget ended early says little about what a whole one would reach."""
    for arm in case.done:
        if arm.epochs is not None and arm.epochs[0] < _NEARLY * arm.epochs[1]:
            yield (
                f"{arm.name} went through its rows {arm.epochs[0]:.2g} times, where {arm.epochs[1]:g} times are wished "
                "for: the budget left no more. Longer it may score higher."
            )


def _scored(case: Case, arm: ArmResult) -> str:
    low, high = case.intervals[arm.name]
    confidence = 100 * confidence_after(case.looks_at_test, case.decision.confidence)
    return (
        f"it scored {percent(arm.mean)} on {case.rows:,} test rows "
        f"({confidence:.4g} % interval {interval_percent(low, high)})"
    )


def _cheaper(case: Case, arm: ArmResult, other: ArmResult) -> bool:
    own, others = case.totals[arm.name], case.totals[other.name]
    return own is not None and (others is None or float(f"{own:.9g}") < float(f"{others:.9g}"))


def _word(arm: ArmResult) -> str:
    return _FAMILY_WORDS[arm.family]
