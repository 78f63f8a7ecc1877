"""Train, valid and test by file: what shares a context or a near-duplicate stays together."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.records import Example, Split
from forge_cli.validate.near import clusters, leaking_pairs

# Texts this much alike hold each other's answers (exact Jaccard of five-word shingles).
NEAR = 0.7


def assign(
    examples: Sequence[Example],
    *,
    test_share: float,
    valid_share: float,
    seed: int,
    by: str = "file",
) -> list[Example]:
    """The same examples with `split` set.

    Files are joined when one context shows both, when they hold the same document or ones
    that are 0.7 alike, or when one context's question is about the other. Whole groups of
    joined files go to a split, so no document of a test row is ever shown in training.

    Args:
        by: "file": groups are drawn by seed. "time": those that changed last are test, those
            before them valid; what is asked of the model is then what it has not yet seen.
            "test": nothing is trained on, so that all of it is test.

    Raises:
        ForgeError: fewer than three groups. UsageError: by time, and rows have no commit time.
    """
    if by == "test":
        return [example.model_copy(update={"split": "test"}) for example in examples]
    groups = _join(examples)
    sizes: dict[str, int] = {}
    changed: dict[str, str] = {}
    for example in examples:
        root = groups[example.documents[0].path]
        sizes[root] = sizes.get(root, 0) + 1
        changed[root] = max(changed.get(root, ""), example.origin.committed or "")
    if len(sizes) < 3:
        raise ForgeError(
            f"the rows form {len(sizes)} independent group(s) of files; "
            "train, valid and test need three",
            "mine a larger repository, or ask forge raft for fewer --distractors",
        )
    order = sorted(sizes)
    random.Random(f"{seed}/split").shuffle(order)
    if by == "time":
        if not all(changed.values()):
            raise UsageError(
                "split by time: there are rows without the time of a commit",
                "mine a git repository in which all files are committed, or use --split file",
            )
        order.sort(key=lambda root: changed[root], reverse=True)
    place = place_groups(order, sizes, test_share, valid_share)
    return [
        example.model_copy(update={"split": place[groups[example.documents[0].path]]})
        for example in examples
    ]


def _join(examples: Sequence[Example]) -> dict[str, str]:
    """Union-find over files: each path → the path that stands for its group."""
    parent: dict[str, str] = {}

    def find(path: str) -> str:
        parent.setdefault(path, path)
        while parent[path] != path:
            parent[path] = parent[parent[path]]
            path = parent[path]
        return path

    paths: dict[str, list[str]] = {}  # text → the files that hold it
    for example in examples:
        anchor = find(example.documents[0].path)
        for document in example.documents:
            holders = paths.setdefault(document.text, [])
            if document.path not in holders:
                holders.append(document.path)
            for path in (document.path, example.origin.path or document.path):
                parent[find(path)] = anchor
    texts = list(paths)
    for text, first in zip(texts, clusters(texts, NEAR), strict=True):
        for path in paths[text]:
            parent[find(path)] = find(paths[texts[first]][0])
    return {path: find(path) for path in list(parent)}


def place_groups(
    order: Sequence[str], sizes: Mapping[str, int], test_share: float, valid_share: float
) -> dict[str, Split]:
    """Fill test, then valid, up to their shares (at least one group each); the rest trains.

    Args:
        order: the groups, those that may be tested on first. sizes: of each, in rows.
    """
    total = sum(sizes.values())
    place: dict[str, Split] = {}
    left = list(order)
    for split, share in (("test", test_share), ("valid", valid_share)):
        taken = 0
        for root in list(left):
            # The largest groups stay in training, where the rows are needed.
            fits = taken + sizes[root] <= max(share * total, min(sizes[r] for r in left))
            if fits and len(left) > (2 if split == "test" else 1):
                place[root] = split  # type: ignore[assignment]
                taken += sizes[root]
                left.remove(root)
    return place | dict.fromkeys(left, "train")


def leakage(examples: Sequence[Example]) -> tuple[int, float]:
    """Test documents that are 0.7 alike to one shown in training, and the share that they are.

    Counted exactly and apart from what made the splits.
    """
    shown: dict[str, dict[str, None]] = {"train": {}, "valid": {}, "test": {}}
    for example in examples:
        if example.split:
            shown[example.split].update(dict.fromkeys(d.text for d in example.documents))
    pairs = leaking_pairs(list(shown["train"]), list(shown["test"]), NEAR)
    return len(pairs), len(pairs) / max(1, len(shown["test"]))
