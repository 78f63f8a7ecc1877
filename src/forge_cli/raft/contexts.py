"""Which documents are shown together.

Files are put into pools of neighbours, and contexts are formed within a pool. So a
context never ties distant files together, and a split by file (with all files that
share a context on one side) keeps enough pieces to choose from.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from forge_cli.core.records import Chunk

# Above this Jaccard similarity a neighbour would hold the answer too.
_NEAR_DUPLICATE = 0.9
_POOL_DOCUMENTS = 24
_MIN_POOLS = 12


@dataclass(frozen=True)
class Context:
    """Documents in the order in which they are shown."""

    chunks: list[Chunk]
    pool: int


def form_contexts(chunks: Sequence[Chunk], size: int, rng: random.Random) -> list[Context]:
    """Partition documents into contexts of up to `size`, each with its nearest neighbours.

    Every document is in exactly one context: oracle to the questions about it, and a
    hard negative (BM25 over identifiers) to the others'. The order within is random.
    """
    contexts = []
    for number, pool in enumerate(_pools(chunks, size)):
        for members in _partition(pool, size, rng):
            rng.shuffle(members)
            contexts.append(Context(members, number))
    return contexts


def _pools(chunks: Sequence[Chunk], size: int) -> list[list[Chunk]]:
    """Runs of files, in order of path, that hold enough documents to choose from."""
    target = max(size, min(_POOL_DOCUMENTS, len(chunks) // _MIN_POOLS))
    pools: list[list[Chunk]] = [[]]
    last = ""
    for chunk in sorted(chunks, key=lambda c: (c.path, c.start_byte)):
        if chunk.path != last and len(pools[-1]) >= target:
            pools.append([])
        pools[-1].append(chunk)
        last = chunk.path
    if len(pools) > 1 and len(pools[-1]) < size:
        pools[-2] += pools.pop()
    return [pool for pool in pools if pool]


def _partition(pool: list[Chunk], size: int, rng: random.Random) -> list[list[Chunk]]:
    words = [words_of(chunk.text) for chunk in pool]
    near = _neighbours(words)
    free = set(range(len(pool)))
    order = list(range(len(pool)))
    rng.shuffle(order)
    groups = []
    for seed in order:
        if seed not in free:
            continue
        free.discard(seed)
        group = [seed]
        for other in near[seed]:
            if len(group) == size:
                break
            if other in free and all(
                jaccard(words[other], words[m]) < _NEAR_DUPLICATE for m in group
            ):
                group.append(other)
                free.discard(other)
        groups.append([pool[index] for index in group])
    return groups


def _neighbours(words: list[list[str]]) -> list[list[int]]:
    """For each document, the others by falling BM25 score."""
    if len(words) < 2:
        return [[] for _ in words]
    import bm25s

    index = bm25s.BM25()
    index.index(words, show_progress=False)
    ranked = []
    for own, query in enumerate(words):
        scores = index.get_scores(sorted(set(query)))
        by_score = sorted(range(len(words)), key=lambda i: (-float(scores[i]), i))
        ranked.append([other for other in by_score if other != own])
    return ranked


def words_of(text: str) -> list[str]:
    """Identifiers split at underscores and capitals, lower case."""
    return [w.lower() for w in re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", text)] or ["_"]


def jaccard(a: Sequence[str], b: Sequence[str]) -> float:
    """Shared over all distinct words."""
    left, right = set(a), set(b)
    return len(left & right) / len(left | right)
