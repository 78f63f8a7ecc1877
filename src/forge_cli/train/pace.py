"""The line beside the progress bar: loss, speed, memory, and the time left."""

from __future__ import annotations

import time

from forge_cli.train.step import Step


class Pace:
    """How fast this session goes, validations and checkpoints included.

    Args:
        first: steps that were done before this session.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        self.started = time.monotonic()

    def describe(self, done: Step, steps: int | None) -> str:
        """The line after a step of `steps` (None: not known yet)."""
        seconds = max(done.seconds, 1e-9)
        return (
            f"loss {done.loss:.3f} · {done.tokens / seconds:,.0f} tokens/s "
            f"({done.supervised_tokens / seconds:,.0f} supervised) · "
            f"{done.step_bytes / 1e9:.1f} GB · {self._left(done.step, steps)}"
        )

    def _left(self, step: int, steps: int | None) -> str:
        if steps is None:
            return "measuring"
        each = (time.monotonic() - self.started) / max(1, step - self.first)
        seconds = round(each * (steps - step))
        hours, minutes = seconds // 3600, seconds % 3600 // 60
        if hours:
            return f"{hours} h {minutes:02} min left"
        return f"{minutes}:{seconds % 60:02} min left"
