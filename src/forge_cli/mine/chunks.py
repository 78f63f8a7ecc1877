"""From the pieces of a file to its chunks: oversized ones cut, each described."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

from forge_cli.core.records import Chunk, content_id
from forge_cli.mine.describe import Facts, describe, header_for
from forge_cli.mine.files import Source
from forge_cli.mine.grammar import Tags, parse
from forge_cli.mine.languages import languages
from forge_cli.mine.notebook import find_segments
from forge_cli.mine.split import blocks, cut, line_starts, paragraph_depths, statement_depths
from forge_cli.mine.units import Piece, find_pieces
from forge_cli.mine.words import words

# In a string of JSON: the n in \\n is no part of the next word.
_ESCAPE = re.compile(r"\\.")


def cut_file(
    source: Source,
    language: str,
    repo: str,
    limit: int,
    *,
    calls: bool = True,
    seconds: float = 20.0,
) -> tuple[list[Chunk], Tags]:
    """Chunks of one file, in order, disjoint and covering all its bytes; and its tags.

    Args:
        limit: largest chunk, in bytes of UTF-8.
        calls: look for calls too.
        seconds: longest parse.

    Raises:
        ValueError: the parse took longer.
    """
    data = source.data
    if not data:
        return [], Tags(data)
    starts = line_starts(data)
    if language == "notebook":
        return list(_cells(source, repo, limit, calls, seconds, starts)), Tags(data)
    root, tags = _parsed(data, language, calls, seconds)
    chunks: list[Chunk] = []
    for piece in _pieces(data, language, root, tags, limit, starts):
        ranges = [(piece.start, piece.end)]
        if piece.end - piece.start > limit:
            depths = _depths(data, root, piece.start, piece.end, starts)
            ranges = cut(data, piece.start, piece.end, limit, starts, depths)
        chunks += _chunks(source, language, repo, tags, piece, ranges, starts)
    return chunks, tags


def _cells(
    source: Source, repo: str, limit: int, calls: bool, seconds: float, starts: list[int]
) -> Iterator[Chunk]:
    """Chunks of a notebook: each has those of its cell's calls that stand in it."""
    segments, tags = find_segments(source.data, calls=calls, seconds=seconds)
    for segment in segments:
        piece = Piece(segment.start, segment.end, segment.kind, None, "gap")
        ranges = cut(source.data, piece.start, piece.end, limit, starts, {})
        code = segment.source.encode("utf-8", "replace")
        header = header_for(None, "", tags, code, segment.language)
        for chunk in _chunks(source, "notebook", repo, Tags(), piece, ranges, starts):
            inside = set(words(_ESCAPE.sub(" ", chunk.text).encode()))
            called = [name for name in segment.calls if name.encode() in inside]
            yield chunk.model_copy(update={"calls": called, "header": header})


def _pieces(
    data: bytes, language: str, root: Any, tags: Tags, limit: int, starts: list[int]
) -> list[Piece]:
    """Definitions and the gaps between them; without a query, what stands at the top."""
    if languages()[language].tagged or language == "text":
        return find_pieces(data, tags, limit)
    depths = _depths(data, root, 0, len(data), starts)
    tops = blocks(data, depths, 0, len(data), limit)
    return [Piece(start, end, "module", None, "gap") for start, end in tops]


def _depths(data: bytes, root: Any, start: int, end: int, starts: list[int]) -> dict[int, int]:
    if root is None:
        within = starts[bisect_left(starts, start) : bisect_left(starts, end)]
        return paragraph_depths(data, within, end)
    return statement_depths(root, data, start, end)


def _parsed(data: bytes, language: str, calls: bool, seconds: float) -> tuple[Any, Tags]:
    """The root of the syntax tree (None: there is none that helps) and the tags."""
    about = languages()[language]
    if not about.parsed:
        return None, Tags(data)
    try:
        root, tags = parse(data, language, calls=calls, seconds=seconds)
    except ValueError:
        if about.tagged:
            raise
        return None, Tags(data)  # without symbols only the better places to cut are lost
    if not about.tagged:
        broken = sum(n.end_byte - n.start_byte for n in [root, *root.children] if n.is_error)
        if 2 * broken > len(data):
            root = None  # paragraphs say more than one large error
    return root, tags


def _chunks(
    source: Source,
    language: str,
    repo: str,
    tags: Tags,
    piece: Piece,
    ranges: list[tuple[int, int]],
    starts: list[int],
) -> Iterator[Chunk]:
    unit = piece.unit
    facts, owner = Facts("", ""), unit
    if unit is not None and piece.role != "gap":
        facts = describe(unit.definition, language, source.data)
        owner = unit.parent
    kind = piece.kind
    if kind == "module" and languages()[language].prose:
        kind = "text"
    for part, (start, end) in enumerate(ranges, 1):
        raw = source.data[start:end]
        text = raw.decode("utf-8")
        within = owner.definition if owner else None
        repeated = facts.signature if part > 1 else ""
        yield Chunk(
            id=content_id(source.path, start, text),
            repo=repo,
            path=source.path,
            language=language,
            start_byte=start,
            end_byte=end,
            start_line=bisect_left(starts, start + 1),
            end_line=bisect_left(starts, end),
            kind=kind,
            symbol=unit.symbol if unit else None,
            signature=facts.signature or None,
            docstring=facts.docstring or None,
            header=header_for(within, repeated, tags, raw, language),
            text=text,
            part=part,
            parts=len(ranges),
            calls=_calls(tags, start, end),
        )


def _calls(tags: Tags, start: int, end: int) -> list[str]:
    """The names called in start..end, each once, in order."""
    if not tags.calls:
        return []
    first = bisect_left(tags.calls, (start, ""))
    last = bisect_left(tags.calls, (end, ""))
    return list(dict.fromkeys(name for _, name in tags.calls[first:last]))
