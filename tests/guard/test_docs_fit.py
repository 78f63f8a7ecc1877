"""Documentation that speaks of its code, and documentation that was mixed up."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from forge_cli import mine
from forge_cli.core.records import Chunk
from forge_cli.guard.docs_fit import docs_fit

SOURCE = Path(__file__).parents[2] / "src" / "forge_cli"


@pytest.fixture(scope="module")
def documented() -> list[Chunk]:
    chunks = [c for part in ("core", "models") for c in mine.run(SOURCE / part, jobs=1)]
    found = [c for c in chunks if c.docstring and c.symbol]
    assert len(found) > 150
    return found


def mixed(chunks: list[Chunk], seed: int) -> list[Chunk]:
    """Each with the docstring of another."""
    docs = [chunk.docstring or "" for chunk in chunks]
    random.Random(seed).shuffle(docs)
    return [
        c.model_copy(update={"docstring": d, "text": c.text.replace(c.docstring or "", d)})
        for c, d in zip(chunks, docs, strict=True)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_sound_documentation_is_not_suspected(documented: list[Chunk], seed: int) -> None:
    order = random.Random(seed).sample(documented, len(documented))
    assert not docs_fit(order[:40], order[40:]).suspicious


@pytest.mark.parametrize("seed", range(3))
def test_mixed_up_documentation_is(documented: list[Chunk], seed: int) -> None:
    order = random.Random(seed).sample(documented, len(documented))
    found = docs_fit(mixed(order[:40], seed), order[40:])
    assert found.suspicious and found.fitting < 0.6 * found.docs


def test_of_a_few_nothing_is_said(documented: list[Chunk]) -> None:
    assert not docs_fit(mixed(documented[:5], 0), documented[5:]).suspicious
    assert docs_fit([], documented).p == 1.0
    assert docs_fit(documented[:3], []).docs <= 3
