"""From a parsed file to chunks that cover it: definitions whole, gaps between them kept."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from forge_cli.core.records import Chunk, content_id
from forge_cli.mine.describe import describe, header_for
from forge_cli.mine.files import Source
from forge_cli.mine.grammar import CONTAINERS, Definition, Tags, parse
from forge_cli.mine.split import cut, line_starts, statement_depths

_LEADING = re.compile("comment|attribute_item|decorator|annotation|pragma")
# What may follow a definition on its last line and still belongs to it.
_REST_OF_LINE = re.compile(rb"[ \t]*[;,]?[ \t]*((#|//)[^\n]*|/\*[^\n]*\*/[ \t]*)?\r?(\n|$)")


@dataclass
class _Unit:
    """A definition with the range that it claims and what it holds."""

    definition: Definition
    start: int
    end: int
    symbol: str = ""
    kind: str = ""
    parent: _Unit | None = None
    children: list[_Unit] = field(default_factory=list)


@dataclass
class _Piece:
    """A range of the file that becomes a chunk, or several."""

    start: int
    end: int
    kind: str
    unit: _Unit | None


def cut_file(source: Source, language: str, repo: str, limit: int) -> list[Chunk]:
    """Chunks of one file, in order, disjoint and covering all its bytes.

    Args:
        limit: largest chunk, in bytes of UTF-8.
    """
    data = source.data
    if not data:
        return []
    starts = line_starts(data)
    if language == "text":
        root, tags, units = None, Tags(), []
    else:
        root, tags = parse(data, language)
        units = _nest(_units(data, tags))
    pieces = list(_pieces(data, units, 0, len(data), None, limit))
    depths: dict[int, int] | None = None
    chunks = []
    for piece in _absorb_blank(data, pieces):
        ranges = [(piece.start, piece.end)]
        if piece.end - piece.start > limit:
            if depths is None:
                depths = statement_depths(root, data) if root is not None else {}
            ranges = cut(data, piece.start, piece.end, limit, starts, depths)
        for part, (start, end) in enumerate(ranges, 1):
            chunks.append(
                _chunk(source, language, repo, tags, piece, start, end, part, len(ranges), starts)
            )
    return chunks


def _units(data: bytes, tags: Tags) -> Iterator[_Unit]:
    for definition in tags.definitions:
        outer = definition.outer
        start = _with_comments(data, outer)
        end = outer.end_byte
        # A node that ends with its line (a Markdown section) has no rest.
        if data[end - 1 : end] != b"\n" and (rest := _REST_OF_LINE.match(data, end)):
            end = rest.end()
        yield _Unit(definition, start, end)


def _with_comments(data: bytes, node: Any) -> int:
    """Where the definition begins, with the comments and attributes right above it."""
    start = _line_start(data, node.start_byte)
    above = node.prev_named_sibling
    while above is not None and _LEADING.search(above.type):
        between = data[above.end_byte : start]
        own_line = _line_start(data, above.start_byte)
        blank_line = between.strip() or between.count(b"\n") > 1
        if blank_line or data[own_line : above.start_byte].strip():
            break
        start = own_line
        above = above.prev_named_sibling
    return start


def _line_start(data: bytes, at: int) -> int:
    """The start of the line if only white space stands before `at`, else `at`."""
    start = data.rfind(b"\n", 0, at) + 1
    return at if data[start:at].strip() else start


def _nest(units: Iterator[_Unit]) -> list[_Unit]:
    """Put units into those that contain them; name them; drop what is inside functions."""
    top: list[_Unit] = []
    stack: list[_Unit] = []
    for unit in sorted(units, key=lambda u: (u.start, -u.end)):
        while stack and stack[-1].end <= unit.start:
            stack.pop()
        while stack and _swallowed(unit, stack[-1]):
            stack.pop().end = unit.start
        parent = stack[-1] if stack else None
        if parent is not None and (unit.end > parent.end or parent.kind not in CONTAINERS):
            continue  # a local definition, or an overlap after a syntax error
        _name(unit, parent)
        (parent.children if parent else top).append(unit)
        unit.parent = parent
        stack.append(unit)
    return top


def _swallowed(unit: _Unit, by: _Unit) -> bool:
    """Whether a definition is inside another only because that one's syntax is broken."""
    own, other = unit.definition.outer, by.definition.outer
    left = own.start_point[1] <= other.start_point[1]
    return left and by.kind not in ("namespace", "section") and by.definition.node.has_error


def _name(unit: _Unit, parent: _Unit | None) -> None:
    definition = unit.definition
    scope = definition.scope or (parent.symbol if parent else "")
    unit.symbol = f"{scope}.{definition.name}" if scope else definition.name
    unit.kind = definition.kind
    if unit.kind == "function" and parent is not None and parent.kind == "class":
        unit.kind = "method"


def _pieces(
    data: bytes, units: list[_Unit], start: int, end: int, owner: _Unit | None, limit: int
) -> Iterator[_Piece]:
    """Ranges of start..end: whole units, opened containers, and the gaps between."""
    at = start
    gap = owner.kind if owner else "module"
    for unit in units:
        if unit.start < at:
            continue
        if unit.start > at:
            yield _Piece(at, unit.start, gap, owner)
        # A class of some size is opened, so that each method can be asked about.
        if unit.children and unit.end - unit.start > limit // 2:
            yield from _pieces(data, unit.children, unit.start, unit.end, unit, limit)
        else:
            yield _Piece(unit.start, unit.end, unit.kind, unit)
        at = unit.end
    if at < end:
        yield _Piece(at, end, gap, owner)


def _absorb_blank(data: bytes, pieces: list[_Piece]) -> list[_Piece]:
    """Give blank gaps to the piece before them (the first one to the piece after)."""
    kept: list[_Piece] = []
    for piece in pieces:
        blank = not data[piece.start : piece.end].strip()
        if kept and (blank or not data[kept[-1].start : kept[-1].end].strip()):
            last = kept.pop()
            heir = last if blank else piece
            piece = _Piece(last.start, piece.end, heir.kind, heir.unit)
        kept.append(piece)
    return kept


def _chunk(
    source: Source,
    language: str,
    repo: str,
    tags: Tags,
    piece: _Piece,
    start: int,
    end: int,
    part: int,
    parts: int,
    starts: list[int],
) -> Chunk:
    text = source.data[start:end].decode("utf-8")
    unit = piece.unit
    whole = unit is not None and piece.kind == unit.kind and not _is_gap(piece)
    facts = describe(unit.definition, language, source.data) if whole and unit else None
    owner = unit.parent if whole and unit else unit
    own_signature = facts.signature if facts and part > 1 else ""
    first = bisect_left(tags.calls, (start, ""))
    calls = []
    for at, name in tags.calls[first:]:
        if at >= end:
            break
        calls.append(name)
    kind = piece.kind
    if language in ("text", "markdown") and kind == "module":
        kind = "text"
    return Chunk(
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
        signature=(facts.signature or None) if facts else None,
        docstring=(facts.docstring or None) if facts else None,
        header=header_for(owner.definition if owner else None, own_signature, tags, text),
        text=text,
        part=part,
        parts=parts,
        calls=list(dict.fromkeys(calls)),
    )


def _is_gap(piece: _Piece) -> bool:
    """Whether a piece is what is left of an opened container."""
    return (
        piece.unit is not None
        and (piece.start > piece.unit.start or piece.end < piece.unit.end)
        and bool(piece.unit.children)
    )
