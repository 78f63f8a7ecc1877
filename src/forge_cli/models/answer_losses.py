"""How well a model foretells the answers of chats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forge_cli.core.events import Reporter
from forge_cli.core.records import Example, Message
from forge_cli.models.backend import mx
from forge_cli.models.chat import tokenise
from forge_cli.models.load import Loaded
from forge_cli.models.prefixes import group_by_prefix
from forge_cli.models.shared_context import group_rows, token_losses

# More rows of one context than this go into a second group: branches cost memory.
_MAX_ROWS = 8


def by_context(examples: Sequence[Example]) -> list[list[int]]:
    """Indices of the rows of each context, at most 8 together."""
    groups: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        groups.setdefault(example.context_id, []).append(index)
    return [g[i : i + _MAX_ROWS] for g in groups.values() for i in range(0, len(g), _MAX_ROWS)]


def answer_losses(
    loaded: Loaded, chats: Sequence[Sequence[Message]], name: str, reporter: Reporter
) -> list[float]:
    """Mean cross-entropy per token of each chat's last message, in nats.

    What chats share at their beginning runs once.
    """
    losses = [0.0] * len(chats)
    rows = [tokenise(loaded.tokenizer, chat) for chat in chats]
    with reporter.task(f"{name}: answer loss", len(chats)) as task:
        for indices in group_by_prefix([row.ids[: row.start] for row in rows]):
            group = group_rows([rows[i] for i in indices])
            values = np.array(token_losses(loaded.model, group))
            start = 0
            for index, count in zip(indices, group.counts, strict=True):
                losses[index] = float(values[start : start + count].mean())
                start += count
            task.advance(len(indices))
            mx.clear_cache()
    return losses
