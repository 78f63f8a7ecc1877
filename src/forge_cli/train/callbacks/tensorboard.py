"""TensorBoard: the curves of a run as event files in `tensorboard/` of the run directory."""

from __future__ import annotations

from typing import Any

from forge_cli.train.callbacks.extras import need, step_scalars
from forge_cli.train.callbacks.protocol import Callback, Run, Validation
from forge_cli.train.step import Step


class TensorBoard(Callback):
    """Writes through tensorboardX, which needs neither torch nor TensorFlow.

    Raises:
        UsageError: it is not installed.
    """

    def __init__(self) -> None:
        self._module = need("tensorboardX", extra="tensorboard")
        self._writer: Any = None

    def on_start(self, run: Run) -> None:
        """Open the writer; what was written beyond the checkpoint is purged."""
        folder = str(run.out / "tensorboard")
        purge = run.progress.step + 1 if run.progress.step else None
        self._writer = self._module.SummaryWriter(folder, purge_step=purge)

    def on_step(self, run: Run, step: Step) -> None:
        """Add the step's scalars."""
        for name, value in step_scalars(step).items():
            self._writer.add_scalar(name, value, step.step)

    def on_validation(self, run: Run, validation: Validation) -> None:
        """Add the validation loss."""
        self._writer.add_scalar("valid/loss", validation.loss, validation.step)
        self._writer.flush()

    def on_end(self, run: Run) -> None:
        """Close the files."""
        if self._writer:
            self._writer.close()
