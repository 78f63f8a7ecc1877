"""A loop over a tiny random model, without the stages around it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forge_cli.core.events import SILENT
from forge_cli.models.adapters import AdapterConfig, adapter_arrays
from forge_cli.models.backend import mx, nn
from forge_cli.models.shared_context import Row, group_rows
from forge_cli.train.callbacks import Callback
from forge_cli.train.checkpoint import Progress
from forge_cli.train.initial import start_adapters
from forge_cli.train.loop import Loop, fit
from forge_cli.train.micro_batches import Batch, as_batch, group_loss
from forge_cli.train.optimisers import make_optimiser
from forge_cli.train.schedules import Schedule
from tiny_train import random_model


def tuned_model(model_type: str = "llama", *, rank: int = 4, **changes: Any) -> nn.Module:
    """A tiny model with PiSSA adapters, not quantised."""
    model = random_model(model_type, **changes)
    config = AdapterConfig("tiny", "pissa", rank, float(rank), 16, 64, [])
    targets = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
    start_adapters(model, config, targets=targets, layers=0, seed=0)
    return model


def rows(count: int, *, context: int = 0, prefix: int = 40, answer: int = 5) -> list[Row]:
    """Rows that share a prefix; the later ones have longer answers."""
    shared = [(7 * i + context) % 90 + 5 for i in range(prefix)]
    made = []
    for index in range(count):
        question = [11 + index, 60 + context, 9]
        reply = [(13 * index + 3 * i + context) % 90 + 5 for i in range(answer + 4 * index)]
        made.append(Row([*shared, *question, *reply], len(shared) + len(question)))
    return made


def batch(count: int, *, context: int = 0, **sizes: int) -> Batch:
    """One group of rows, with ids such as "2-0"."""
    made = rows(count, context=context, **sizes)
    return as_batch(group_rows(made), [f"{context}-{n}" for n in range(count)])


def loop_of(
    out: Path, plan: Sequence[Sequence[Batch]], model: nn.Module | None = None, **changes: Any
) -> Loop:
    """A loop with sensible values, and `changes`; `optimiser` is a name, `loss` also validates."""
    model = model or tuned_model()
    name = changes.pop("optimiser", "adamw")
    settings: dict[str, Any] = {
        "loss": group_loss,
        "valid": [batch(2, context=9)],
        "optimiser": make_optimiser(name, model, weight_decay=0.0),
        "schedule": Schedule(3e-3, len(plan), 0.1),
        "clip": 1.0,
        "valid_every": 4,
        "reporter": SILENT,
    }
    settings |= {"valid_loss": changes.get("loss", group_loss)} | changes
    return Loop(model=model, plan=plan, out=out, **settings)


def train_tiny(
    out: Path, plan: Sequence[Sequence[Batch]], *callbacks: Callback, **changes: Any
) -> tuple[Progress, dict[str, mx.array]]:
    """Train a fresh tiny model; where it stands, and its adapters."""
    mx.random.seed(changes.pop("seed", 0))
    loop = loop_of(out, plan, callbacks=callbacks, **changes)
    return fit(loop), adapter_arrays(loop.model)


def same_arrays(one: dict[str, mx.array], two: dict[str, mx.array]) -> bool:
    """Whether both hold the same bits."""
    return set(one) == set(two) and all(mx.array_equal(one[k], two[k]).item() for k in one)
