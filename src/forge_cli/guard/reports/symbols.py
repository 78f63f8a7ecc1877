"""Which symbols differ between what two runs mined."""

from __future__ import annotations

from pathlib import Path

from forge_cli.core.jsonl import read_records
from forge_cli.core.records import Chunk
from forge_cli.pipeline.update import Changes, changes

# (added, changed or gone; path; symbol, "" for a text)
Differs = tuple[str, str, str]


def symbols_of(found: Changes) -> list[Differs]:
    """Each symbol once, however many parts of it differ; of what has no name each text."""
    told: dict[tuple[str, str], str] = {}
    texts: list[Differs] = []
    kinds = [("changed", [new for _, new in found.changed])]
    kinds += [("added", found.added), ("gone", found.gone)]
    for what, chunks in kinds:
        for chunk in chunks:
            if not chunk.symbol:
                texts.append((what, chunk.path, ""))
                continue
            key = chunk.path, chunk.symbol
            # A part that is added and one that is gone: what they are of has changed.
            told[key] = what if told.get(key, what) == what else "changed"
    return [(what, *key) for key, what in told.items()] + texts


def symbols_between(before: Path, run: Path) -> list[Differs]:
    """The same of two run directories; nothing where one of them did not mine."""
    old, now = (folder / "data" / "chunks.jsonl" for folder in (before, run))
    if not old.exists() or not now.exists():
        return []
    mined = [list(read_records(file, Chunk)) for file in (old, now)]
    return symbols_of(changes(*mined))
