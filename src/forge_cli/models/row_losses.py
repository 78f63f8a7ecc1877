"""The ordinary path: losses of each row by itself, through the model's own code.

For models that cannot run a shared context, such as recurrent ones, whose state after a prefix is
no keys and values. It costs the whole prompt for every row, and the head on every position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge_cli.models.backend import mx, nn
from forge_cli.models.head_loss import Penalties, plain_losses

if TYPE_CHECKING:
    from forge_cli.models.shared_context import Group

_MARK = "runs_rows_apart"


def run_apart(model: nn.Module) -> None:
    """Have all losses of this model taken the ordinary way from now on."""
    # A plain attribute: what an nn.Module does not know as an array or a module.
    setattr(model, _MARK, True)


def runs_apart(model: nn.Module) -> bool:
    """Whether rows of one context run one after another in this model."""
    return bool(getattr(model, _MARK, False))


def row_losses(model: nn.Module, group: Group, penalties: Penalties) -> mx.array:
    """Cross-entropy of each supervised token of a group, float32 [S], row by row, in nats."""
    parts = []
    for row in group.of:
        logits = model(mx.array([row.ids[:-1]]))[0, row.start - 1 :]
        targets = mx.array(row.ids[row.start :], dtype=mx.int32)
        parts.append(plain_losses(logits, targets, penalties))
    return mx.concatenate(parts)
