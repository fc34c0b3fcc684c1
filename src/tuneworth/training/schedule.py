"""The learning rate of every step, as a closed form (LAW 4)."""

from __future__ import annotations

import math

from tuneworth.training.records import Settings

_DECAY_SHARE = 0.2  # of the steps, at the end of warmup-stable-decay


def learning_rate(settings: Settings, step: int) -> float:
    """The learning rate of optimiser step `step` (from 0): a linear rise, then by `settings.schedule`.

    `linear` falls to 0 at the end, `cosine` falls as half a cosine (Loshchilov & Hutter 2017), `warmup-stable-decay`
    stays at the peak and falls linearly over the last fifth of the steps (Hu et al. 2024, arXiv:2404.06395).
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    left = (settings.steps - step) / max(1, settings.steps - settings.warmup_steps)
    if settings.schedule == "cosine":
        return settings.learning_rate * (1 - math.cos(math.pi * left)) / 2
    if settings.schedule == "warmup-stable-decay":
        decay = min(settings.steps - settings.warmup_steps, math.ceil(_DECAY_SHARE * settings.steps))
        return settings.learning_rate * min(1.0, (settings.steps - step) / max(1, decay))
    return settings.learning_rate * left
