"""Cut an oversized range where it hurts least: statements, then lines, then characters."""

from __future__ import annotations

from typing import Any


def line_starts(data: bytes) -> list[int]:
    """Byte offsets at which lines begin."""
    starts = [0]
    at = data.find(b"\n")
    while at != -1:
        starts.append(at + 1)
        at = data.find(b"\n", at + 1)
    if starts[-1] == len(data) and len(starts) > 1:
        starts.pop()
    return starts


def statement_depths(root: Any, data: bytes) -> dict[int, int]:
    """Start of a line → depth of the outermost node that begins there.

    A cut before a shallow node parts two statements; a cut before a deep one parts the
    arguments of a call.
    """
    depths: dict[int, int] = {}
    cursor = root.walk()
    depth = 0
    while True:
        node = cursor.node
        start = data.rfind(b"\n", 0, node.start_byte) + 1
        if not data[start : node.start_byte].strip():
            depths.setdefault(start, depth)
        # Only nodes of several lines can hold another line's start.
        inside = node.start_point[0] != node.end_point[0] and cursor.goto_first_child()
        if inside:
            depth += 1
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return depths
            depth -= 1


def cut(
    data: bytes, start: int, end: int, limit: int, starts: list[int], depths: dict[int, int]
) -> list[tuple[int, int]]:
    """Disjoint ranges of at most `limit` bytes that cover start..end.

    Args:
        starts: where lines begin. depths: of the statements that begin at some of them.
    """
    from bisect import bisect_left, bisect_right

    pieces = []
    while end - start > limit:
        window = starts[bisect_right(starts, start) : bisect_left(starts, start + limit + 1)]
        # Not too early, or the pieces would be crumbs.
        late = [at for at in window if at - start >= limit // 3] or window
        if late:
            best = min(late, key=lambda at: (depths.get(at, 1 << 16), -at))
        else:
            best = start + limit
            while data[best] & 0xC0 == 0x80:  # inside a UTF-8 sequence
                best -= 1
        pieces.append((start, best))
        start = best
    pieces.append((start, end))
    return pieces
