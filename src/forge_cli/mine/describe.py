"""Signature, docstring and header of a definition."""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from forge_cli.mine.grammar import Definition, Tags, text_of
from forge_cli.mine.imports import import_names
from forge_cli.mine.words import words

_HEADER_CHARS = 400
_COMMENT_MARKS = re.compile(
    r"^[ \t]*(/\*\*?|\*/|\*(?!/)|//[/!]?|#+!?)[ \t]?|[ \t]*\*/[ \t]*$", re.MULTILINE
)
_ATTRIBUTE = re.compile("attribute_item|decorator|annotation")
# A literal without escapes says what it says: no need to compile it.
_PLAIN_STRING = re.compile(
    r"""(?:[uU]?(?P<q>\"{3}|'{3}|"|')(?P<t>[^\\]*)|[rR](?P<rq>\"{3}|'{3}|"|')(?P<rt>.*))"""
    r"""(?(q)(?P=q)|(?P=rq))\Z""",
    re.DOTALL,
)


@dataclass(frozen=True)
class Facts:
    """What stands in a definition's own words; "" where nothing does."""

    signature: str
    docstring: str


def describe(definition: Definition, language: str, data: bytes) -> Facts:
    """Signature on one line, and the docstring without its marks."""
    if definition.kind == "section":
        return Facts("", "")
    if language == "python":
        docstring = _python_docstring(definition.node, data)
    else:
        docstring = _comment_above(definition.outer, data)
    return Facts(signature(definition, data), docstring)


def signature(definition: Definition, data: bytes) -> str:
    """The text of a definition up to its body, on one line, without comments."""
    node = definition.node
    body = _body(node, 3)
    end = body.start_byte if body is not None else node.end_byte
    raw = data[node.start_byte : end]
    if b"#" in raw or b"//" in raw or b"/*" in raw:
        for comment in reversed(list(_comments(node, end))):
            first, last = comment.start_byte - node.start_byte, comment.end_byte - node.start_byte
            raw = raw[:first] + b" " + raw[last:]
    text = raw.decode("utf-8", "replace")
    if body is None:
        text = text.split("{", 1)[0] if definition.kind == "class" else text.split("\n", 1)[0]
    return " ".join(text.split()).rstrip("{: ").removesuffix("=>").rstrip(" =")


def _comments(node: Any, end: int) -> Iterator[Any]:
    """The comments in a node that begin before `end`, in order."""
    for child in node.children:
        if child.start_byte >= end:
            return
        if "comment" in child.type:
            yield child
        else:
            yield from _comments(child, end)


def _body(node: Any, depth: int) -> Any:
    if found := node.child_by_field_name("body"):
        return found
    if depth:
        for child in node.named_children:
            if found := _body(child, depth - 1):
                return found
    return None


def _python_docstring(node: Any, data: bytes) -> str:
    body = node.child_by_field_name("body")
    first = next((c for c in body.named_children if c.type != "comment"), None) if body else None
    # Grammar versions differ in whether an expression statement wraps the string.
    if first is not None and first.type == "expression_statement" and first.named_children:
        first = first.named_children[0]
    if first is None or first.type != "string":
        return ""
    text = text_of(data, first)
    if plain := _PLAIN_STRING.match(text):
        content = plain["t"] if plain["t"] is not None else plain["rt"]
        return inspect.cleandoc(content.replace("\r\n", "\n"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in the mined code
            value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return ""
    return inspect.cleandoc(value) if isinstance(value, str) else ""


def _comment_above(node: Any, data: bytes) -> str:
    """The comment block that ends on the line above, or on the lines of attributes above."""
    lines: list[str] = []
    below = node
    above = node.prev_named_sibling
    while above is not None:
        if data[above.end_byte : below.start_byte].count(b"\n") > 1:
            break
        if "comment" in above.type:
            line = data[data.rfind(b"\n", 0, above.start_byte) + 1 : above.start_byte]
            if line.strip():
                break  # it ends the line of something else
            lines.insert(0, text_of(data, above).replace("\r\n", "\n").rstrip())
        elif not _ATTRIBUTE.search(above.type):
            break
        below, above = above, above.prev_named_sibling
    return inspect.cleandoc(_COMMENT_MARKS.sub("", "\n".join(lines))).strip()


def _imports_used(tags: Tags, text: str) -> list[str]:
    """The imports that bring a name into the file which stands in `text`, in order."""
    if not tags.imports:
        return []
    if not tags.imported:
        for number, statement in enumerate(tags.imports):
            for name in import_names(statement):
                tags.imported.setdefault(name, []).append(number)
    names = tags.imported.keys() & set(words(text.encode()))
    used = {number for name in names for number in tags.imported[name]}
    return [tags.imports[number] for number in sorted(used)]


def header_for(owner: Definition | None, own: str, tags: Tags, text: str) -> str:
    """The enclosing class, a later part's own signature, and the imports that `text` uses."""
    lines = [signature(owner, tags.data)] if owner and owner.kind != "section" else []
    if own:
        lines.append(own)
    size = sum(map(len, lines))
    for statement in _imports_used(tags, text):
        if statement in text:
            continue
        size += len(statement)
        if size > _HEADER_CHARS:
            break
        lines.append(statement)
    return "\n".join(line for line in lines if line)
