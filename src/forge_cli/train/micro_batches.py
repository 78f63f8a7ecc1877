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
from forge_cli.models.shared_context import Group, token_losses
from forge_cli.train.batches import order

# (model, data of a batch) → sum of the losses of its supervised tokens, and their count.
# A mean over several batches is then exact: sum of sums over sum of counts.
Loss = Callable[[nn.Module, Any], tuple[mx.array, Any]]


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
    length = int(group.prefix.shape[1] + group.branches.shape[1])
    return Batch(group, tuple(ids), group.tokens, int(group.targets.size), length)


def as_batches(groups: Sequence[Group], examples: Sequence[Example]) -> list[Batch]:
    """The groups of `make_groups` with the ids of their rows."""
    return [
        as_batch(group, [examples[index].id for index in part])
        for group, part in zip(groups, by_context(examples), strict=True)
    ]


def plan_steps(
    batches: Sequence[Batch], *, steps: int | None, epochs: float, accumulate: int, seed: int
) -> list[list[Batch]]:
    """The batches of each optimiser step, `accumulate` each; the last step takes what is left.

    Args:
        steps: optimiser steps (None: `epochs` passes over the batches).
    """
    count = steps * accumulate if steps else max(1, round(len(batches) * epochs))
    chosen = [batches[index] for index in order(len(batches), count, seed)]
    return [chosen[start : start + accumulate] for start in range(0, count, accumulate)]


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
    group: Group = batch.data
    at_row, at_column = np.array(group.rows), np.array(group.columns)
    for share in np.array_split(np.arange(len(batch.ids)), parts):
        first, last = int(share[0]), int(share[-1])
        own = (at_row >= first) & (at_row <= last)
        width = int(at_column[own].max()) + 1 if own.any() else group.branches.shape[1]
        part = Group(
            prefix=group.prefix,
            branches=group.branches[first : last + 1, :width],
            rows=mx.array(at_row[own] - first, dtype=mx.int32),
            columns=mx.array(at_column[own], dtype=mx.int32),
            targets=mx.array(np.array(group.targets)[own], dtype=mx.int32),
            counts=group.counts[first : last + 1],
            weights=None if group.weights is None else mx.array(np.array(group.weights)[own]),
        )
        yield as_batch(part, batch.ids[first : last + 1])
