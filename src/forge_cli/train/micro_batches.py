"""What goes through the model at once, the loss of it, and how to cut it smaller."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forge_cli.core.records import Example
from forge_cli.models.answer_losses import by_context
from forge_cli.models.backend import mx, nn
from forge_cli.models.head_loss import NONE, Penalties
from forge_cli.models.packing import fill_packs, pack_rows
from forge_cli.models.shared_context import Group, group_rows, token_losses
from forge_cli.train.batches import order

# (model, data of a batch) → sum of the losses of its supervised tokens, and their count.
# A mean over several batches is then exact: sum of sums over sum of counts.
Loss = Callable[[nn.Module, Any], tuple[mx.array, Any]]


# One pass over a small repository's rows is a few dozen steps (compared: `benchmarks/few_rows.py`).
LEAST_STEPS, MOST_PASSES = 100, 4.0


@dataclass(frozen=True)
class Batch:
    """Rows that run through the model at once.

    Attributes:
        data: what the loss takes.
        ids: of its rows, to name them when something is wrong with them.
        tokens: that run through the model, padding included.
        supervised: tokens that carry loss.
        length: positions of the longest row.
    """

    data: Any
    ids: tuple[str, ...]
    tokens: int
    supervised: int
    length: int


def group_loss(
    model: nn.Module, group: Group, penalties: Penalties = NONE
) -> tuple[mx.array, mx.array | int]:
    """Cross-entropy over a group: the sum, float32, and the number of supervised tokens.

    Where the tokens have weights: the weighted sum, and the sum of the weights.
    """
    losses = token_losses(model, group, penalties)
    if group.weights is None:
        return losses.sum(), losses.size
    return (losses * group.weights).sum(), group.weights.sum()


def as_batch(group: Group, ids: Sequence[str]) -> Batch:
    """A group of rows with these ids."""
    length = max(len(row.ids) - 1 for row in group.of)
    return Batch(group, tuple(ids), group.tokens, int(group.targets.size), length)


def as_batches(groups: Sequence[Group], examples: Sequence[Example]) -> list[Batch]:
    """The groups of `make_groups` with the ids of their rows."""
    return [
        as_batch(group, [examples[index].id for index in part])
        for group, part in zip(groups, by_context(examples), strict=True)
    ]


def pack_singles(batches: Sequence[Batch], room: int) -> list[Batch]:
    """Batches of one row put together, at most `room` tokens in one; the others as they are."""
    singles = [batch for batch in batches if len(batch.ids) == 1]
    packs = [[singles[i] for i in pack] for pack in fill_packs([b.tokens for b in singles], room)]
    made = [
        as_batch(pack_rows([b.data.of[0] for b in pack]), [b.ids[0] for b in pack])
        if len(pack) > 1
        else pack[0]
        for pack in packs
    ]
    return [batch for batch in batches if len(batch.ids) > 1] + made


def suited_epochs(steps: float, once: bool = False) -> float:
    """One pass; where that takes few steps as many as make LEAST_STEPS, at most MOST_PASSES.

    Args:
        steps: of a pass. once: one pass all the same, as what goes on from adapters has learned
            already, and preferences are overfitted soon.
    """
    if once:
        return 1.0
    return min(MOST_PASSES, max(1.0, LEAST_STEPS / max(1.0, steps)))


def plan_steps(
    batches: Sequence[Batch],
    *,
    steps: int | None,
    epochs: float | None,
    accumulate: int,
    seed: int,
    step_tokens: int = 0,
    once: bool = False,
) -> list[list[Batch]]:
    """The batches of each optimiser step; the last step takes what is left.

    Args:
        steps: optimiser steps (None: `epochs` passes over the batches; those None:
            `suited_epochs`, for which `once` is).
        accumulate: batches of a step.
        step_tokens: in place of it: a step takes batches while they have no more tokens than
            this together, and at least one, up to the end of a pass (0: by `accumulate`).
    """
    if epochs is None:
        epochs = suited_epochs(len(batches) / accumulate, once)
    if step_tokens:
        return _by_tokens(batches, steps, max(1, round(len(batches) * epochs)), seed, step_tokens)
    count = steps * accumulate if steps else max(1, round(len(batches) * epochs))
    chosen = [batches[index] for index in order(len(batches), count, seed)]
    return [chosen[start : start + accumulate] for start in range(0, count, accumulate)]


def _by_tokens(
    batches: Sequence[Batch], steps: int | None, count: int, seed: int, step_tokens: int
) -> list[list[Batch]]:
    # Each step takes at least one batch, so this many are enough for any number of steps.
    most = count if steps is None else steps * len(batches)
    plan: list[list[Batch]] = []
    room = 0
    for number, index in enumerate(order(len(batches), most, seed)):
        batch = batches[index]
        # A new pass over the batches begins a new step.
        if batch.tokens > room or number % len(batches) == 0:
            if len(plan) == steps:
                break
            plan.append([])
            room = step_tokens
        plan[-1].append(batch)
        room -= batch.tokens
    return plan


def split_batch(batch: Batch, max_tokens: int) -> list[Batch]:
    """The rows of a group in parts of at most `max_tokens` tokens, or of one row each.

    The parts' sums and gradients add up to the whole's: only rounding differs.
    """
    rows, group = len(batch.ids), batch.data
    if batch.tokens <= max_tokens or rows == 1 or not isinstance(group, Group):
        return [batch]
    for parts in range(2, rows + 1):
        cut = list(_cut(batch, parts))
        if max(part.tokens for part in cut) <= max_tokens:
            break
    return cut


def _cut(batch: Batch, parts: int) -> Iterator[Batch]:
    make = pack_rows if batch.data.packed else group_rows
    for share in np.array_split(np.arange(len(batch.ids)), parts):
        first, last = int(share[0]), int(share[-1]) + 1
        yield as_batch(make(batch.data.of[first:last]), batch.ids[first:last])
