"""MLflow: the curves of a run in its tracking store."""

from __future__ import annotations

import os
from typing import Any

from forge_cli.train.callbacks.extras import need, step_scalars
from forge_cli.train.callbacks.protocol import Callback, Run, Validation
from forge_cli.train.step import Step

_RUN_ID = "mlflow-run.txt"


class MLflow(Callback):
    """One MLflow run for each run directory, gone on with when training resumes.

    The store is MLFLOW_TRACKING_URI; without it, `mlflow.db` of the run directory.

    Raises:
        UsageError: it is not installed.
    """

    def __init__(self) -> None:
        self._module = need("mlflow", extra="mlflow")
        self._open: Any = None

    def on_start(self, run: Run) -> None:
        """Open the run, or the one that was open before."""
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            self._module.set_tracking_uri(f"sqlite:///{run.out.resolve() / 'mlflow.db'}")
        kept = run.out / _RUN_ID
        resumed = kept.read_text().strip() if kept.exists() and run.progress.step else None
        self._open = self._module.start_run(run_id=resumed, run_name=run.out.name)
        kept.write_text(self._open.info.run_id + "\n")

    def on_step(self, run: Run, step: Step) -> None:
        """Log the step's scalars."""
        self._module.log_metrics(step_scalars(step), step=step.step)

    def on_validation(self, run: Run, validation: Validation) -> None:
        """Log the validation loss."""
        self._module.log_metrics({"valid/loss": validation.loss}, step=validation.step)

    def on_end(self, run: Run) -> None:
        """Close the run."""
        if self._open:
            self._module.end_run("FINISHED" if run.ended else "KILLED")
