"""The line beside the progress bar: loss, speed, memory, and the time left."""

from __future__ import annotations

import time

from forge_cli.train.step import Step


class Pace:
    """How fast this session goes, validations and checkpoints included.

    Args:
        first: steps that were done before this session. steps: planned in all.
    """

    def __init__(self, first: int, steps: int) -> None:
        self.first, self.steps = first, steps
        self.started = time.monotonic()

    def describe(self, done: Step) -> str:
        """The line after a step."""
        seconds = max(done.seconds, 1e-9)
        return (
            f"loss {done.loss:.3f} · {done.tokens / seconds:,.0f} tokens/s "
            f"({done.supervised_tokens / seconds:,.0f} supervised) · "
            f"{done.step_bytes / 1e9:.1f} GB · {self._left(done.step)} left"
        )

    def _left(self, step: int) -> str:
        each = (time.monotonic() - self.started) / max(1, step - self.first)
        seconds = round(each * (self.steps - step))
        hours, minutes = seconds // 3600, seconds % 3600 // 60
        return f"{hours} h {minutes:02} min" if hours else f"{minutes}:{seconds % 60:02} min"
