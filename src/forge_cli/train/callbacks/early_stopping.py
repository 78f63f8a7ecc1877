"""Stop when validation no longer gets better."""

from __future__ import annotations

from collections.abc import Sequence

from forge_cli.train.callbacks.protocol import Callback, Run, Validation


class EarlyStopping(Callback):
    """Asks to stop after `patience` validations that are not `min_delta` better than the best.

    It keeps nothing itself: the history of validations decides, so a resumed run stops
    where an uninterrupted one does.
    """

    def __init__(self, patience: int, min_delta: float = 0.0) -> None:
        self.patience, self.min_delta = patience, min_delta

    def on_start(self, run: Run) -> None:
        """A run that had stopped does not go on."""
        self._judge(run, run.progress.history)

    def on_validation(self, run: Run, validation: Validation) -> None:
        """Judge the history with the new loss."""
        self._judge(run, validation.history)

    def _judge(self, run: Run, history: Sequence[tuple[int, float]]) -> None:
        best, since = float("inf"), 0
        for _, loss in history:
            if loss < best - self.min_delta:
                best, since = loss, 0
            else:
                since += 1
        if since >= self.patience:
            run.stop = f"no better valid loss in {since} validations"
