"""The best checkpoint: what eval and export take up."""

from __future__ import annotations

from collections.abc import Callable

from forge_cli.train.callbacks.protocol import Callback, Run, Validation


class Best(Callback):
    """Calls `keep` after each validation that beats all before it."""

    def __init__(self, keep: Callable[[], None]) -> None:
        self.keep = keep

    def on_validation(self, run: Run, validation: Validation) -> None:
        """Keep the adapters, and say so."""
        if validation.best:
            self.keep()
        best = " (best)" if validation.best else ""
        run.reporter.note(f"step {validation.step}: valid loss {validation.loss:.4f}{best}")
