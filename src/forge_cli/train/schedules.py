"""How the learning rate goes over the steps: warm-up first, then the curve that is named."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from forge_cli.core.config import ScheduleName as Kind

__all__ = ["Kind", "Schedule"]


@dataclass(frozen=True)
class Schedule:
    """A linear warm-up over `warmup` of the steps, then `kind`.

    Attributes:
        peak: the highest learning rate.
        steps: optimiser steps in all.
        warmup: share of the steps that rise.
        kind: cosine and linear fall from the peak to zero; constant stays; wsd
            (warm-up, stable, decay: MiniCPM, arXiv 2404.06395) stays, then falls linearly.
        decay: wsd only: share of the steps that fall.
    """

    peak: float
    steps: int
    warmup: float
    kind: Kind = "cosine"
    decay: float = 0.2

    @property
    def rise(self) -> int:
        """Steps of the warm-up."""
        return max(1, round(self.steps * self.warmup))

    def shortened(self, steps: int) -> Schedule:
        """The same over `steps` steps, with a warm-up as long as before."""
        return replace(self, steps=steps, warmup=self.rise / steps)

    def __call__(self, step: int) -> float:
        """The learning rate of step `step`, counted from 0."""
        rise = self.rise
        if step < rise:
            return self.peak * (step + 1) / rise
        if self.kind == "constant":
            return self.peak
        # A fall of 0 steps is none: wsd with decay 0 is constant.
        fall = self.steps - rise
        if self.kind == "wsd":
            fall = min(fall, round(self.steps * self.decay))
        done = (step - (self.steps - fall)) / max(1, fall)
        if done <= 0:
            return self.peak
        if self.kind == "cosine":
            return self.peak * 0.5 * (1 + math.cos(math.pi * done))
        return self.peak * max(0.0, 1 - done)
