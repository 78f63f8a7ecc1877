"""What a deployed run, and those that it was made from, trained on and held out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forge_cli.core.config import Resolved, checked
from forge_cli.core.errors import UsageError
from forge_cli.core.jsonl import read_records
from forge_cli.core.records import Chunk, Example, Split, content_id
from forge_cli.core.run_dir import RunDir
from forge_cli.pipeline.update.changes import plain

# In an updated run's data/: splits of files, what is owed, which test rows are about new code.
PLAN = "update.json"
# There too: what the runs before it trained on and it did not train on again.
TRAINED = "trained.jsonl"


@dataclass(frozen=True)
class Lineage:
    """A run's past.

    Attributes:
        chunks: what it mined.
        files: path → the split that the file is in for good.
        trained: rows that it or a run before it trained on, true by now or not.
        valid, test: its rows, of files that are in these splits for good.
        owed: `name_of` of chunks that no run trained on, though they were there to be.
        suspected: path → `name_of` of its chunks, of files whose new content was not trusted.
        generation: how many updates it is away from a full training.
    """

    chunks: list[Chunk]
    files: dict[str, Split]
    trained: list[Example]
    valid: list[Example]
    test: list[Example]
    owed: set[str]
    suspected: dict[str, list[str]]
    generation: int


def read_lineage(base: RunDir) -> Lineage:
    """The past of a trained run over a repository.

    Raises:
        UsageError: it is not trained, or not over a repository.
    """
    chunks, rows = (base.path / "data" / name for name in ("chunks.jsonl", "examples.jsonl"))
    if not base.is_done("train") or not chunks.exists() or not rows.exists():
        raise UsageError(
            f"{base.path}: not a finished run over a repository, so it cannot be updated",
            "make one with: forge train REPO",
        )
    examples = list(read_records(rows, Example))
    plan = read_plan(base)
    files: dict[str, Split] = plan.get("files") or _files_of(examples)
    before = base.path / "data" / TRAINED
    older = list(read_records(before, Example)) if before.exists() else []
    return Lineage(
        chunks=list(read_records(chunks, Chunk)),
        files=files,
        trained=[e for e in examples if e.split == "train"] + older,
        valid=[e for e in examples if e.split == "valid" and files.get(file_of(e)) == "valid"],
        test=[e for e in examples if e.split == "test" and files.get(file_of(e)) == "test"],
        owed=set(plan.get("owed", ())),
        suspected=dict(plan.get("suspected", {})),
        generation=int(plan.get("generation", 0)),
    )


def read_plan(run: RunDir) -> dict[str, Any]:
    """What an updated run's data/update.json says; {} of any other run."""
    file = run.path / "data" / PLAN
    found: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return found


def settings_of(run: RunDir) -> Resolved:
    """The settings that a run was made with."""
    own = run.state["settings"]
    settings = checked(own, dict.fromkeys(own, f"{run.path}/run.json"))
    origins = dict.fromkeys(type(settings).model_fields, "default")
    return Resolved(settings, origins | run.state.get("origins", {}))


def file_of(row: Example) -> str:
    """The file that a row is about."""
    return row.origin.path or row.documents[0].path


def name_of(chunk: Chunk) -> str:
    """16 hex digits that name what a chunk is, wherever in its file it stands."""
    return content_id(chunk.path, chunk.symbol or "", chunk.kind, plain(chunk.text))


def still_true(rows: Iterable[Example], now: Sequence[Chunk]) -> Iterator[Example]:
    """The rows that the repository as it is now bears out.

    The documents that hold the answer stand as they were shown, and so does the definition that
    was asked about, where it was shown. A list of commits stands for its file's newest ones.
    """
    from forge_cli.raft.commits import commit_documents

    standing = {(chunk.path, plain(chunk.text)) for chunk in now}
    standing |= {(chunk.path, plain(chunk.text)) for chunk in commit_documents(now)}
    for row in rows:
        telling = [d for d in row.documents if d.oracle or d.id == row.origin.chunk]
        if all((d.path, plain(d.text)) in standing for d in telling):
            yield row


def _files_of(examples: Sequence[Example]) -> dict[str, Split]:
    """Of a run that is no update: each file is in one split."""
    found: dict[str, Split] = {}
    for row in examples:
        assert row.split is not None, "rows of a run are split"
        for path in (file_of(row), *(d.path for d in row.documents)):
            found.setdefault(path, row.split)
    return found


def texts_of(rows: Iterable[Example]) -> dict[str, str]:
    """Text of each document shown → its path."""
    return {document.text: document.path for row in rows for document in row.documents}


def told_by(row: Example, texts: Mapping[str, str]) -> list[str]:
    """The texts that a row's answer is about: its oracles and the definition asked about.

    Args:
        texts: id of a chunk → its text.
    """
    found = {document.text: None for document in row.documents if document.oracle}
    if row.origin.chunk in texts:
        found[texts[row.origin.chunk]] = None
    return list(found)
