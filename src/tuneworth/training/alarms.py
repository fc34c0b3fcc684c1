"""What a training says when its loss does what it should not; nothing is smoothed away."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

RECENT_STEPS = 20
_ENOUGH_STEPS = 5
_SPIKE_RATIO, _SPIKE_RISE = 2.0, 0.5
_TOO_LOW, _TOO_EARLY = 0.01, 0.02


def alarm(loss: float, recent: Sequence[float], step: int, steps: int) -> str | None:
    """What is wrong with the loss of step `step` (from 1) of `steps`, if anything; `recent` are the losses before it.

    A spike is a loss over twice the median of the last 20 steps (at least 5) and over 0.5 above it. A loss under 0.01
    within the first 2 % of the steps means that nearly nothing is left to learn, which is rarely true (LAW 29).
    """
    if loss < _TOO_LOW and step <= max(1.0, _TOO_EARLY * steps):
        return (
            f"the loss is {loss:.4f} at step {step} of {steps}: the answers may stand in the prompts, or the template "
            "may have changed; look at a few rendered rows"
        )
    if len(recent) >= _ENOUGH_STEPS:
        usual = statistics.median(recent)
        if loss > max(_SPIKE_RATIO * usual, usual + _SPIKE_RISE):
            return f"loss spike: {loss:.3f} after a median of {usual:.3f} over the last {len(recent)} steps"
    return None
