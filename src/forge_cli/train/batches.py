"""Examples → tokenised rows → groups that share a context, in a seeded order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.core.records import Example
from forge_cli.models.answer_losses import by_context
from forge_cli.models.chat import tokenise
from forge_cli.models.shared_context import Group, group_rows
from forge_cli.models.spans import SpanWeights, weigh


def make_groups(
    examples: Sequence[Example],
    tokenizer: Any,
    *,
    max_tokens: int,
    weights: SpanWeights | None = None,
) -> list[Group]:
    """One group per context (or more, where it has many rows), in order of appearance.

    Args:
        weights: of the answers' parts in the loss (None: all tokens count alike).

    Raises:
        ForgeError: a row is longer than `max_tokens` (its id and length are named).
    """
    rows = []
    for example in examples:
        row = tokenise(tokenizer, example.messages)
        if len(row.ids) > max_tokens:
            raise ForgeError(
                f"example {example.id}: {len(row.ids)} tokens, more than {max_tokens}",
                "run forge validate first (it rejects such rows), or raise max_tokens",
            )
        rows.append(weigh(tokenizer, example.messages, row, weights) if weights else row)
    return [group_rows([rows[index] for index in part]) for part in by_context(examples)]


def order(count: int, steps: int, seed: int) -> list[int]:
    """Which group each of `steps` steps trains: seeded permutations, one after another."""
    chosen: list[int] = []
    epoch = 0
    while len(chosen) < steps:
        indices = list(range(count))
        random.Random(f"{seed}/{epoch}").shuffle(indices)
        chosen += indices
        epoch += 1
    return chosen[:steps]
