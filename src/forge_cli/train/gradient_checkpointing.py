"""Gradient checkpointing (arXiv 1604.06174): a block's activations are computed again backwards.

`mx.checkpoint` differentiates its inputs only. What a block reads from elsewhere must
come in as an argument: its trained arrays, and the keys and values in its cache, which
carry the gradient of a shared prefix.
"""

from __future__ import annotations

import copy
from typing import Any

from forge_cli.core.errors import UsageError
from forge_cli.models.backend import mx, nn
from forge_cli.models.row_losses import runs_apart


def checkpoint_blocks(model: nn.Module) -> None:
    """Checkpoint each block of the model, in place; names and arrays stay as they are.

    Raises:
        UsageError: its blocks are called in another way than those that attend.
    """
    if runs_apart(model):
        raise UsageError(
            "gradient_checkpointing: this architecture has blocks of another kind", "leave it out"
        )
    for block in model.layers:
        kind = type(block)
        if not getattr(kind, "checkpointed", False):
            # A class of its own for the object: a wrapper would rename every array.
            block.__class__ = type(
                kind.__name__, (kind,), {"__call__": _checkpointed(kind), "checkpointed": True}
            )


def _checkpointed(kind: type) -> Any:
    plain = kind.__call__

    def call(self: Any, x: mx.array, mask: Any = None, cache: Any = None, **rest: Any) -> Any:
        if not self.training:
            return plain(self, x, mask, cache, **rest)

        def inner(
            arrays: dict[str, Any], held: dict[str, mx.array], x: mx.array, rest: dict[str, Any]
        ) -> tuple[Any, dict[str, mx.array]]:
            own = copy.copy(cache)
            if held:
                vars(own).update(held)
            before = self.trainable_parameters()
            self.update(arrays)
            try:
                out = plain(self, x, mask, own, **rest)
            finally:
                self.update(before)
            return out, _held(own)

        arrays = self.trainable_parameters()
        out, held = mx.checkpoint(inner)(arrays, _held(cache), x, rest)
        if held:
            vars(cache).update(held)
        return out

    return call


def _held(cache: Any) -> dict[str, mx.array]:
    """The arrays that a cache holds."""
    found = vars(cache) if hasattr(cache, "__dict__") else {}
    return {name: value for name, value in found.items() if isinstance(value, mx.array)}
