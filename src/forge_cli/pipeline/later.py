"""Rows about what was committed to a repository after a run was trained on it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from forge_cli.core.config import Settings
from forge_cli.core.errors import UsageError
from forge_cli.core.events import Reporter
from forge_cli.core.jsonl import read_records
from forge_cli.core.records import Chunk, Example
from forge_cli.core.run_dir import RunDir
from forge_cli.pipeline.data import make_examples, mine_chunks, validated


def later_rows(run: RunDir, s: Settings, reporter: Reporter) -> list[Example]:
    """Sound rows about definitions that the run cannot have seen, of the repository as it is now.

    Their file was committed after the newest commit of what the run mined, and no text in it is
    so much alike to the definition that it would hold the answer (`validate.split.NEAR`).

    Raises:
        UsageError: the repository is not there any more, or what was mined has no commit times.
    """
    source, file = Path(str(run.state["source"])), run.file("data", "chunks.jsonl")
    if not source.is_dir() or not file.exists():
        raise UsageError(
            f"{run.path}: there is no repository {source} to look for later commits in",
            "judge a run that forge train made of a repository, where that still is",
        )
    trained = list(read_records(file, Chunk))
    cut = max((chunk.committed or "" for chunk in trained), default="")
    if not cut:
        raise UsageError(
            f"{run.path}: what was mined has no commit times",
            "leave out the suite time, or train on a git repository",
        )
    now = list(mine_chunks(source, s, reporter))
    fresh = [chunk for chunk in now if (chunk.committed or "") > cut]
    new = unknown(trained, fresh)
    rows = rows_about(now, new, s, reporter)
    reporter.note(
        f"since {cut[:10]}: {len(fresh)} chunks of files that were committed, {len(new)} of them "
        f"new to the run, {len(rows)} rows about them"
    )
    return rows


def unknown(trained: Sequence[Chunk], fresh: Sequence[Chunk]) -> set[str]:
    """Ids of the fresh chunks that no trained one is so much alike to that it holds the answer."""
    from forge_cli.validate.near import leaking_pairs
    from forge_cli.validate.split import NEAR

    texts = [chunk.text for chunk in trained], [chunk.text for chunk in fresh]
    known = {number for number, _, _ in leaking_pairs(*texts, NEAR)}
    return {chunk.id for number, chunk in enumerate(fresh) if number not in known}


def rows_about(
    now: Sequence[Chunk], new: Collection[str], s: Settings, reporter: Reporter
) -> list[Example]:
    """Sound test rows whose question is about a chunk of `new`, by id.

    Args:
        now: all that is mined: the documents beside a new one may be old.
    """
    from forge_cli.raft.index import Index

    index = Index(now)
    if not any(chunk.id in new and index.is_askable(chunk) for chunk in now):
        return []
    asked = make_examples(now, s, reporter, only=new)
    made = [row for row in asked if row.origin.chunk in new]  # not of lists of commits
    # Gates are for what is trained on.
    held = {"split": "test", "held_kinds": [], "min_examples": 0, "max_rejects": 1.0}
    own = s.model_copy(update=held | {"min_quality": 0.0, "base_loss": None})
    return validated(made, own, reporter) if made else []
