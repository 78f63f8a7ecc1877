"""What watches a run of training, and may end it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Reporter
from forge_cli.models.backend import nn
from forge_cli.train.checkpoint import Progress
from forge_cli.train.step import Step


class Abort(ForgeError):
    """Raised by a callback in `on_step`: save a checkpoint, then fail with this message."""


@dataclass(frozen=True)
class Validation:
    """A validation loss.

    Attributes:
        loss: mean cross-entropy per supervised token, in nats.
        best: whether it is lower than all before it.
        history: (step, loss) of every validation so far, this one last.
    """

    step: int
    loss: float
    best: bool
    seconds: float
    peak_bytes: int
    history: Sequence[tuple[int, float]]


@dataclass
class Run:
    """A run as callbacks see it.

    Attributes:
        out: the run directory. steps: planned optimiser steps.
        progress: the last finished step; a callback may lower its `max_tokens`.
        largest_tokens: of the largest batch in the plan.
        stop: why to end after this step, set by a callback: a last validation and a
            checkpoint follow.
        ended: whether training came to its end; false in `on_end` after an interrupt.
    """

    model: nn.Module
    out: Path
    steps: int
    largest_tokens: int
    reporter: Reporter
    progress: Progress = field(default_factory=Progress)
    stop: str = ""
    ended: bool = False


class Callback(Protocol):
    """Called by the loop, in the order the callbacks are given. Each default does nothing.

    A killed run goes on from its last checkpoint, so a callback may be told of the same
    step or validation twice: what it writes must not depend on how often.
    """

    def on_start(self, run: Run) -> None:
        """Before the first step, new or resumed."""
        return

    def on_step(self, run: Run, step: Step) -> None:
        """After each optimiser step. May raise `Abort`."""
        return

    def on_validation(self, run: Run, validation: Validation) -> None:
        """After a validation, before it is counted: an interrupt here repeats it."""
        return

    def on_checkpoint(self, run: Run, path: Path) -> None:
        """After a checkpoint was written."""
        return

    def on_end(self, run: Run) -> None:
        """At the end, also after an error or an interrupt."""
        return
