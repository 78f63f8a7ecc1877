"""Rows that share no context, one after another in one sequence: block-masked packing.

A short row alone leaves the processor waiting for the weights; packed, several rows read them once.
No row sees another, so the losses and gradients are those of separate rows, and nothing is padded.
"""

from __future__ import annotations

from collections.abc import Sequence

from forge_cli.models.backend import compute_dtype, mx, nn
from forge_cli.models.shared_context import Group, Row, as_group, group_rows, token_losses


def pack_rows(rows: Sequence[Row]) -> Group:
    """One sequence of all rows."""
    lengths = [len(row.ids) - 1 for row in rows]
    begins = [sum(lengths[:index]) for index in range(len(rows))]
    ids = [token for row in rows for token in row.ids[:-1]]
    empty = mx.zeros((1, 0), dtype=mx.int32)
    return as_group(rows, empty, [mx.array([ids], dtype=mx.int32)], begins, tuple(lengths))


def fill_packs(sizes: Sequence[int], room: int) -> list[list[int]]:
    """Which rows go together: first-fit in the order given, at most `room` tokens a pack.

    Returns:
        Indices, each exactly once; a row longer than `room` has a pack to itself.
    """
    packs: list[list[int]] = []
    left: list[int] = []
    for index, size in enumerate(sizes):
        for number, free in enumerate(left):
            if size <= free:
                packs[number].append(index)
                left[number] -= size
                break
        else:
            packs.append([index])
            left.append(room - size)
    return packs


def can_pack(model: nn.Module) -> bool:
    """Whether packed rows come to the losses of separate ones in this model.

    They do where positions count by their distance alone and masks are taken as given.
    """
    rows = [Row([7 + i, *range(20 + i, 44 + 3 * i), 11, 13], 20) for i in range(3)]
    alone = mx.concatenate([token_losses(model, group_rows([row])) for row in rows])
    try:
        packed = token_losses(model, pack_rows(rows))
    except (AttributeError, TypeError, ValueError, KeyError, IndexError):
        return False
    allowed = 1e-3 if compute_dtype() == mx.float32 else 0.1
    return packed.shape == alone.shape and bool(mx.abs(packed - alone).max() < allowed)
