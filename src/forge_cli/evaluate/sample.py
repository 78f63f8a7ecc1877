"""Which held-out rows are asked."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from forge_cli.core.records import Example

T = TypeVar("T")


def spread(examples: Sequence[Example], limit: int, seed: int) -> list[Example]:
    """Up to `limit` rows of whole contexts, from as many files as there are.

    An interval needs files (its clusters) more than rows. Contexts stay whole because rows
    share their prefix, but the rows come in turns, one of each context, so that the first
    few are from many files too. Seeded.
    """
    rng = random.Random(f"{seed}/test")
    chosen = _drawn(examples, rng)[:limit]
    rng.shuffle(chosen)
    return _in_turns(chosen, lambda example: example.context_id)


def in_order(examples: Sequence[Example], seed: int) -> list[Example]:
    """All rows in the order that `spread` takes them, for whoever takes not every one."""
    return _drawn(examples, random.Random(f"{seed}/test"))


def _drawn(examples: Sequence[Example], rng: random.Random) -> list[Example]:
    """Contexts whole, shuffled, then in turns, one of each file."""
    contexts: dict[str, list[Example]] = {}
    for example in examples:
        contexts.setdefault(example.context_id, []).append(example)
    order = [contexts[context] for context in sorted(contexts)]
    rng.shuffle(order)
    order = _in_turns(order, lambda rows: rows[0].origin.path)
    return [example for rows in order for example in rows]


def by_kind(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """The test rows of kinds that are trained on, and those of kinds that are not."""
    trained = {example.origin.kind for example in examples if example.split == "train"}
    test = [example for example in examples if example.split == "test"]
    if not trained:  # test rows alone: nothing is known of what was trained
        return test, []
    seen = [example for example in test if example.origin.kind in trained]
    return seen, [example for example in test if example.origin.kind not in trained]


def _in_turns(items: Sequence[T], key: Callable[[T], str]) -> list[T]:
    """The first of each key, then the second of each, and so on."""
    met: Counter[str] = Counter()
    turns = []
    for place, item in enumerate(items):
        turns.append((met[key(item)], place))
        met[key(item)] += 1
    return [items[place] for _, place in sorted(turns)]
