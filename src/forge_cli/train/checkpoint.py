"""One file that holds all that training needs to go on: arrays, optimiser state, position."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from forge_cli.core.errors import ForgeError
from forge_cli.core.jsonl import atomic_file
from forge_cli.models.backend import mx


@dataclass
class Progress:
    """Where training stands after `step` optimiser steps."""

    step: int = 0
    best_loss: float = float("inf")
    best_step: int = 0
    validated: int = -1  # the last step with a validation loss


def save(path: Path, adapters: dict[str, mx.array], optimiser: Any, progress: Progress) -> None:
    """Write the checkpoint atomically."""
    from mlx.utils import tree_flatten

    arrays = {f"adapter/{name}": value for name, value in adapters.items()}
    arrays |= {f"optimiser/{name}": value for name, value in tree_flatten(optimiser.state)}
    # repr keeps every bit of a float.
    metadata = {name: repr(value) for name, value in vars(progress).items()}
    with atomic_file(path) as stream:
        mx.save_safetensors(cast(BinaryIO, stream), arrays, metadata=metadata)


def load(path: Path) -> tuple[dict[str, mx.array], Any, Progress]:
    """Adapters by name, the optimiser's state tree, and the position.

    Raises:
        ForgeError: the file cannot be read.
    """
    from mlx.utils import tree_unflatten

    try:
        loaded = mx.load(str(path), return_metadata=True)
        arrays, metadata = cast(tuple[dict[str, mx.array], dict[str, str]], loaded)
        progress = Progress(
            int(metadata["step"]),
            float(metadata["best_loss"]),
            int(metadata["best_step"]),
            int(metadata["validated"]),
        )
    except (RuntimeError, KeyError, ValueError) as error:
        raise ForgeError(f"{path}: not a usable checkpoint: {error}", "use --fresh") from None

    def part(prefix: str) -> dict[str, mx.array]:
        return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

    return part("adapter/"), tree_unflatten(list(part("optimiser/").items())), progress
