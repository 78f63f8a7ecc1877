"""Documents that list the commits of a file, so that questions of why can quote them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from forge_cli.core.records import Chunk, content_id

_KIND = "commits"
# Subjects that say nothing of the code.
_EMPTY = re.compile(
    r"(merge|revert|bump|release|version|wip|fixup|squash|typos?|format|lint|update changelog"
    r"|prepare|back to dev|v?\d+\.\d)",
    re.IGNORECASE,
)


def commit_documents(chunks: Sequence[Chunk]) -> list[Chunk]:
    """For each file that `chunks` are of, a document of its commits, where they say something."""
    first: dict[str, Chunk] = {}
    for chunk in chunks:
        first.setdefault(chunk.path, chunk)
    return [_document(chunk) for chunk in first.values() if _tells(chunk.history)]


def is_commits(chunk: Chunk) -> bool:
    """Whether a document is one of commits."""
    return chunk.kind == _KIND


def newest(document: Chunk) -> str:
    """The newest commit's subject in a document of commits."""
    return document.history[0]


def _tells(history: Sequence[str]) -> bool:
    return bool(history) and len(history[0].split()) >= 4 and not _EMPTY.match(history[0])


def _document(chunk: Chunk) -> Chunk:
    listed = "".join(f"- {subject}\n" for subject in chunk.history)
    text = f"Commits that touched {chunk.path}, newest first:\n{listed}"
    return chunk.model_copy(
        update={
            "id": content_id(chunk.path, _KIND, text),
            "kind": _KIND,
            "language": "text",
            "symbol": None,
            "signature": None,
            "docstring": None,
            "header": "",
            "text": text,
            "calls": [],
            "called_by": [],
            "tests": [],
            "part": 1,
            "parts": 1,
        }
    )
