"""Which comments belong to a definition, and what they say."""

from __future__ import annotations

import inspect
import re
from typing import Any

from forge_cli.mine.grammar import text_of

_LEADING = re.compile("comment|attribute_item|decorator|annotation|pragma|marginalia")
_COMMENT = re.compile("comment|marginalia")  # a grammar of SQL calls /* … */ marginalia
_ATTRIBUTE = re.compile("attribute_item|decorator|annotation")
_BOM = b"\xef\xbb\xbf"
_MARKS = re.compile(
    r"^[ \t]*(/\*+!?|\*+/|\*(?!/)|//[/!]?|#+!?)[ \t]?|[ \t]*\*/[ \t]*$", re.MULTILINE
)
_DASHES = re.compile(r"^[ \t]*(--\[=*\[|-{2,})[ \t]?|[ \t]*\]=*\][ \t]*$", re.MULTILINE)
# A line of a frame around a comment.
_FRAME = re.compile(r"^[ \t]*[-*=#/~_+]{4,}[ \t]*$", re.MULTILINE)
_XML_DOC = re.compile(r"</?(summary|remarks|para)\s*/?>")


def start_with_comments(data: bytes, node: Any) -> int:
    """Where the definition begins, with the comments and attributes right above it."""
    start = line_start(data, node.start_byte)
    # Below a blank line, as most are, nothing belongs to it: the tree need not be asked.
    end_of_above = start - 1
    if end_of_above < 0 or not data[data.rfind(b"\n", 0, end_of_above) + 1 : end_of_above].strip():
        return start
    above = _above(data, node, node.start_byte - start)
    while above is not None and _LEADING.search(above.type):
        between = data[above.end_byte : start]
        # Some grammars count a comment's newline as part of it.
        newlines = between.count(b"\n") + (data[above.end_byte - 1 : above.end_byte] == b"\n")
        own_line = line_start(data, above.start_byte)
        if between.strip() or newlines > 1 or data[own_line : above.start_byte].strip():
            break
        # A comment that ends the line of something else belongs to that.
        if own_line and data[own_line - 1 : own_line] != b"\n":
            break
        if _names_interpreter(data, above):
            break
        start = own_line
        above = _above(data, above, above.start_byte - own_line)
    return start


def comment_above(node: Any, data: bytes) -> str:
    """What the comment block says that ends right above, or above the attributes above."""
    blocks: list[str] = []
    below = node
    indent = node.start_byte - line_start(data, node.start_byte)
    while (above := _above(data, below, indent)) is not None:
        newlines = data[above.end_byte : below.start_byte].count(b"\n")
        # Some grammars count a comment's newline as part of it.
        if newlines + (data[above.end_byte - 1 : above.end_byte] == b"\n") > 1:
            break
        if _COMMENT.search(above.type):
            line = data[data.rfind(b"\n", 0, above.start_byte) + 1 : above.start_byte]
            if line.strip() or _names_interpreter(data, above):
                break  # it ends the line of something else
            blocks.insert(0, _unmarked(text_of(data, above)))
        elif not _ATTRIBUTE.search(above.type):
            break
        below = above
    return inspect.cleandoc("\n".join(blocks)).strip()


def _unmarked(comment: str) -> str:
    text = comment.replace("\r\n", "\n").rstrip()
    text = _FRAME.sub("", (_DASHES if text.startswith("--") else _MARKS).sub("", text))
    return _XML_DOC.sub("", text) if "<" in text else text


def _above(data: bytes, node: Any, indent: int) -> Any:
    """The node before this one; the first node of a body looks above the body.

    In Python the comment over a class's first member stands outside the class's block. In
    Kotlin the comment over the first class stands inside the last import; in Scala without
    braces, one between two classes stands in the first one's body.
    """
    while (above := node.prev_named_sibling) is None:
        parent = node.parent
        if parent is None or parent.start_byte != node.start_byte:
            return None
        node = parent
    if _LEADING.search(above.type):
        return above
    last = above
    while not _COMMENT.search(last.type):
        count = last.named_child_count
        inner = last.named_child(count - 1) if count else None
        if inner is None or data[inner.end_byte : last.end_byte].strip():
            return above
        last = inner
    # One that stands deeper belongs to the block that it ends.
    own = last.start_byte - line_start(data, last.start_byte)
    return last if own <= indent else above


def _names_interpreter(data: bytes, comment: Any) -> bool:
    return bool(comment.start_byte == 0 and data.startswith(b"#!"))


def line_start(data: bytes, at: int) -> int:
    """The start of the line if only white space stands before `at`, else `at`."""
    start = data.rfind(b"\n", 0, at) + 1
    return at if data[start:at].removeprefix(_BOM).strip() else start
