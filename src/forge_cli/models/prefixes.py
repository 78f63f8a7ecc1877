"""Sequences that begin alike, put together so that what they share is computed once."""

from __future__ import annotations

from collections.abc import Sequence

# Branches cost memory: more rows than this go into a second group.
_MAX_ROWS = 8


def shared_length(sequences: Sequence[list[int]]) -> int:
    """How many tokens all sequences have in common at their beginning, less than any has."""
    first, last = min(sequences), max(sequences)
    shortest = min(map(len, sequences)) - 1
    # In lexical order all that lies between two sequences begins as both do.
    return next((at for at in range(shortest) if first[at] != last[at]), max(shortest, 0))


def group_by_prefix(sequences: Sequence[list[int]], most: int = _MAX_ROWS) -> list[list[int]]:
    """Indices of sequences that share at least half of the longest of them, at most `most`
    together.

    Every index comes exactly once; groups in the order of their first member.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(sequences)), key=lambda i: sequences[i]):
        if groups and len(groups[-1]) < most:
            together = [sequences[i] for i in (*groups[-1], index)]
            if 2 * shared_length(together) >= max(map(len, together)):
                groups[-1].append(index)
                continue
        groups.append([index])
    return sorted((sorted(group) for group in groups), key=lambda group: group[0])
