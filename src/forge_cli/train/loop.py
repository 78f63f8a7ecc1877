"""The training loop: one context group a step, AdamW, warm-up and cosine, best kept."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Reporter, Task
from forge_cli.core.jsonl import atomic_file
from forge_cli.models.adapters import adapter_arrays
from forge_cli.models.backend import mx, nn
from forge_cli.models.shared_context import Group, token_losses
from forge_cli.train import checkpoint
from forge_cli.train.batches import order
from forge_cli.train.checkpoint import Progress


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up over `warmup` of the steps, then a cosine to zero."""

    peak: float
    steps: int
    warmup: float

    def __call__(self, step: int) -> float:
        """The learning rate of step `step`, counted from 0."""
        rise = max(1, round(self.steps * self.warmup))
        if step < rise:
            return self.peak * (step + 1) / rise
        done = (step - rise) / max(1, self.steps - rise)
        return self.peak * 0.5 * (1 + math.cos(math.pi * done))


@dataclass
class Loop:
    """All that `fit` needs; nothing in it is a setting of the command line."""

    model: nn.Module
    train: Sequence[Group]
    valid: Sequence[Group]
    schedule: Schedule
    weight_decay: float
    clip: float
    seed: int
    valid_every: int
    checkpoint: Path
    metrics: Path
    keep_best: Callable[[], None]
    reporter: Reporter


def mean_loss(model: nn.Module, groups: Sequence[Group]) -> float:
    """Mean cross-entropy per supervised token over all groups, in nats."""
    total, count = 0.0, 0
    for group in groups:
        losses = token_losses(model, group)
        total += float(losses.sum())
        count += losses.size
        mx.clear_cache()
    return total / count


def fit(loop: Loop) -> Progress:
    """Train to the end of the schedule, from the checkpoint where there is one.

    Ctrl-C saves a checkpoint before it goes on up; the same command resumes from it.

    Raises:
        ForgeError: the loss is not a number.
    """
    import mlx.optimizers as optim

    optimiser = optim.AdamW(learning_rate=0.0, weight_decay=loop.weight_decay, bias_correction=True)
    optimiser.init(loop.model.trainable_parameters())
    progress = _resume(loop, optimiser)
    step_of = nn.value_and_grad(loop.model, _loss)
    plan = order(len(loop.train), loop.schedule.steps, loop.seed)
    try:
        with loop.reporter.task("training", loop.schedule.steps) as task:
            task.advance(progress.step)
            while True:
                if _due(loop, progress):
                    _validate(loop, progress)
                    checkpoint.save(
                        loop.checkpoint, adapter_arrays(loop.model), optimiser, progress
                    )
                if progress.step >= loop.schedule.steps:
                    break
                group = loop.train[plan[progress.step]]
                _step(loop, optimiser, step_of, group, progress, task)
    except KeyboardInterrupt:
        _stop(loop, optimiser, progress)
        raise
    return progress


def _due(loop: Loop, progress: Progress) -> bool:
    at_end = progress.step >= loop.schedule.steps
    return progress.validated < progress.step and (at_end or progress.step % loop.valid_every == 0)


def _stop(loop: Loop, optimiser: Any, progress: Progress) -> None:
    # The optimiser counts first: where the two differ the update was cut in half, and only
    # the checkpoint before it is sound.
    if optimiser.step.item() == progress.step:
        checkpoint.save(loop.checkpoint, adapter_arrays(loop.model), optimiser, progress)
        loop.reporter.note(f"stopped after step {progress.step}; the same command goes on from it")
    else:
        loop.reporter.note(
            f"stopped within step {progress.step + 1}; the same command goes on from the last "
            "checkpoint"
        )


def _loss(model: nn.Module, group: Group) -> mx.array:
    return token_losses(model, group).mean()


def _step(
    loop: Loop, optimiser: Any, step_of: Any, group: Group, progress: Progress, task: Task
) -> None:
    import mlx.optimizers as optim

    started = time.perf_counter()
    rate = loop.schedule(progress.step)
    optimiser.learning_rate = rate
    loss, gradients = step_of(loop.model, group)
    gradients, norm = optim.clip_grad_norm(gradients, loop.clip)
    mx.eval(loss, gradients, norm)
    if not math.isfinite(loss.item()) or not math.isfinite(norm.item()):
        raise ForgeError(
            f"step {progress.step + 1}: the loss or its gradient is not a number",
            "lower learning_rate; the last checkpoint is kept",
        )
    optimiser.update(loop.model, gradients)
    mx.eval(loop.model.trainable_parameters(), optimiser.state)
    progress.step += 1
    seconds = time.perf_counter() - started
    supervised = int(group.targets.size)
    _append(
        loop.metrics,
        step=progress.step,
        loss=loss.item(),
        learning_rate=rate,
        gradient_norm=norm.item(),
        tokens=group.tokens,
        supervised_tokens=supervised,
        seconds=seconds,
        peak_bytes=mx.get_peak_memory(),
    )
    task.advance(
        1,
        f"loss {loss.item():.3f} · {group.tokens / seconds:,.0f} tokens/s "
        f"({supervised / seconds:,.0f} supervised) · peak {mx.get_peak_memory() / 1e9:.1f} GB",
    )
    mx.clear_cache()


def _validate(loop: Loop, progress: Progress) -> None:
    started = time.perf_counter()
    loss = mean_loss(loop.model, loop.valid)
    rows = _rows(loop.metrics)
    row = rows.pop() if rows and rows[-1]["step"] == progress.step else {"step": progress.step}
    row |= {"valid_loss": loss, "valid_seconds": time.perf_counter() - started}
    _write(loop.metrics, [*rows, row | {"peak_bytes": mx.get_peak_memory()}])
    if not math.isfinite(loss):
        raise ForgeError(
            f"step {progress.step}: the validation loss is not a number",
            "lower learning_rate; the last checkpoint is kept",
        )
    best = loss < progress.best_loss
    if best:
        # Kept before it is noted: an interrupt between the two validates again.
        loop.keep_best()
        progress.best_loss, progress.best_step = loss, progress.step
    progress.validated = progress.step
    loop.reporter.note(f"step {progress.step}: valid loss {loss:.4f}{' (best)' if best else ''}")


def _resume(loop: Loop, optimiser: Any) -> Progress:
    if not loop.checkpoint.exists():
        loop.metrics.unlink(missing_ok=True)
        return Progress()
    adapters, state, progress = checkpoint.load(loop.checkpoint)
    want = {name: value.shape for name, value in adapter_arrays(loop.model).items()}
    if {name: value.shape for name, value in adapters.items()} != want:
        raise ForgeError(
            f"{loop.checkpoint}: has adapters of another rank or other layers",
            "train with the settings it was made with, or start over with --fresh",
        )
    loop.model.load_weights(list(adapters.items()), strict=False)
    optimiser.state = state
    mx.eval(loop.model.trainable_parameters(), optimiser.state)
    _trim_metrics(loop.metrics, progress)
    loop.reporter.note(f"resuming after step {progress.step}")
    return progress


def _trim_metrics(path: Path, progress: Progress) -> None:
    """Drop the rows of what is done again."""
    rows = [row for row in _rows(path) if row["step"] <= progress.step]
    if rows and rows[-1]["step"] > progress.validated:
        rows[-1].pop("valid_loss", None)
    _write(path, rows)


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, without one that a crash cut short."""
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with atomic_file(path) as stream:
        stream.writelines(json.dumps(row).encode() + b"\n" for row in rows)


def _append(path: Path, **row: float) -> None:
    with open(path, "a") as stream:
        stream.write(json.dumps(row) + "\n")
