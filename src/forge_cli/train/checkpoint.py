"""All that training needs to go on, in one file: arrays, optimiser, position, partial sums."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Reporter
from forge_cli.core.jsonl import atomic_file
from forge_cli.models.backend import mx
from forge_cli.train.step import Partial

_NAME = "step-{:08d}.safetensors"


@dataclass
class Progress:
    """Where training stands after `step` optimiser steps.

    Attributes:
        history: (step, validation loss), one for each validation.
        max_tokens: batches with more are run in parts (0: none is).
        rows: SHA-256 over the ids that were trained, in order.
        planned: steps that a budget of time has room for (0: all of the plan).
        keep_start: the adapters before the first step may be the best.
    """

    step: int = 0
    history: list[tuple[int, float]] = field(default_factory=list)
    max_tokens: int = 0
    rows: str = ""
    planned: int = 0
    keep_start: bool = True

    @property
    def best_loss(self) -> float:
        """The lowest validation loss, among those that count."""
        return min((loss for _, loss in self._counted), default=float("inf"))

    @property
    def best_step(self) -> int:
        """The first step that had it."""
        return min(self._counted, key=lambda at: at[1], default=(0, 0.0))[0]

    def is_best(self, loss: float) -> bool:
        """Whether a validation loss that is not in the history yet is lower than all before."""
        before = [old for at, old in self.history if self.keep_start or at]
        return loss < min(before, default=float("inf"))

    @property
    def _counted(self) -> list[tuple[int, float]]:
        trained = [at for at in self.history if at[0]]
        return self.history if self.keep_start or not trained else trained

    @property
    def validated(self) -> int:
        """The last step with a validation loss (-1: none)."""
        return self.history[-1][0] if self.history else -1


@dataclass
class State:
    """What a checkpoint holds.

    Attributes:
        adapters: trained arrays by name.
        optimiser: the optimiser's state tree.
        partial: what an interrupted step had added up.
        random: the state of MLX's random numbers, uint32 [2] (None: as it is now).
    """

    adapters: dict[str, mx.array]
    optimiser: Any
    progress: Progress
    partial: Partial = field(default_factory=Partial)
    random: mx.array | None = None

    def restore_random(self) -> None:
        """Let MLX's random numbers go on from where they were."""
        if self.random is not None:
            # The state is a key, and the key of a seed is the seed's two halves.
            high, low = cast(list[int], self.random.tolist())
            mx.random.seed(high << 32 | low)


def random_state() -> mx.array:
    """The state of MLX's random numbers, uint32 [2]."""
    return mx.array(cast(Any, mx.random.state)[0])


def save(path: Path, state: State) -> None:
    """Write the checkpoint: a temporary file, synced, renamed, its folder synced.

    Raises:
        ForgeError: the disk is full or cannot be written; what was there is untouched.
    """
    from mlx.utils import tree_flatten

    arrays = {f"adapter/{name}": value for name, value in state.adapters.items()}
    arrays |= {f"optimiser/{name}": value for name, value in tree_flatten(state.optimiser)}
    arrays |= {f"gradient/{name}": value for name, value in state.partial.gradients.items()}
    arrays["random"] = random_state() if state.random is None else state.random
    # JSON keeps every bit of a float, as repr does.
    metadata = {
        "progress": json.dumps(asdict(state.progress)),
        "partial": json.dumps(vars(replace(state.partial, gradients={}))),
    }
    with atomic_file(path) as stream:
        # Sorted, so that the same state makes the same bytes.
        mx.save_safetensors(cast(BinaryIO, stream), dict(sorted(arrays.items())), metadata)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: Path) -> State:
    """The checkpoint in `path`.

    Raises:
        ForgeError: the file cannot be read.
    """
    from mlx.utils import tree_unflatten

    try:
        loaded = mx.load(str(path), return_metadata=True)
        arrays, metadata = cast(tuple[dict[str, mx.array], dict[str, str]], loaded)
        progress = Progress(**json.loads(metadata["progress"]))
        partial = Partial(**json.loads(metadata["partial"]))
        random = arrays["random"]
        mx.eval(arrays)  # a file that is cut short fails here, not in the middle of training
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise ForgeError(f"{path}: not a usable checkpoint: {error}", "use --fresh") from None
    progress.history = [(step, loss) for step, loss in progress.history]

    def part(prefix: str) -> dict[str, mx.array]:
        return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

    partial = replace(partial, gradients=part("gradient/"))
    optimiser = tree_unflatten(list(part("optimiser/").items()))
    return State(part("adapter/"), optimiser, progress, partial, random)


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` stands."""
    return folder / _NAME.format(step)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def prune(folder: Path, *, keep_last: int, best_step: int) -> None:
    """Keep the last checkpoints and that of the best step."""
    found = checkpoints(folder)
    for file in set(found) - {*found[-keep_last:], path_of(folder, best_step)}:
        file.unlink()


def sweep(out: Path) -> None:
    """Drop what a process that was killed left half-written in the run directory `out`."""
    patterns = ["checkpoints/.step-*", "adapters/.*.safetensors.*", "adapters/.config.json.*"]
    patterns += [f".{name}.*" for name in ("metrics.jsonl", "samples.jsonl", "report.html")]
    for pattern in patterns:
        for file in out.glob(pattern):
            file.unlink()


def newest(folder: Path, reporter: Reporter) -> Path | None:
    """The newest checkpoint that can be read."""
    state = load_newest(folder, reporter) if checkpoints(folder) else None
    return path_of(folder, state.progress.step) if state else None


def load_newest(folder: Path, reporter: Reporter) -> State | None:
    """The newest checkpoint that can be read; None where there is none at all.

    Raises:
        ForgeError: none of those that are there can be read.
    """
    fault: ForgeError | None = None
    for file in reversed(checkpoints(folder)):
        try:
            state = load(file)
        except ForgeError as error:
            fault = fault or error
            continue
        if fault:
            reporter.warn(f"{fault.message}; going on from {file.name}")
        return state
    if fault:
        raise fault
    return None
