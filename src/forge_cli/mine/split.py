"""Cut an oversized range where it hurts least: statements, then lines, then characters."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import Any

# Added to the depth of what stands right under its comment: a cut there tears the two.
_UNDER_COMMENT = 1 << 10
_NO_STATEMENT = 1 << 16


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
    comment_end = -1  # where the line after the last comment of its own line begins
    while (node := cursor.node) is not None:
        start = data.rfind(b"\n", 0, node.start_byte) + 1
        if start not in depths and not data[start : node.start_byte].strip():
            depths[start] = depth + (_UNDER_COMMENT if start == comment_end else 0)
            if "comment" in node.type:
                comment_end = data.find(b"\n", node.end_byte - 1) + 1
        # Only nodes of several lines can hold another line's start.
        several = node.start_point[0] != node.end_point[0]
        if (
            several
            and node.end_byte > first
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
