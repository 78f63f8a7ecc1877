"""Who calls whom, by names that are unambiguous within the repository."""

from __future__ import annotations

import re
from collections.abc import Sequence

from forge_cli.core.records import Chunk

_TEST = re.compile(r"(^|/)(tests?|__tests__)/|(^|/)test_[^/]*$|_test\.[^/]*$|\.(test|spec)\.[^/]*$")


def link(chunks: Sequence[Chunk]) -> list[Chunk]:
    """The same chunks with `called_by` and `tests` set.

    A call is resolved to the definition of that name in the same file, else to the only
    one in the repository. An ambiguous name is left alone: a wrong link is worse than none.
    """
    by_name: dict[str, list[int]] = {}
    for index, chunk in enumerate(chunks):
        if chunk.symbol and chunk.part == 1 and chunk.kind in ("function", "method", "class"):
            by_name.setdefault(chunk.symbol.rsplit(".", 1)[-1], []).append(index)
    called_by: dict[int, list[str]] = {}
    tests: dict[int, list[str]] = {}
    for caller in chunks:
        for name in caller.calls:
            candidates = by_name.get(name, [])
            # `open(…)` is not a call of some class's method `open`.
            if not re.search(rf"[.>:]{re.escape(name)}\s*[(<]", caller.text):
                candidates = [index for index in candidates if chunks[index].kind != "method"]
            target = _resolve(candidates, caller, chunks)
            if target is None or chunks[target].id == caller.id or not caller.symbol:
                continue
            into = tests if _TEST.search(caller.path) else called_by
            into.setdefault(target, []).append(caller.symbol)
    return [
        chunk.model_copy(
            update={
                "called_by": sorted(set(called_by.get(index, []))),
                "tests": sorted(set(tests.get(index, []))),
            }
        )
        if index in called_by or index in tests
        else chunk
        for index, chunk in enumerate(chunks)
    ]


def _resolve(candidates: list[int], caller: Chunk, chunks: Sequence[Chunk]) -> int | None:
    same_file = [index for index in candidates if chunks[index].path == caller.path]
    for found in (same_file, candidates):
        if len(found) == 1:
            return found[0]
    return None
