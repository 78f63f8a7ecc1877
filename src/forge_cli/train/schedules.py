"""How the learning rate goes over the steps: warm-up first, then the curve that is named."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from forge_cli.core.config import ScheduleName as Kind

__all__ = ["Kind", "Schedule", "suited_rate"]

# About where the validation loss of SmolLM2-135M, 576 wide, is least after 40 steps (QPiSSA 9e-4,
# PiSSA 1.3e-3, LoRA 5.3e-3, `benchmarks/pissa.py`): twice that costs more than half of it.
# Carried to other widths by the exponent that "LoRA Without Regret" (Schulman et al., 2025) found
# on Llama.
_RATES, _WIDTH, _EXPONENT = {"pissa": 1e-3, "lora": 4e-3}, 576, 0.781
# Whose A and B are principal parts of W: they begin large, and want smaller steps.
_PRINCIPAL = ("pissa", "qpissa")
# DPO moves a model that knows the task already.
_OF_DPO = 0.1


def suited_rate(config: Mapping[str, Any], init: str, loss: str) -> float:
    """A peak learning rate by how the adapters start and by the width of a model's states.

    PiSSA: 1e-3 for SmolLM2-135M, 2.2e-4 for a width of 4096; LoRA four times as much; a tenth
    for loss "dpo".

    Args:
        config: the model's config.json.
    """
    width = config.get("text_config", config)["hidden_size"]
    rate = _RATES["pissa" if init in _PRINCIPAL else "lora"] * (_WIDTH / width) ** _EXPONENT
    return float(rate * (_OF_DPO if loss == "dpo" else 1.0))


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
