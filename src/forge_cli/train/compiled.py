"""The optimiser's update as one compiled graph: the part of a step whose shapes never change.

Forward and backward change shape with each context, so compiling them would trace anew for every
batch; of them mlx-lm compiles the elementwise parts itself. An update is the same few operations
on each of some hundred small arrays, most of them too small to pay for being launched.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from forge_cli.core.errors import UsageError
from forge_cli.models.backend import mx, nn, on_gpu

# What MLX starts on the CPU, at the first update, for each kernel that it fused.
_COMPILER = "g++"


def wants_compiled(setting: str) -> bool:
    """Whether "auto", "on" or "off" asks for a compiled update here: "auto" does on a GPU.

    Raises:
        UsageError: "on" where MLX computes on the CPU and there is no g++.
    """
    if setting == "on" and not on_gpu() and not shutil.which(_COMPILER):
        raise UsageError(
            f"compile_step: on: MLX needs {_COMPILER} for that on the CPU, and there is none",
            f"install {_COMPILER}, or leave compile_step at auto",
        )
    return setting == "on" or (setting == "auto" and on_gpu())


def compile_update(optimiser: Any) -> None:
    """Have `optimiser.apply_gradients` run compiled; its results stay what they were.

    The state goes in and comes out as arguments, so that a checkpoint may replace it.
    """
    plain = optimiser.apply_gradients

    def pure(gradients: Any, arrays: Any, state: Any) -> tuple[Any, Any]:
        optimiser.state = state
        return plain(gradients, arrays), optimiser.state

    traced = mx.compile(pure)

    def apply_gradients(gradients: Any, arrays: Any) -> Any:
        if isinstance(arrays, nn.Module):
            arrays = arrays.trainable_parameters()
        with _enabled():
            updated, optimiser.state = traced(gradients, arrays, optimiser.state)
        return updated

    optimiser.apply_gradients = apply_gradients


@contextmanager
def _enabled() -> Iterator[None]:
    """Compiling is switched off on the CPU for everything else (see `models.backend`)."""
    mx.enable_compile()
    try:
        yield
    finally:
        if not on_gpu():
            mx.disable_compile()
