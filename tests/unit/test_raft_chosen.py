"""Questions about some definitions alone: what an update asks."""

from __future__ import annotations

import random

import pytest

from forge_cli import mine, raft
from forge_cli.core.errors import ForgeError
from forge_cli.core.records import Chunk


def words(seed: int) -> list[str]:
    """Names that no other definition has, so that they are no near-duplicates."""
    draw = random.Random(seed)
    return ["".join(draw.choices("abcdefghij", k=6)) for _ in range(12)]


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> list[Chunk]:
    folder = tmp_path_factory.mktemp("repo")
    for n in range(6):
        (folder / f"m{n}.py").write_text(
            "\n\n".join(
                f"def job_{n}_{i}(a, b={i}):\n"
                f'    """Does job {n} {i} of it, and hands on what came of it."""\n'
                f"    {' = '.join(words(n * 8 + i))} = a * {n} + b\n"
                f"    return step_{n}_{i}(a)\n"
                for i in range(8)
            )
        )
    return list(mine.run(folder))


def test_only_what_is_chosen_is_asked_about_and_stands_together(chunks: list[Chunk]) -> None:
    chosen = {f"job_{n}_{i}" for n in (1, 2) for i in (0, 2, 4, 6)}
    only = {c.id for c in chunks if c.symbol in chosen}
    shown = {c.id for c in chunks if c.path in ("m1.py", "m2.py")}
    rows = list(raft.run(chunks, only=only, beside=shown, distractors=1))
    assert {row.origin.chunk for row in rows} == only
    assert {d.id for row in rows for d in row.documents} <= shown
    full = [row for row in raft.run(chunks, distractors=1) if row.origin.chunk in only]
    assert len(rows) == pytest.approx(len(full), abs=6)
    contexts, spread = ({row.context_id for row in found} for found in (rows, full))
    assert len(contexts) < len(spread), "fewer documents are read for as many questions"
    assert rows == list(raft.run(chunks, only=only, beside=shown, distractors=1))


def test_nothing_to_ask_is_no_fault_of_a_choice(chunks: list[Chunk]) -> None:
    assert list(raft.run(chunks, only=set())) == []
    with pytest.raises(ForgeError, match="none of 0 chunks"):
        list(raft.run([]))
