"""The callbacks of a run, in the order in which they are called."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from forge_cli.core.errors import UsageError
from forge_cli.core.records import Example
from forge_cli.models.load import Loaded
from forge_cli.train.callbacks.best import Best
from forge_cli.train.callbacks.early_stopping import EarlyStopping
from forge_cli.train.callbacks.memory import Memory
from forge_cli.train.callbacks.metrics import Metrics
from forge_cli.train.callbacks.mlflow import MLflow
from forge_cli.train.callbacks.protocol import Abort, Callback, Run, Validation
from forge_cli.train.callbacks.report import Report
from forge_cli.train.callbacks.samples import Samples
from forge_cli.train.callbacks.tensorboard import TensorBoard
from forge_cli.train.callbacks.wandb import WandB

TRACKERS: dict[str, Callable[[], Callback]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


def make_trackers(names: Sequence[str]) -> list[Callback]:
    """The callbacks that log to other programs.

    Raises:
        UsageError: an unknown name, or a program that is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise UsageError(f"track {name}: unknown", f"known: {', '.join(TRACKERS)}")
    return [TRACKERS[name]() for name in names]


def make_callbacks(
    loaded: Loaded,
    valid: Sequence[Example],
    keep_best: Callable[[], None],
    *,
    title: str,
    memory_bytes: int,
    patience: int,
    min_delta: float,
    sample_every: int,
    sample_rows: int,
    sample_tokens: int = 128,
) -> list[Callback]:
    """What the settings ask for; metrics, memory, best adapters and report always."""
    # Metrics first: the others read its rows. Memory last: what it raises ends the step.
    found: list[Callback] = [Metrics(), Best(keep_best)]
    if patience:
        found.append(EarlyStopping(patience, min_delta))
    if sample_every:
        rows = valid[:sample_rows]
        found.append(Samples(loaded, rows, every=sample_every, max_tokens=sample_tokens))
    return [*found, Report(title), Memory(memory_bytes)]


__all__ = [
    "Abort", "Best", "Callback", "EarlyStopping", "MLflow", "Memory", "Metrics", "Report", "Run",
    "Samples", "TensorBoard", "Validation", "WandB", "make_callbacks", "make_trackers",
]  # fmt: skip
