"""Which documents are shown together, so that distractors are hard but never answer."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from forge_cli.core.records import Chunk
from forge_cli.core.words import words_of
from forge_cli.raft.asking import Asking
from forge_cli.raft.commits import commit_documents, is_commits
from forge_cli.raft.index import Index, is_test

# Above this Jaccard similarity a neighbour would hold the answer too.
_NEAR_DUPLICATE = 0.8
_POOL_DOCUMENTS = 24
_MIN_POOLS = 12
# Share of a pool's code that may come along as tests, and as commits.
_TESTS_SHARE, _COMMITS_SHARE = 3, 6


@dataclass(frozen=True)
class Context:
    """Documents in the order in which they are shown."""

    chunks: list[Chunk]
    pool: int


def form_contexts(
    chunks: Sequence[Chunk],
    index: Index,
    size: int,
    rng: random.Random,
    asking: Asking | None = None,
) -> list[Context]:
    """Partition definitions into contexts of up to `size` documents that are hard to tell apart.

    Every definition is in exactly one context: oracle to the questions about it, and a
    distractor to the others'. Beside a definition stand a test of it, one that it calls or is
    called by, one of its class, the commits of its file (each where there is one), and its
    nearest neighbours by BM25 over identifiers; never a near-duplicate. The order is random.
    Where only some are asked about, these choose first, and one another.
    """
    asking = asking or Asking(chunks)
    pools = _pools([chunk for chunk in chunks if asking.may_show(chunk)], size)
    pools = [pool for pool in pools if asking.is_asked(pool)]
    tests = _tests(pools, index, asking)
    contexts = []
    for number, pool in enumerate(pools):
        commits = commit_documents(pool)
        rng.shuffle(commits)
        companions = tests[number] + commits[: -(-len(pool) // _COMMITS_SHARE)]
        for members in _Partition(pool, companions, index, size, rng, asking).groups():
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
        rest = pools.pop()
        pools[-1] += rest
    return [pool for pool in pools if pool]


def _tests(pools: list[list[Chunk]], index: Index, asking: Asking) -> list[list[Chunk]]:
    """The tests that come along with each pool.

    A file of tests goes to the one pool that it tests most: files whose documents are shown
    together end in one split, and a file in two pools would join these.
    """
    links: dict[str, Counter[int]] = {}
    wanted: list[dict[str, Chunk]] = [{} for _ in pools]
    for number, pool in enumerate(pools):
        for chunk in pool:
            for tester in index.testers.get(chunk.id, ()):
                if tester.parts == 1 and is_test(tester.path) and asking.may_show(tester):
                    links.setdefault(tester.path, Counter())[number] += 1
                    wanted[number][tester.id] = tester
    home = {path: min(c, key=lambda n: (-c[n], n)) for path, c in links.items()}
    return [
        [t for t in found.values() if home[t.path] == number][: -(-len(pool) // _TESTS_SHARE)]
        for number, (pool, found) in enumerate(zip(pools, wanted, strict=True))
    ]


class _Partition:
    """A pool on its way into groups."""

    def __init__(
        self,
        pool: list[Chunk],
        companions: list[Chunk],
        index: Index,
        size: int,
        rng: random.Random,
        asking: Asking,
    ) -> None:
        self.asking = asking
        self.all = pool + companions
        self.code = range(len(pool))
        self.index, self.size, self.rng = index, size, rng
        self.words = [words_of(chunk.text) for chunk in self.all]
        self.near = _neighbours(self.words[: len(pool)])
        self.free = set(range(len(self.all)))
        self.number = {chunk.id: n for n, chunk in enumerate(self.all)}

    def groups(self) -> Iterator[list[Chunk]]:
        """Each of the pool's documents once, with what stands beside it."""
        order = list(self.code)
        self.rng.shuffle(order)
        # What has a test here chooses first, or it may stand beside others without it.
        order.sort(
            key=lambda n: (self.asking.is_other(self.all[n]), not self._grades(self.all[n])[0])
        )
        for seed in order:
            if seed in self.free:
                self.free.discard(seed)
                yield [self.all[n] for n in self._group(seed)]

    def _group(self, seed: int) -> list[int]:
        group = [seed]
        testers, *grades = self._grades(self.all[seed])
        self.rng.shuffle(grades)
        # A test first: what a definition is used like is told nowhere else.
        for grade in (testers, *grades):
            # One place is kept for the nearest neighbour in words.
            if len(group) < max(2, self.size - 1):
                self._take(group, grade, len(group) + 1)
        self._take(group, self.near[seed], self.size)
        return group

    def _grades(self, chunk: Chunk) -> list[list[int]]:
        """What stands in a relation to a definition, by kind of relation."""
        index = self.index
        linked = [*index.callees.get(chunk.id, ()), *index.callers.get(chunk.id, ())]
        testers = index.testers.get(chunk.id, ())
        scope = (chunk.symbol or "").rpartition(".")[0]
        siblings = [
            n
            for n in self.code
            if scope
            and (self.all[n].symbol or "").rpartition(".")[0] == scope
            and self.all[n].path == chunk.path
        ]
        commits = [n for n, c in enumerate(self.all) if is_commits(c) and c.path == chunk.path]
        known = [
            [self.number[c.id] for c in found if c.id in self.number] for found in (testers, linked)
        ]
        return [*known, siblings, commits]

    def _take(self, group: list[int], candidates: Sequence[int], size: int) -> None:
        """Fill a group up to `size` from free candidates that are no near-duplicates."""
        for other in sorted(candidates, key=lambda n: self.asking.is_other(self.all[n])):
            if len(group) >= size:
                return
            if other in self.free and all(
                jaccard(self.words[other], self.words[m]) < _NEAR_DUPLICATE for m in group
            ):
                group.append(other)
                self.free.discard(other)


def lacks(context: Context, asked_about: Chunk, oracles: Sequence[Chunk], unless: str) -> bool:
    """Whether a context surely does not hold an answer that needs one of `oracles`.

    Args:
        unless: a word that no document may hold.
    """
    ids = {chunk.id for chunk in oracles}
    words = [words_of(chunk.text) for chunk in oracles]
    for chunk in context.chunks:
        if chunk.id in ids or (chunk.symbol and chunk.symbol == asked_about.symbol):
            return False
        if unless and re.search(rf"\b{re.escape(unless)}\b", chunk.text):
            return False
        own = words_of(chunk.text)
        if any(jaccard(own, other) >= _NEAR_DUPLICATE for other in words):
            return False
    return True


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


def jaccard(a: Iterable[str], b: Iterable[str]) -> float:
    """Shared over all distinct words."""
    left, right = set(a), set(b)
    return len(left & right) / max(1, len(left | right))
