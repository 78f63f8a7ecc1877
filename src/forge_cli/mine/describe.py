"""Signature, docstring and header of a definition."""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from forge_cli.mine.comments import comment_above
from forge_cli.mine.grammar import Definition, Tags, text_of
from forge_cli.mine.imports import import_names
from forge_cli.mine.words import words

_HEADER_CHARS = 400
_LONG = 300
_AT = ord("@")
_ANNOTATION = re.compile("annotation|attribute")
_EMPTY_BODY = re.compile(r"[;\s]+end\s*$")
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
        docstring = comment_above(definition.outer, data)
    return Facts(signature(definition, data), docstring)


def signature(definition: Definition, data: bytes) -> str:
    """The text of a definition up to its body, on one line, without comments."""
    node = definition.node
    start = _after_annotations(node) if data[node.start_byte] in b"@[#" else node.start_byte
    # In Objective-C what has a body may stand in what has none: a method in a class.
    body = definition.body or (None if data[start] == _AT else _body(node, 3))
    end = body.start_byte if body is not None else node.end_byte
    raw = data[start:end]
    if b"#" in raw or b"//" in raw or b"/*" in raw or b"--" in raw:
        for comment in reversed(list(_comments(node, end))):
            if comment.start_byte >= start:
                first, last = comment.start_byte - start, comment.end_byte - start
                raw = raw[:first] + b" " + raw[last:]
    text = raw.decode("utf-8", "replace")
    if body is None:
        opens = "\n"
        if definition.kind == "class":
            opens = "{\n" if text[:1] == "@" else "{"
        # Lua and Ruby: def f; end
        text = _EMPTY_BODY.sub("", _outside_brackets(text, opens))
    elif node.has_error and definition.kind != "type":
        # What was taken for the body may stand far inside of it.
        text = _outside_brackets(text, "{" if len(text) < _LONG else "{\n")
    elif definition.kind == "type" and definition.name not in text:
        # typedef struct { … } Name;
        text += " " + data[body.end_byte : node.end_byte].decode("utf-8", "replace")
    return " ".join(text.split()).rstrip("{:; ").removesuffix("=>").rstrip(" =")


def _outside_brackets(text: str, until: str) -> str:
    """The text up to one of some characters in no bracket; all where there is none."""
    depth = 0
    for found in re.finditer(rf"[()\[\]{until}]", text):
        if found[0] in until:
            if depth <= 0:
                return text[: found.start()]
        else:
            depth += 1 if found[0] in "([" else -1
    return text


def _after_annotations(node: Any) -> int:
    """Where a definition begins without the annotations in front: `public` of `@A public`."""
    for child in node.children:
        parts = child.children if child.type == "modifiers" else [child]
        for part in parts:
            if not _ANNOTATION.search(part.type):
                return int(part.start_byte)
    return int(node.start_byte)


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
    first = body.named_child(0) if body and body.named_child_count else None
    while first is not None and first.type == "comment":
        first = first.next_named_sibling
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


def _imports_used(tags: Tags, text: bytes, language: str) -> list[str]:
    """The imports that bring a name into the file which stands in `text`, in order."""
    if not tags.imports:
        return []
    if not tags.imported:
        for number, statement in enumerate(tags.imports):
            for name in import_names(statement, language):
                tags.imported.setdefault(name, []).append(number)
    # Not the other way round: the words of a chunk are many, and need no set of their own.
    names = frozenset(tags.imported).intersection(words(text))
    used = {number for name in names for number in tags.imported[name]}
    return [tags.imports[number] for number in sorted(used)]


def _known_signature(owner: Definition, tags: Tags) -> str:
    at = owner.node.start_byte
    if at not in tags.signatures:
        tags.signatures[at] = signature(owner, tags.data)
    return tags.signatures[at]


def header_for(owner: Definition | None, own: str, tags: Tags, text: bytes, language: str) -> str:
    """The enclosing class, a later part's own signature, and the imports that `text` uses."""
    lines = [_known_signature(owner, tags)] if owner and owner.kind != "section" else []
    if own:
        lines.append(own)
    size = sum(map(len, lines))
    for statement in _imports_used(tags, text, language):
        if statement.encode() in text:
            continue
        size += len(statement)
        if size > _HEADER_CHARS:
            break
        lines.append(statement)
    return "\n".join(line for line in lines if line)
