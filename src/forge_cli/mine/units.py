"""From the tags of a file to pieces that cover it: definitions whole, gaps between them kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from forge_cli.mine.comments import line_start, start_with_comments
from forge_cli.mine.grammar import CONTAINERS, Definition, Tags

_BOM = b"\xef\xbb\xbf"
# What may follow a definition on its last line and still belongs to it.
_REST_OF_LINE = re.compile(rb"[ \t]*[;,]?[ \t]*((#|//|--)[^\n]*|/\*[^\n]*\*/[ \t]*)?\r?(\n|$)")
# What is left of a container after its last member: no document in its own right.
_CLOSING = re.compile(rb"(?:[\s})\];,]|@?end\b(?:[ \t]+\w+(?=\s*\Z))?)*\Z")


@dataclass
class Unit:
    """A definition with the range that it claims and what it holds."""

    definition: Definition
    start: int
    end: int
    symbol: str = ""
    kind: str = ""
    parent: Unit | None = None
    children: list[Unit] = field(default_factory=list)


@dataclass(frozen=True)
class Piece:
    """A range of the file that becomes a chunk, or several.

    role: "whole" is a definition; "head" the opening of a container, up to its first member;
    "gap" what stands between definitions (`unit` is then the container, or None).
    """

    start: int
    end: int
    kind: str
    unit: Unit | None
    role: Literal["whole", "head", "gap"]


def find_pieces(data: bytes, tags: Tags, limit: int) -> list[Piece]:
    """Pieces of a file, in order, disjoint and covering all its bytes.

    Args:
        limit: largest chunk, in bytes; what is larger is opened here or cut later.
    """
    units = [*_units(data, tags), *_sections(data, tags)]
    pieces = _pieces(_nest(units), 0, len(data), None, limit)
    return _absorb(data, list(pieces), limit)


def _units(data: bytes, tags: Tags) -> Iterator[Unit]:
    for definition in tags.definitions:
        if definition.kind == "section":
            continue
        outer = definition.outer
        start = start_with_comments(data, outer)
        end = outer.end_byte
        # A node that ends with its line has no rest of the line.
        if data[end - 1 : end] != b"\n" and (rest := _REST_OF_LINE.match(data, end)):
            end = rest.end()
        yield Unit(definition, start, end)


def _sections(data: bytes, tags: Tags) -> Iterator[Unit]:
    """Each heading with what stands below it, up to one of its level or a higher one.

    The grammar's own sections end at `# Heading` only, not at underlined headings.
    """
    headings = [
        (line_start(data, d.node.start_byte), _heading_level(d.node), d)
        for d in tags.definitions
        if d.kind == "section" and d.node.parent.type in ("section", "document")
    ]
    for index, (start, level, definition) in enumerate(headings):
        later = (at for at, other, _ in headings[index + 1 :] if other <= level)
        yield Unit(definition, start, next(later, len(data)))


def _heading_level(node: Any) -> int:
    marks = (re.search(r"_h(\d)_", child.type) for child in node.children)
    return next((int(mark[1]) for mark in marks if mark), 1)


def _nest(units: list[Unit]) -> list[Unit]:
    """Put units into those that contain them; name them; drop what is inside functions."""
    top: list[Unit] = []
    stack: list[Unit] = []
    for unit in sorted(units, key=lambda u: (u.start, -u.end)):
        while stack and stack[-1].end <= unit.start:
            stack.pop()
        # A grammar by indentation may count the comment above a definition to the one before.
        while stack and _stands_below(unit, stack[-1]):
            stack.pop().end = unit.start
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


def _stands_below(unit: Unit, other: Unit) -> bool:
    end: int = other.definition.outer.end_byte
    return other.kind != "section" and end <= unit.definition.outer.start_byte


def _swallowed(unit: Unit, by: Unit) -> bool:
    """Whether a definition is inside another only because that one's syntax is broken."""
    own, other = unit.definition.outer, by.definition.outer
    left = own.start_point[1] <= other.start_point[1]
    return left and by.kind not in ("namespace", "section") and by.definition.node.has_error


def _name(unit: Unit, parent: Unit | None) -> None:
    definition = unit.definition
    scope = definition.scope or (parent.symbol if parent else "")
    unit.symbol = f"{scope}.{definition.name}" if scope else definition.name
    unit.kind = definition.kind
    inside = parent is not None and parent.kind in ("class", "implementation")
    # `Foo::bar` and `Foo.prototype.bar` are methods that stand outside their class.
    if unit.kind == "function" and (inside or "." in definition.name):
        unit.kind = "method"


def _pieces(
    units: list[Unit], start: int, end: int, owner: Unit | None, limit: int
) -> Iterator[Piece]:
    """Ranges of start..end: whole units, opened containers, and the gaps between."""
    at = start
    kind = owner.kind if owner else "module"
    for unit in units:
        if unit.start < at:
            continue
        if unit.start > at:
            yield Piece(at, unit.start, kind, owner, "head" if owner and at == start else "gap")
        # A class of some size is opened, so that each method can be asked about.
        if unit.children and unit.end - unit.start > limit // 2:
            yield from _pieces(unit.children, unit.start, unit.end, unit, limit)
        else:
            yield Piece(unit.start, unit.end, unit.kind, unit, "whole")
        at = unit.end
    if at < end:
        yield Piece(at, end, kind, owner, "head" if owner and at == start else "gap")


def _absorb(data: bytes, pieces: list[Piece], limit: int) -> list[Piece]:
    """Give blank gaps and closing brackets to a neighbour that stays within `limit`."""
    kept: list[Piece] = []
    for piece in pieces:
        if kept:
            last = kept[-1]
            size = piece.end - last.start
            # A piece that is too large anyway is cut anyway.
            room = size <= limit or last.end - last.start > limit
            if room and piece.role == "gap" and _CLOSING.match(data, piece.start, piece.end):
                kept[-1] = Piece(last.start, piece.end, last.kind, last.unit, last.role)
                continue
            if _is_blank(data, last) and (size <= limit or piece.end - piece.start > limit):
                kept[-1] = Piece(last.start, piece.end, piece.kind, piece.unit, piece.role)
                continue
        kept.append(piece)
    return kept


def _is_blank(data: bytes, piece: Piece) -> bool:
    return not data[piece.start : piece.end].removeprefix(_BOM).strip()
