"""Pools of files: each chunk is in one, once, also where the last files are too few."""

from __future__ import annotations

from collections import Counter

import pytest

from forge_cli.core.records import Chunk
from forge_cli.raft.contexts import _pools


def chunk(path: str, place: int) -> Chunk:
    return Chunk(
        id=f"{path}:{place}", repo="r", path=path, language="python", start_byte=place * 10,
        end_byte=place * 10 + 10, start_line=place + 1, end_line=place + 1, kind="function",
        symbol=f"f{place}", text="def f(): ...",
    )  # fmt: skip


@pytest.mark.parametrize("sizes", [(4, 1), (4, 4, 1), (3, 5, 4, 2), (2,), (1, 1, 1)])
def test_no_chunk_is_lost_or_twice(sizes: tuple[int, ...]) -> None:
    chunks = [chunk(f"{n}.py", i) for n, size in enumerate(sizes) for i in range(size)]
    pools = _pools(chunks, 4)
    assert Counter(c.id for pool in pools for c in pool) == Counter(c.id for c in chunks)
    assert all(len(pool) >= 4 for pool in pools) or len(pools) == 1
