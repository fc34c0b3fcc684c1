"""The time that is left of a training, and how many steps fit into it, from its own measured steps and evaluations."""

from __future__ import annotations

import math
from dataclasses import replace

from tuneworth.training.records import Settings


class Pace:
    """Means over all steps and all evaluations so far: they settle, so what is shown neither jumps nor turns negative.

    The first step is left out once there is a second one: it uses memory that is new to the process and is slower.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._steps: list[float] = []
        self._evaluations: list[float] = []
        self._expected = settings.evaluation_seconds
        self._maximum = settings.maximum_seconds

    def step_took(self, seconds: float) -> None:
        """A step was measured."""
        self._steps.append(seconds)

    def evaluation_took(self, seconds: float) -> None:
        """An evaluation was measured."""
        self._evaluations.append(seconds)

    def evaluation_will_take(self, seconds: float) -> None:
        """What an evaluation takes was reckoned anew; it counts until one has been measured."""
        self._expected = seconds

    def saving_took(self, seconds: float) -> None:
        """Saving the state after the last evaluation was measured; it is a part of what an evaluation takes."""
        self._evaluations[-1] += seconds

    def after_takes(self, seconds: float) -> None:
        """What comes after the training was measured; `maximum_seconds` reckoned with `seconds_after`."""
        if self._settings.seconds_after:
            self._maximum = self._settings.maximum_seconds + self._settings.seconds_after - seconds

    @property
    def a_step(self) -> float:
        """Seconds of a step."""
        counted = self._steps[1:] or self._steps
        return sum(counted) / len(counted)

    @property
    def _a_look(self) -> float:
        known = self._evaluations
        return sum(known) / len(known) if known else self._expected

    def is_up(self, seconds: float) -> bool:
        """Whether there is no time for one more step and the evaluation after it, `seconds` after the start."""
        return seconds + self.a_step + self._a_look > self._maximum

    def seconds_left(self, step: int, seconds: float) -> float:
        """Seconds until the end, after `step` steps and `seconds` in all; never more than the clock still allows."""
        settings = self._settings
        wanted = (settings.steps - step) * self.a_step + _looks(settings, step - 1) * self._a_look
        return max(0.0, min(wanted, self._maximum - seconds))

    def settled(self, settings: Settings, step: int, seconds: float) -> Settings:
        """`settings` with as many steps as fit, at most `most_steps`, seen after the evaluation at `step`.

        The evaluations that are still to come stay as many as they were. A rate that was measured on a few batches is
        wrong by a fifth now and then, and the steps at the end, where the learning rate falls to zero, are worth most.
        """
        room = self._maximum - seconds
        if settings.most_steps is None or room == math.inf:
            return settings
        looks = _looks(settings, step)
        more = max(1, min(settings.most_steps - step, int((room - looks * self._a_look) / self.a_step)))
        every = math.ceil(more / looks)
        self._settings = replace(settings, steps=step + more, evaluate_every=every, settled_at=step)
        return self._settings


def _looks(settings: Settings, step: int) -> int:
    """Evaluations after more than `step` steps."""
    every, from_ = settings.evaluate_every, settings.settled_at
    return math.ceil((settings.steps - from_) / every) - (step - from_) // every
