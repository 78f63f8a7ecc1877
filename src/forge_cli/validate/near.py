"""Near-duplicate texts: MinHash finds candidates, the exact Jaccard similarity decides.

Broder 1997, "On the resemblance and containment of documents".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_WORD = re.compile(r"\w+|[^\w\s]")
_SHINGLE = 5  # words
_PERMUTATIONS, _BAND = 128, 4
# A candidate is compared with the last few of its band: a text that a thousand others repeat
# is then found to repeat one of them, without the square of a thousand comparisons.
_COMPARED = 8


def shingles(text: str, vocabulary: dict[str, int]) -> frozenset[int]:
    """Hashes of the runs of five words and signs of a text, or of all of a shorter one.

    Args:
        vocabulary: word → number, which grows. Numbers hash alike in every process; words do not.
    """
    words = [vocabulary.setdefault(word, len(vocabulary)) for word in _WORD.findall(text)]
    if len(words) <= _SHINGLE:
        return frozenset([hash(tuple(words))])
    return frozenset(map(hash, zip(*(words[n:] for n in range(_SHINGLE)), strict=False)))


def jaccard(a: frozenset[int], b: frozenset[int]) -> float:
    """Shared over all."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def near_pairs(texts: Sequence[str], threshold: float) -> Iterator[tuple[int, int, float]]:
    """Pairs (later, earlier, similarity) of texts at least `threshold` alike.

    Of a group of texts that are all alike some pairs are left out, but the pairs always join
    the group. With 32 bands of 4 rows a pair that is 0.7 alike is missed once in 6,000.
    """
    import numpy as np
    import rensa

    if len(texts) < 2:
        return
    vocabulary: dict[str, int] = {}
    sets = [shingles(text, vocabulary) for text in texts]
    tokens = [[str(shingle) for shingle in found] for found in sets]
    matrix = rensa.RMinHash.digest_matrix_from_token_sets(tokens, num_perm=_PERMUTATIONS, seed=1)
    bands = np.asarray(matrix.to_rows(), dtype=np.uint32).reshape(len(texts), -1, _BAND)
    del tokens, matrix
    keys = np.ascontiguousarray(bands).view(np.dtype((np.void, 4 * _BAND)))[..., 0]
    buckets: list[dict[bytes, list[int]]] = [{} for _ in range(keys.shape[1])]
    for later, row in enumerate(keys):
        candidates: set[int] = set()
        for bucket, key in zip(buckets, row.tolist(), strict=True):
            members = bucket.setdefault(key, [])
            candidates.update(members[-_COMPARED:])
            members.append(later)
        for earlier in sorted(candidates):
            similarity = jaccard(sets[later], sets[earlier])
            if similarity >= threshold:
                yield later, earlier, similarity


def clusters(texts: Sequence[str], threshold: float) -> list[int]:
    """For each text the number of the first text of its group of near-duplicates."""
    first = list(range(len(texts)))

    def find(n: int) -> int:
        while first[n] != n:
            first[n] = first[first[n]]
            n = first[n]
        return n

    for later, earlier, _ in near_pairs(texts, threshold):
        a, b = find(later), find(earlier)
        first[max(a, b)] = min(a, b)
    return [find(n) for n in range(len(texts))]


def leaking_pairs(
    train: Sequence[str], test: Sequence[str], threshold: float
) -> list[tuple[int, int, float]]:
    """(test, train, similarity) of every test text with its nearest training text, where that
    is at least `threshold` alike.

    Exact, over an index of all shingles: it does not trust what split the texts.
    """
    holders: dict[int, list[int]] = {}
    vocabulary: dict[str, int] = {}
    sets = [shingles(text, vocabulary) for text in train]
    for number, found in enumerate(sets):
        for shingle in found:
            holders.setdefault(shingle, []).append(number)
    pairs = []
    for number, text in enumerate(test):
        own = shingles(text, vocabulary)
        shared: dict[int, int] = {}
        for shingle in own:
            for holder in holders.get(shingle, ()):
                shared[holder] = shared.get(holder, 0) + 1
        alike = {n: count / (len(own) + len(sets[n]) - count) for n, count in shared.items()}
        if alike:
            nearest = max(alike, key=lambda n: (alike[n], -n))
            if alike[nearest] >= threshold:
                pairs.append((number, nearest, alike[nearest]))
    return pairs
