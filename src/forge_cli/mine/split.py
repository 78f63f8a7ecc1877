"""Cut an oversized range where it hurts least: statements, then lines, then characters."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from itertools import accumulate, pairwise
from typing import Any

# Added to the depth of what stands right under its comment, or inside of a paragraph: a cut
# there tears the two.
_UNDER_COMMENT = 1 << 10
_NO_STATEMENT = 1 << 16
# What stands above something and belongs to it, in any grammar.
_LEADS = re.compile(
    "omment|haddock|marginalia|decorator|annotation|attribute_item|attribute_list|^signature$"
)
_CLOSES = re.compile(rb"[ \t]*(?:[\])};,]|</|end\b)")


def line_starts(data: bytes) -> list[int]:
    """Byte offsets at which lines begin."""
    lengths = map(len, data.split(b"\n"))
    starts = list(accumulate(lengths, lambda at, length: at + length + 1, initial=0))
    del starts[-1]  # one past the end
    if starts[-1] == len(data) and len(starts) > 1:
        starts.pop()
    return starts


def statement_depths(root: Any, data: bytes, first: int, last: int) -> dict[int, int]:
    """Start of a line → depth of the outermost node that begins there, for first..last.

    A cut before a shallow node parts two statements; a cut before a deep one parts the
    arguments of a call.
    """
    depths: dict[int, int] = {}
    cursor = root.walk()
    depth = 0
    # Where the last comments of their own lines begin, and the line that they stand above.
    lead, below = 0, -1
    # Of the line that was looked at last: its first node, its ends, whether that node begins it.
    begin = start = line_end = -1
    begins = False
    while (node := cursor.node) is not None:
        at, end = node.start_byte, node.end_byte
        # Only the first node of a line, and those within it, can begin the line.
        if at > line_end:
            begin, line_end = at, data.find(b"\n", at) % (len(data) + 1)
            start = data.rfind(b"\n", 0, at) + 1
            begins = not data[start:at].strip()
        if at == begin and begins:
            leads = _LEADS.search(node.type)
            if start not in depths:
                depths[start] = depth + (_UNDER_COMMENT if start == below else 0)
                # A comment may stand deep at the end of what comes before.
                if start == below and not leads:
                    depths[lead] = min(depths[lead], depth)
            if leads:
                lead = lead if start == below else start
                below = data.find(b"\n", end - 1) + 1
        # Only nodes of several lines can hold another line's start. A comment is one thing,
        # though a grammar may look into it.
        if (
            end > line_end
            and end > first
            and "omment" not in node.type
            and cursor.goto_first_child_for_byte(first) is not None
        ):
            depth += 1
            continue
        while node.start_byte >= last or not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return depths
            depth -= 1
            node = cursor.node
    return depths


def paragraph_depths(data: bytes, starts: list[int], end: int) -> dict[int, int]:
    """Like `statement_depths`, of a file without a grammar: by blank lines and indent.

    Args:
        starts: where its lines begin. end: of the last one.
    """
    depths: dict[int, int] = {}
    after_blank = True
    for start, stop in pairwise([*starts, end]):
        line = data[start:stop]
        text = line.lstrip()
        if text:
            indent = len(line) - len(text)
            depths[start] = indent + (0 if after_blank else _UNDER_COMMENT)
        after_blank = not text
    return depths


def blocks(
    data: bytes, depths: dict[int, int], start: int, end: int, limit: int
) -> list[tuple[int, int]]:
    """Ranges that cover start..end, parted before its outermost nodes.

    Neighbours share a range while it stays within `limit`; a node that is larger than that
    has its own. The outermost depth is the first at which there is something to part: an
    element that is the whole document does not count. What is most of a range is parted again.

    Args:
        depths: of the nodes that begin a line (`statement_depths`).
    """
    inside = {
        at: depth
        for at, depth in depths.items()
        if start < at < end and depth < _UNDER_COMMENT and not _CLOSES.match(data, at)
    }
    if not inside:
        return [(start, end)]
    top = min(inside.values())
    items = pairwise([start, *sorted(at for at, depth in inside.items() if depth == top), end])
    ranges: list[tuple[int, int]] = []
    for first, last in items:
        if ranges and last - ranges[-1][0] <= limit:
            ranges[-1] = ranges[-1][0], last
        elif last - first > limit and 2 * (last - first) > end - start:
            ranges += blocks(data, depths, first, last, limit)
        else:
            ranges.append((first, last))
    return ranges


def cut(
    data: bytes, start: int, end: int, limit: int, starts: list[int], depths: dict[int, int]
) -> list[tuple[int, int]]:
    """Disjoint ranges of at most `limit` bytes that cover start..end.

    Args:
        starts: where lines begin. depths: of the statements that begin at some of them.
    """
    ranges = []
    while end - start > limit:
        window = starts[bisect_right(starts, start) : bisect_left(starts, start + limit + 1)]
        # Neither too early nor right before the end, or the ranges would be crumbs.
        late = [at for at in window if at - start >= limit // 3] or window
        late = [at for at in late if end - at >= limit // 5] or late
        if late:
            best = min(late, key=lambda at: (depths.get(at, _NO_STATEMENT), -at))
        else:
            best = start + limit
            while data[best] & 0xC0 == 0x80:  # inside a UTF-8 sequence
                best -= 1
        ranges.append((start, best))
        start = best
    ranges.append((start, end))
    return ranges
