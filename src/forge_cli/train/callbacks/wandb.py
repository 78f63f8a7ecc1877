"""Weights & Biases: the curves of a run there, or offline in `wandb/` of the run directory."""

from __future__ import annotations

import hashlib
from typing import Any

from forge_cli.train.callbacks.extras import need, step_scalars
from forge_cli.train.callbacks.protocol import Callback, Run, Validation
from forge_cli.train.step import Step


class WandB(Callback):
    """One W&B run for each run directory, gone on with when training resumes.

    Account, project and mode are W&B's own: WANDB_API_KEY, WANDB_PROJECT, WANDB_MODE.

    Raises:
        UsageError: it is not installed.
    """

    def __init__(self) -> None:
        self._module = need("wandb", extra="wandb")
        self._run: Any = None

    def on_start(self, run: Run) -> None:
        """Open the run."""
        where = str(run.out.resolve())
        identity = hashlib.sha256(where.encode()).hexdigest()[:16]
        self._run = self._module.init(
            dir=where, id=identity, name=run.out.name, resume="allow", config={"steps": run.steps}
        )

    def on_step(self, run: Run, step: Step) -> None:
        """Log the step's scalars."""
        self._run.log(step_scalars(step), step=step.step)

    def on_validation(self, run: Run, validation: Validation) -> None:
        """Log the validation loss."""
        self._run.log({"valid/loss": validation.loss}, step=validation.step)

    def on_end(self, run: Run) -> None:
        """Close the run."""
        if self._run:
            self._run.finish(exit_code=0 if run.ended else 1)
