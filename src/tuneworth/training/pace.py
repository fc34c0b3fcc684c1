"""The time that is left of a training, from its own measured steps and evaluations."""

from __future__ import annotations

import math

from tuneworth.training.records import Settings


class Pace:
    """Means over all steps and all evaluations so far: they settle, so what is shown neither jumps nor turns negative.

    The first step is left out once there is a second one: it uses memory that is new to the process and is slower.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._steps: list[float] = []
        self._evaluations: list[float] = []

    def step_took(self, seconds: float) -> None:
        """A step was measured."""
        self._steps.append(seconds)

    def evaluation_took(self, seconds: float) -> None:
        """An evaluation was measured."""
        self._evaluations.append(seconds)

    def seconds_left(self, step: int, seconds: float) -> float:
        """Seconds until the end, after `step` steps and `seconds` in all; never more than the clock still allows."""
        settings = self._settings
        counted = self._steps[1:] or self._steps
        a_step = sum(counted) / len(counted)
        a_look = sum(self._evaluations) / len(self._evaluations) if self._evaluations else settings.evaluation_seconds
        looks = math.ceil(settings.steps / settings.evaluate_every) - (step - 1) // settings.evaluate_every
        wanted = (settings.steps - step) * a_step + looks * a_look
        return max(0.0, min(wanted, settings.maximum_seconds - seconds + a_look))
