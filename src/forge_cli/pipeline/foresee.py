"""What training with some settings would take, before there is data or a model."""

from __future__ import annotations

from typing import Any

from forge_cli.core.config import Settings
from forge_cli.core.places import cache_dir

# Rows of one context that run together, at the most (see train.batches).
_ROWS = 8


def peak_bytes(settings: Settings, *, gpu: bool | None = None) -> int | None:
    """Bytes at the peak with contexts that fill max_tokens.

    Args:
        gpu: whether MLX computes on one (None: as it does here).

    Returns:
        None where the model's shapes are not known here.
    """
    from forge_cli.models.known_shapes import KNOWN
    from forge_cli.train.fitting import read_scale, scale_file
    from forge_cli.train.memory_plan import fullest_load, plan_memory
    from forge_cli.train.preview import training_of

    shapes = KNOWN.get(settings.model)
    if shapes is None:
        return None
    load = fullest_load(settings.max_tokens, _ROWS)
    scale = read_scale(scale_file(cache_dir() / "memory", settings.model)) if gpu is None else 1.0
    how = training_of(settings.model_dump())
    return plan_memory(shapes, how, load, scale=scale, gpu=gpu).peak


def recipe_peak(name: str, values: dict[str, Any]) -> int | None:
    """The peak with a recipe: on a Mac's GPU where its name says so, else on this machine."""
    return peak_bytes(Settings(**values), gpu=True if name.startswith("mac-") else None)
