"""What would turn the verdict: the same rule, asked again with one input changed at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from tuneworth.decision.costs import at_machine_price, built_at, total_usd
from tuneworth.decision.records import ArmResult, Flip, Floats, Input, Kind, Side, Terms
from tuneworth.decision.rule import Evidence, rule
from tuneworth.task.schema import Decision

Totals = Mapping[str, float | None]
_SCALES = np.geomspace(1, 1e4, 41)[1:]  # how far an input is changed, either way
_HALVINGS = 20


def flips(evidence: Evidence, decision: Decision, terms: Terms, kind: Kind) -> tuple[Flip, ...]:
    """The nearest value of each input, above and below, at which the verdict would be another than `kind`.

    Inputs are the number of requests, the price of a machine hour, and the prices of tokens (all in proportion); one
    that turns nothing within a factor of 10,000 is not named.
    """
    arms, requests = evidence.arms, decision.requests_per_month * decision.horizon_months

    def at_volume(scale: float) -> Totals:
        return {arm.name: total_usd(arm, terms, requests * scale) for arm in arms}

    def at_price(scale: float) -> Totals:
        scaled = at_machine_price(terms, scale)
        return {arm.name: total_usd(built_at(arm, scale), scaled, requests) for arm in arms}

    def at_token_price(scale: float) -> Totals:
        return {arm.name: total_usd(_tokens_at(arm, scale), terms, requests) for arm in arms}

    tokens = [arm.token_price.usd_per_million_input for arm in arms if arm.token_price is not None]
    found: list[Flip] = []
    if requests > 0:
        found += _turns("requests", requests, at_volume, evidence, decision, kind)
    if terms.price.usd_per_machine_hour > 0:
        now = terms.price.usd_per_machine_hour
        found += _turns("usd_per_machine_hour", now, at_price, evidence, decision, kind)
    if tokens and max(tokens) > 0:
        found += _turns("usd_per_million_input", max(tokens), at_token_price, evidence, decision, kind)
    return tuple(found)


def _turns(
    of: Input,
    now: float,
    totals: Callable[[float], Totals],
    evidence: Evidence,
    decision: Decision,
    kind: Kind,
) -> Iterator[Flip]:
    def kind_at(scale: float) -> Kind:
        return rule(replace(evidence, totals=totals(scale)), decision).kind

    sides: tuple[tuple[Side, Floats], ...] = (("below", 1 / _SCALES), ("above", _SCALES))
    for side, scales in sides:
        same = 1.0
        for scale in scales:
            to = kind_at(float(scale))
            if to == kind:
                same = float(scale)
                continue
            other = float(scale)
            for _ in range(_HALVINGS):
                middle = (same * other) ** 0.5
                here = kind_at(middle)
                same, other, to = (middle, other, to) if here == kind else (same, middle, here)
            yield Flip(of, now, side, now * other, to)
            break


def _tokens_at(arm: ArmResult, scale: float) -> ArmResult:
    if arm.token_price is None:
        return arm
    price = arm.token_price
    scaled = replace(
        price,
        usd_per_million_input=price.usd_per_million_input * scale,
        usd_per_million_output=price.usd_per_million_output * scale,
    )
    return replace(arm, token_price=scaled)
