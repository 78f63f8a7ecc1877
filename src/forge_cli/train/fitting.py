"""Whether training fits the memory; where it does not, with which settings it would."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from forge_cli.core.errors import UsageError
from forge_cli.core.events import Reporter
from forge_cli.core.jsonl import write_json
from forge_cli.models.backend import on_gpu
from forge_cli.models.resolve import resolve
from forge_cli.models.shapes import Shapes, read_shapes
from forge_cli.models.targets import chosen_layers
from forge_cli.train.callbacks.protocol import Callback, Run
from forge_cli.train.memory_plan import Load, Plan, Training, load_of, plan_memory
from forge_cli.train.micro_batches import Batch
from forge_cli.train.step import Step

# A plan of before counts differently; its corrections do not belong to this one.
_VERSION = 1
_LEAST, _MOST = 0.5, 2.0


@dataclass(frozen=True)
class Fit:
    """How training fits.

    Attributes:
        plan: of what will run.
        max_tokens: that may run at once, so that it fits (0: the largest batch fits whole).
    """

    plan: Plan
    max_tokens: int = 0


def fit_memory(
    shapes: Shapes, how: Training, loads: Sequence[Load], limit: int, *, scale: float = 1.0
) -> Fit:
    """How to train within `limit` bytes: all at once, or the rows of a context in parts.

    Raises:
        UsageError: even row by row it does not fit; the hint has settings that would.
    """
    whole = largest(shapes, how, loads, scale)
    if whole.peak <= limit:
        return Fit(whole)
    alone = largest(shapes, how, [load.alone for load in loads], scale)
    if alone.peak > limit:
        needed = f"needs about {gb(alone.peak)}, {gb(limit)} may be used"
        raise UsageError(f"memory: training {needed}", _advice(shapes, how, loads, limit, scale))
    tokens = max(load.alone.prefix + load.alone.tokens for load in loads)
    return Fit(alone, tokens)


def largest(shapes: Shapes, how: Training, loads: Sequence[Load], scale: float) -> Plan:
    """The plan of the load that needs most."""
    plans = (plan_memory(shapes, how, load, scale=scale) for load in loads)
    return max(plans, key=lambda plan: plan.step)


def gb(size: float) -> str:
    """Bytes in gigabytes, or megabytes where they are few."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"


def _advice(shapes: Shapes, how: Training, loads: Sequence[Load], limit: int, scale: float) -> str:
    alone = [load.alone for load in loads]
    for words, changed in _cheaper(shapes, how):
        peak = largest(shapes, changed, alone, scale).peak
        if peak <= limit:
            return f"with {words} it would take {gb(peak)}; or raise memory_limit to try anyway"
    start = largest(shapes, how, alone, scale).start
    if start > limit:
        return f"the model alone takes {gb(start)} to load: choose a smaller --model"
    return "choose a smaller --model, or shorter rows (smaller max_chars, fewer distractors)"


def _cheaper(shapes: Shapes, how: Training) -> Iterator[tuple[str, Training]]:
    """Settings that take less, from those that cost least to those that cost most."""
    how = replace(how, gradient_checkpointing=True)
    words = "gradient_checkpointing: true"
    yield words, how
    if on_gpu() and how.bits > 4:
        how, words = replace(how, bits=4), f"{words}, bits: 4"
        yield words, how
    layers = len(chosen_layers(how.layers, shapes.layers))
    while layers > 4:
        layers //= 2
        yield f"{words}, layers: {layers}", replace(how, layers=layers)
    how, words = replace(how, layers=layers), f"{words}, layers: {layers}"
    rank = how.rank
    while rank > 4:
        rank //= 2
        yield f"{words}, rank: {rank}", replace(how, rank=rank, rank_pattern={})


def read_scale(file: Path | None) -> float:
    """What an earlier run measured, over what was planned for it; 1 where none did."""
    try:
        told = json.loads(file.read_text()) if file else {}
    except (OSError, json.JSONDecodeError):
        return 1.0
    return float(told["scale"]) if told.get("version") == _VERSION else 1.0


class Calibrate(Callback):
    """After the first step: keep what it measured, for the plans of later runs.

    Args:
        file: to write. plan: the batches of each step.
    """

    def __init__(
        self, file: Path, shapes: Shapes, how: Training, plan: Sequence[Sequence[Batch]]
    ) -> None:
        self.file, self.shapes, self.how, self.plan = file, shapes, how, plan

    def on_step(self, run: Run, step: Step) -> None:
        """Compare, once a run, and only a step that ran whole."""
        if step.step != 1 or run.progress.max_tokens:
            return
        groups = [getattr(batch.data, "group", batch.data) for batch in self.plan[0]]
        planned = largest(self.shapes, self.how, [load_of(group) for group in groups], 1.0)
        held = planned.step - planned.passing
        scale = min(_MOST, max(_LEAST, (step.step_bytes - held) / planned.passing))
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.file, {"version": _VERSION, "scale": round(scale, 4)})


def check_memory(
    model: str,
    how: Training,
    loads: Sequence[Load],
    limit: int,
    cache: Path | None,
    reporter: Reporter,
) -> tuple[Fit | None, Callable[[Sequence[Sequence[Batch]]], list[Callback]]]:
    """Foresee the peak before the model is loaded, and say it.

    Args:
        cache: folder of what earlier runs measured.

    Returns:
        How it fits (None: the model's kind is not foreseen), and what makes the callbacks that
        measure this run, of its plan.

    Raises:
        UsageError: it does not fit.
    """
    shapes = read_shapes(resolve(model, reporter=reporter))
    if shapes is None:
        reporter.note(f"memory: not foreseen for the layers of {model}")
        return None, lambda plan: []
    file = scale_file(cache / "memory" if cache else None, model)
    fit = fit_memory(shapes, how, loads, limit, scale=read_scale(file))
    tell(reporter, fit, limit)
    return fit, lambda plan: [Calibrate(file, shapes, how, plan)] if file else []


def scale_file(cache: Path | None, model: str) -> Path | None:
    """Where the correction for a model on this device stands."""
    name = re.sub(r"[^\w.-]+", "-", model)
    return cache / f"{name}-{'gpu' if on_gpu() else 'cpu'}.json" if cache else None


def tell(reporter: Reporter, fit: Fit, limit: int) -> None:
    """One line about the memory, and another where rows run in parts."""
    reporter.note(f"memory: about {gb(fit.plan.peak)} at the peak, {gb(limit)} may be used")
    if fit.max_tokens:
        reporter.note(
            f"memory: the largest contexts would not fit at once: at most {fit.max_tokens} tokens "
            "run together (same result)"
        )
