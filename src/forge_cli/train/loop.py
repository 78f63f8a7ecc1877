"""The training loop: steps, validations, checkpoints; exact when it is interrupted."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Reporter, Task
from forge_cli.models.adapters import adapter_arrays
from forge_cli.models.backend import mx, nn
from forge_cli.train import checkpoint
from forge_cli.train.callbacks.protocol import Abort, Callback, Run, Validation
from forge_cli.train.checkpoint import Progress, State
from forge_cli.train.distributed import ALONE, Lost, World, deal
from forge_cli.train.micro_batches import Batch, Loss, group_loss, split_batch
from forge_cli.train.pace import Pace
from forge_cli.train.schedules import Schedule
from forge_cli.train.step import Around, Partial, Stepper, nothing

__all__ = ["Loop", "Schedule", "fit", "mean_loss"]


@dataclass
class Loop:
    """All that `fit` needs; nothing in it is a setting of the command line.

    Attributes:
        plan: the batches of each optimiser step.
        loss, valid_loss: of a batch to train and to validate on.
        valid: the fixed batches to validate on.
        out: the run directory; checkpoints go to its checkpoints/.
        save_every: steps between checkpoints, besides those after validations (0: none).
        keep_last: checkpoints to keep, besides that of the best step.
        keep_start: the adapters before the first step may be the best.
        split: cuts a batch into parts of at most so many tokens.
        max_tokens: of a pass through the model, when training starts (0: no limit).
        around: what surrounds each forward pass of training, such as noise.
        budgeted: a callback plans fewer steps, once it has measured some.
        world: the processes that share the batches of each step; rank 0 writes.
    """

    model: nn.Module
    loss: Loss
    plan: Sequence[Sequence[Batch]]
    valid: Sequence[Batch]
    optimiser: Any
    schedule: Schedule
    clip: float
    valid_every: int
    out: Path
    reporter: Reporter
    callbacks: Sequence[Callback] = ()
    save_every: int = 0
    keep_last: int = 2
    keep_start: bool = True
    split: Callable[[Batch, int], list[Batch]] = split_batch
    max_tokens: int = 0
    around: Around = nothing
    budgeted: bool = False
    valid_loss: Loss = group_loss
    world: World = ALONE

    @property
    def folder(self) -> Path:
        """Where the checkpoints are."""
        return self.out / "checkpoints"


def mean_loss(model: nn.Module, data: Sequence[Any], loss: Loss = group_loss) -> float:
    """Sum of losses over sum of supervised tokens, over all of `data`, in nats.

    Not a number where no token is supervised.
    """
    total, count = _sums(model, data, loss)
    return total / count if count else math.nan


def _sums(model: nn.Module, data: Sequence[Any], loss: Loss) -> tuple[float, float]:
    total, count = 0.0, 0.0
    for item in data:
        losses, of = loss(model, item)
        total += float(losses)
        count += float(of)
        mx.clear_cache()
    return total, count


def fit(loop: Loop) -> Progress:
    """Train to the end of the plan, from the newest checkpoint where there is one.

    Ctrl-C saves a checkpoint, within a step what its batches added up so far, before it
    goes on up; the same command resumes from it.

    Raises:
        ForgeError: a loss is not a number, a batch carries none, a checkpoint that does
            not belong to this model and these rows, or what a callback raises.
    """
    stepper = Stepper(
        loop.model, loop.loss, loop.optimiser, clip=loop.clip, split=loop.split,
        around=loop.around, world=loop.world,
    )  # fmt: skip
    largest = max(batch.tokens for batches in loop.plan for batch in batches)
    run = Run(loop.model, loop.out, len(loop.plan), largest, loop.reporter)
    run.progress = _resume(loop, stepper)
    _agree(loop, run)
    _shorten(loop, run)
    with ExitStack() as at_end, loop.reporter.task("training", run.steps) as task:
        for callback in loop.callbacks:
            at_end.callback(callback.on_end, run)
            callback.on_start(run)
        task.advance(run.progress.step)
        try:
            _train(loop, run, stepper, task)
        except KeyboardInterrupt:
            _interrupted(loop, run, stepper)
            loop.world.check(interrupted=True)
            raise
        except (Abort, Lost):
            _save(loop, run, stepper)
            raise
        run.ended = True
    return run.progress


def _train(loop: Loop, run: Run, stepper: Stepper, task: Task) -> None:
    progress, pace = run.progress, Pace(run.progress.step)
    saved = progress.step if progress.step or progress.history else -1
    while True:
        ending = bool(run.stop) or progress.step >= run.steps
        due = ending or progress.step % loop.valid_every == 0
        if due and progress.validated < progress.step:
            _validate(loop, run, stepper)
            _agree(loop, run)
            saved = _save(loop, run, stepper)
        elif loop.save_every and progress.step % loop.save_every == 0 and saved < progress.step:
            saved = _save(loop, run, stepper)
        if run.stop or progress.step >= run.steps:
            break
        stepper.max_tokens = progress.max_tokens
        batches, rate = loop.plan[progress.step], loop.schedule(progress.step)
        done = stepper.step(batches, progress.step, rate)
        progress.step, progress.rows = done.step, _hash_rows(progress.rows, batches)
        for callback in loop.callbacks:
            callback.on_step(run, done)
        stepper.updating = False
        _agree(loop, run)
        if _shorten(loop, run):
            task.resize(run.steps)
        known = not loop.budgeted or progress.planned
        task.advance(1, pace.describe(done, run.steps if known else None))
    if run.stop and progress.step < run.steps:
        loop.reporter.note(f"stopped early, after step {progress.step}: {run.stop}")


def _agree(loop: Loop, run: Run) -> None:
    """Take rank 0's word on when to stop, and the smallest of all limits on a pass."""
    if loop.world.size == 1:
        return
    progress = run.progress
    told = loop.world.gather([run.stop, progress.planned, progress.max_tokens])
    run.stop, progress.planned, _ = told[0]
    progress.max_tokens = min((most for *_, most in told if most), default=0)


def _shorten(loop: Loop, run: Run) -> bool:
    """Hold the plan to what a budget of time has room for; whether that changed it."""
    planned = run.progress.planned
    if not 0 < planned < len(loop.plan):
        return False
    loop.plan, loop.schedule = loop.plan[:planned], loop.schedule.shortened(planned)
    run.steps = planned
    return True


def _validate(loop: Loop, run: Run, stepper: Stepper) -> None:
    progress, started = run.progress, time.perf_counter()
    with _own_random():
        loop.model.eval()
        loss = _valid_loss(loop)
        validation = Validation(
            step=progress.step,
            loss=loss,
            best=progress.is_best(loss),
            seconds=time.perf_counter() - started,
            peak_bytes=stepper.note_peak(),
            history=[*progress.history, (progress.step, loss)],
        )
        if not math.isfinite(loss):
            raise ForgeError(
                f"step {progress.step}: the validation loss is not a number",
                "lower learning_rate; the last checkpoint is kept",
            )
        for callback in loop.callbacks:
            callback.on_validation(run, validation)
    # Noted when all is kept: an interrupt before this validates again.
    progress.history = list(validation.history)


def _valid_loss(loop: Loop) -> float:
    """The mean over all rows to validate on; each rank runs its share."""
    world = loop.world
    share = deal([batch.tokens for batch in loop.valid], world.size)[world.rank]
    own = _sums(loop.model, [loop.valid[index].data for index in share], loop.valid_loss)
    total, count = map(sum, zip(*world.gather(own), strict=True))
    return total / count if count else math.nan


def _own_random() -> AbstractContextManager[Any]:
    """Validation and callbacks may draw random numbers; training must not notice."""
    stack = ExitStack()
    stack.callback(State({}, None, Progress(), random=checkpoint.random_state()).restore_random)
    return stack


def _save(loop: Loop, run: Run, stepper: Stepper) -> int:
    progress = run.progress
    if loop.world.rank:
        return progress.step
    if loop.world.size > 1:
        # The other ranks' parts of an unfinished step are theirs alone: it is taken again.
        stepper.partial = Partial()
    path = checkpoint.path_of(loop.folder, progress.step)
    state = State(adapter_arrays(loop.model), loop.optimiser.state, progress, stepper.partial)
    checkpoint.save(path, state)
    checkpoint.prune(loop.folder, keep_last=loop.keep_last, best_step=progress.best_step)
    for callback in loop.callbacks:
        callback.on_checkpoint(run, path)
    return progress.step


def _interrupted(loop: Loop, run: Run, stepper: Stepper) -> None:
    step, done = run.progress.step, stepper.partial.done * (loop.world.size == 1)
    if stepper.updating:
        # The update, or the record of it, was cut in half: only the checkpoint is sound.
        loop.reporter.note(
            f"stopped within step {step + 1}; the same command goes on from the last checkpoint"
        )
        return
    _save(loop, run, stepper)
    within = f" and {done} of {len(loop.plan[step])} batches of the next" if done else ""
    loop.reporter.note(f"stopped after step {step}{within}; the same command goes on from it")


def _resume(loop: Loop, stepper: Stepper) -> Progress:
    checkpoint.sweep(loop.out)
    state = checkpoint.load_newest(loop.folder, loop.reporter)
    if state is None:
        return Progress(max_tokens=loop.max_tokens, keep_start=loop.keep_start)
    _must_belong(loop, state)
    progress = state.progress
    loop.model.load_weights(list(state.adapters.items()), strict=False)
    loop.optimiser.state = state.optimiser
    mx.eval(loop.model.trainable_parameters(), loop.optimiser.state)
    state.restore_random()
    # What one process added up of a step is not what each of several would have.
    stepper.partial = state.partial if loop.world.size == 1 else Partial()
    loop.reporter.note(f"resuming after step {progress.step}")
    return progress


def _must_belong(loop: Loop, state: State) -> None:
    rows = ""
    for batches in loop.plan[: state.progress.step]:
        rows = _hash_rows(rows, batches)
    faults = {
        "with adapters of another rank or on other layers": _shapes(state.adapters)
        != _shapes(adapter_arrays(loop.model)),
        "with another optimiser": _shapes(state.optimiser) != _shapes(loop.optimiser.state),
        "on other rows, or on these in another order": rows != state.progress.rows,
    }
    for what, wrong in faults.items():
        if wrong:
            raise ForgeError(
                f"{loop.folder}: was trained {what}",
                "train with the settings it was made with, or start over with --fresh",
            )


def _shapes(arrays: Any) -> dict[str, tuple[int, ...]]:
    from mlx.utils import tree_flatten

    return {name: value.shape for name, value in tree_flatten(arrays)}


def _hash_rows(before: str, batches: Sequence[Batch]) -> str:
    """Chain the ids of one more step's rows onto the hash of those before it."""
    ids = "\n".join(name for batch in batches for name in batch.ids)
    return hashlib.sha256(f"{before}\n{ids}".encode()).hexdigest()
