"""Train, valid and test by file: files that share a context or a text stay together."""

from __future__ import annotations

import random
from collections.abc import Sequence

from forge_cli.core.errors import ForgeError
from forge_cli.core.records import Example, Split


def assign(
    examples: Sequence[Example], *, test_share: float, valid_share: float, seed: int
) -> list[Example]:
    """The same examples with `split` set.

    Files are joined when one context shows both, when they hold the same document, or
    when one context's question is about the other. Whole groups of joined files go to a
    split, so no document of a test row is ever shown in training.

    Raises:
        ForgeError: fewer than three groups.
    """
    groups = _join(examples)
    sizes: dict[str, int] = {}
    for example in examples:
        root = groups[example.documents[0].path]
        sizes[root] = sizes.get(root, 0) + 1
    if len(sizes) < 3:
        raise ForgeError(
            f"the rows form {len(sizes)} independent group(s) of files; "
            "train, valid and test need three",
            "mine a larger repository, or ask forge raft for fewer --distractors",
        )
    place = _place(sizes, len(examples), test_share, valid_share, seed)
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

    first_with: dict[str, str] = {}
    for example in examples:
        anchor = find(example.documents[0].path)
        for document in example.documents:
            twin = first_with.setdefault(document.text, document.path)
            for path in (document.path, twin, example.origin.path or document.path):
                parent[find(path)] = anchor = find(anchor)
    return {path: find(path) for path in list(parent)}


def _place(
    sizes: dict[str, int], total: int, test_share: float, valid_share: float, seed: int
) -> dict[str, Split]:
    """Fill test, then valid, up to their shares (at least one group each); the rest trains."""
    order = sorted(sizes)
    random.Random(f"{seed}/split").shuffle(order)
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


def leakage(examples: Sequence[Example]) -> int:
    """Documents shown both in training and in test rows, by text."""
    shown: dict[str, set[str]] = {"train": set(), "valid": set(), "test": set()}
    for example in examples:
        if example.split:
            shown[example.split].update(d.text for d in example.documents)
    return len(shown["train"] & shown["test"])
