"""What the callbacks for other programs share: their import, and the scalars of a step."""

from __future__ import annotations

import importlib
from typing import Any

from forge_cli.core.errors import UsageError
from forge_cli.train.step import Step


def need(module: str, *, extra: str) -> Any:
    """The module of an optional dependency.

    Raises:
        UsageError: it is not installed; the hint says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"track {extra}: cannot import {module}: {error}",
            f"install it: pip install 'forge-cli[{extra}]'",
        ) from None


def step_scalars(step: Step) -> dict[str, float]:
    """The curves of a step by name."""
    seconds = max(step.seconds, 1e-9)
    return {
        "train/loss": step.loss,
        "train/learning_rate": step.learning_rate,
        "train/gradient_norm": step.gradient_norm,
        "train/tokens_per_second": step.tokens / seconds,
        "train/supervised_tokens_per_second": step.supervised_tokens / seconds,
        "train/peak_bytes": float(step.peak_bytes),
    }
