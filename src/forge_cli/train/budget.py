"""A budget of time: measure the first steps, then plan as many as fit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from forge_cli.train.callbacks.protocol import Callback, Run, Validation
from forge_cli.train.micro_batches import Batch
from forge_cli.train.step import Step

# These steps are the warm-up too: the curve behind it can still be given any length.
MEASURED = 4
# Of what is left after them: a machine is not always equally fast.
_MARGIN = 0.05


class Budget(Callback):
    """Chooses `progress.planned` after `MEASURED` steps. What was chosen is in the checkpoint.

    It is looked at again after twice as many steps, and so on: a machine that has become slower
    gets fewer. A session that resumes has a clock of its own, and keeps what was chosen.

    Args:
        seconds: from now to the end of training.
        plan: the batches of all steps, the most that is trained.
        valid_every: steps between validations, whose time counts.
        clock: seconds from some moment on.
    """

    def __init__(
        self,
        seconds: float,
        plan: Sequence[Sequence[Batch]],
        valid_every: int,
        started: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds, self.valid_every, self.clock = seconds, valid_every, clock
        self.started = clock() if started is None else started
        self._tokens = [sum(batch.tokens for batch in batches) for batches in plan]
        self._rows = [[name for batch in batches for name in batch.ids] for batches in plan]
        self._paces: list[float] = []
        self._validation = 0.0
        self._spent, self._passed, self._again = 0.0, 0, 0

    def on_validation(self, run: Run, validation: Validation) -> None:
        """One validation takes so long."""
        self._validation = max(self._validation, validation.seconds)

    def on_step(self, run: Run, step: Step) -> None:
        """Measure a step; after the last measured one, choose."""
        # The first of a process pays for what is set up once.
        if self._paces:
            self._spent, self._passed = self._spent + step.seconds, self._passed + step.tokens
        self._paces.append(step.seconds / max(1, step.tokens))
        left = self.seconds - (self.clock() - self.started)
        if not run.progress.planned and MEASURED <= step.step < run.steps:
            pace = statistics.median(self._paces[1:] or self._paces)
            run.progress.planned = self._fitting(step.step, pace, left * (1 - _MARGIN))
            self._again = 2 * step.step
            self._tell(run, pace)
        elif step.step == self._again:
            self._again *= 2
            self._hold(run, step.step, left)

    def _hold(self, run: Run, done: int, left: float) -> None:
        """Plan fewer steps where those planned no longer fit into `left` seconds."""
        pace = self._spent / max(1, self._passed)
        fitting = self._fitting(done, pace, left)
        if fitting < run.progress.planned:
            run.progress.planned = fitting
            run.reporter.note("steps take longer than the first ones did")
            self._tell(run, pace)

    def _fitting(self, done: int, pace: float, left: float) -> int:
        """Steps in all that fit into `left` seconds after `done`; at least `done`."""
        used = self._validation  # the last one, at the end
        for number in range(done, len(self._tokens)):
            used += self._tokens[number] * pace
            if (number + 1) % self.valid_every == 0:
                used += self._validation
            if used > left:
                return number
        return len(self._tokens)

    def _tell(self, run: Run, pace: float) -> None:
        steps, most = run.progress.planned, len(self._tokens)
        rows = {name for names in self._rows for name in names}
        trained = {name for names in self._rows[:steps] for name in names}
        each = pace * sum(self._tokens) / most
        told = f"budget: {steps} of {most} steps fit ({each:.1f} s each)"
        if missed := len(rows - trained):
            told += f"; {missed} of {len(rows)} rows are left out"
        if steps <= MEASURED < most:
            run.reporter.warn(f"{told}: measuring took it all; give more time")
        else:
            run.reporter.note(told)
