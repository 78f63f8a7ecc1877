"""Signature, docstring and header of a definition."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from typing import Any

from forge_cli.mine.grammar import Definition, Tags

_HEADER_CHARS = 400
_COMMENT_MARKS = re.compile(
    r"^[ \t]*(/\*\*?|\*/|\*(?!/)|//[/!]?|#+!?)[ \t]?|[ \t]*\*/[ \t]*$", re.MULTILINE
)


@dataclass(frozen=True)
class Facts:
    """What stands in a definition's own words."""

    signature: str
    docstring: str


def describe(definition: Definition, language: str, data: bytes) -> Facts:
    """Signature on one line, and the docstring without its marks."""
    if definition.kind == "section":
        return Facts("", "")
    if language == "python":
        docstring = _python_docstring(definition.node)
    else:
        docstring = _comment_above(definition.outer, data)
    return Facts(signature(definition), docstring)


def signature(definition: Definition) -> str:
    """The text of a definition up to its body, on one line."""
    node = definition.node
    body = _body(node, 3)
    end = body.start_byte if body is not None else node.end_byte
    text = node.text[: end - node.start_byte].decode("utf-8", "replace")
    if body is None:
        text = text.split("\n", 1)[0]
    # A comment between the signature and the body is not part of it.
    text = re.sub(r"(?m)\s(#|//) .*$", "", text)
    return " ".join(text.split()).rstrip("{: ").removesuffix("=>").rstrip()


def _body(node: Any, depth: int) -> Any:
    if found := node.child_by_field_name("body"):
        return found
    if depth:
        for child in node.named_children:
            if found := _body(child, depth - 1):
                return found
    return None


def _python_docstring(node: Any) -> str:
    body = node.child_by_field_name("body")
    first = next((c for c in body.named_children if c.type != "comment"), None) if body else None
    # Grammar versions differ in whether an expression statement wraps the string.
    if first is not None and first.type == "expression_statement" and first.named_children:
        first = first.named_children[0]
    if first is None or first.type != "string":
        return ""
    try:
        value = ast.literal_eval(first.text.decode("utf-8"))
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
            lines.insert(0, above.text.decode("utf-8", "replace").rstrip("\n"))
        elif not re.search("attribute_item|decorator|annotation", above.type):
            break
        below, above = above, above.prev_named_sibling
    return inspect.cleandoc(_COMMENT_MARKS.sub("", "\n".join(lines))).strip()


def header_for(owner: Definition | None, own: str, tags: Tags, text: str) -> str:
    """The enclosing class, a later part's own signature, and the imports that `text` uses."""
    lines = [signature(owner)] if owner and owner.kind != "section" else []
    if own:
        lines.append(own)
    used = set(re.findall(r"\w+", text))
    size = sum(map(len, lines))
    for statement in tags.imports:
        names = re.findall(r"\w+", statement.split("import", 1)[-1])
        size += len(statement)
        if statement not in text and size <= _HEADER_CHARS and used.intersection(names):
            lines.append(statement.strip())
    return "\n".join(line for line in lines if line)
