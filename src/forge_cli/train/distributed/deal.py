"""Which rank runs which batches."""

from __future__ import annotations

from collections.abc import Sequence


def deal(tokens: Sequence[int], size: int) -> list[list[int]]:
    """Deal batches to `size` ranks so that their tokens come out even: largest first.

    Args:
        tokens: of each batch.

    Returns:
        The indices of each rank's batches, in order. A rank may have none.
    """
    shares: list[list[int]] = [[] for _ in range(size)]
    loads = [0] * size
    for index in sorted(range(len(tokens)), key=lambda at: (-tokens[at], at)):
        rank = loads.index(min(loads))
        shares[rank].append(index)
        loads[rank] += tokens[index]
    return [sorted(share) for share in shares]
