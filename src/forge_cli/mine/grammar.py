"""Grammars and their tags-style queries.

Captures: `@definition.<kind>` with `@name` (several are joined), and where they are needed
`@scope` (the type that a method outside it belongs to), `@body` (where the signature ends)
and `@outer` (what of the definition stands around it); `@reference.call`, or
`@reference.selector` for a call whose name is in parts; `@import`. A file that begins with
`; inherits: NAME` adds to another.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from forge_cli.mine.languages import languages

_BLOCK = 1 << 16  # bytes
# Between the parts of a name, in C++ and Rust, PHP, Lua.
_SEPARATOR = re.compile(r"(?<=[\w>])::\s*(?=[\w~])|\\|:(?=\w+$)")
# Type parameters, and the quotes of SQL, Kotlin and TypeScript.
_NOT_OF_NAME = re.compile(r"<.*>$|[\"'`]")
_BRACKETS = re.compile(rb"\[[^\]]*\]|\([^()]*\)")
_STATEMENT = re.compile(rb"[;}]\s*\w")
_MAIN_CAPTURE = re.compile(rb"@(definition\.\w+|reference\.\w+|import)\b")
_NO_FUNCTION = {"if", "for", "while", "switch", "else"}
# Kinds that hold other definitions and may be opened.
CONTAINERS = {"class", "implementation", "namespace", "section"}
_WRAPPERS = {
    "decorated_definition", "export_statement", "template_declaration", "ambient_declaration",
    "declaration_list_item", "friend_declaration",
}  # fmt: skip


@dataclass(frozen=True)
class Definition:
    """A definition in a file: `outer` counts decorators and export; `node` is it alone.

    `body` is where the signature ends, if the query says so.
    """

    node: Any  # tree_sitter.Node
    outer: Any
    kind: str
    name: str
    scope: str = ""
    body: Any = None


@dataclass
class Tags:
    """What the query found in `data`: definitions by position, calls as (byte, name), imports."""

    data: bytes = b""
    definitions: list[Definition] = field(default_factory=list)
    calls: list[tuple[int, str]] = field(default_factory=list)
    imports: list[str] = field(default_factory=list)
    # where a definition begins → its signature, which each of its methods repeats
    signatures: dict[int, str] = field(default_factory=dict)
    # name that an import brings in → numbers of those imports; filled where it is needed
    imported: dict[bytes, list[int]] = field(default_factory=dict)


def parse(
    data: bytes, language: str, *, calls: bool = True, seconds: float = 20.0
) -> tuple[Any, Tags]:
    """Parse and tag; a syntax error leaves ERROR nodes, never an exception.

    Args:
        calls: look for calls too; a tenth of the time.

    Raises:
        ValueError: it took more than `seconds`; broken code can make a grammar search for
            minutes.
    """
    from tree_sitter import QueryCursor

    parser, query, kinds = _compiled(language, calls)
    root = _parse(parser, data, seconds)
    tags = Tags(data)
    if query is None:
        return root, tags
    seen: dict[tuple[int, int], Definition] = {}
    imports = []
    for pattern, captures in QueryCursor(query).matches(root):
        kind = kinds[pattern]
        if kind == "reference.call":
            for node in captures[kind]:
                start, end = node.start_byte, node.end_byte
                if end > start:
                    tags.calls.append((start, data[start:end].decode("utf-8", "replace")))
        elif kind == "reference.selector":
            tags.calls.append(_selector(data, captures[kind][0]))
        elif kind == "import":
            imports += captures[kind]
        else:
            _take(data, _definition(data, captures, kind), seen)
    tags.definitions = sorted(seen.values(), key=lambda d: (d.outer.start_byte, -d.outer.end_byte))
    # Two patterns may find the same call or import.
    tags.calls = sorted(set(tags.calls))
    places = {(node.start_byte, node.end_byte): node for node in imports}
    tags.imports = [_import(data, places[at]) for at in sorted(places)]
    return root, tags


def _take(data: bytes, definition: Definition, seen: dict[tuple[int, int], Definition]) -> None:
    place = (definition.node.start_byte, definition.node.end_byte)
    # What the grammar only supposes to be there, in broken code, has no name.
    if not definition.name or _is_misread(data, definition):
        return
    if _says_more(definition, seen.get(place)):
        seen[place] = definition


def _is_misread(data: bytes, definition: Definition) -> bool:
    """Whether a macro or broken code only looks like a function: `MACRO(a b : (int)c) {`."""
    node = definition.node
    if definition.kind not in ("function", "method"):
        return False
    if definition.kind == "function" and definition.name in _NO_FUNCTION:
        return True
    if not node.has_error:
        return False
    body = definition.body or node.child_by_field_name("body")
    end = body.start_byte if body is not None else node.end_byte
    if not any(child.has_error for child in node.children if child.end_byte <= end):
        return False
    head = data[node.start_byte : end]
    if head.count(b"(") != head.count(b")"):
        return True
    return bool(_STATEMENT.search(_BRACKETS.sub(b"", head)))


def _says_more(definition: Definition, known: Definition | None) -> bool:
    """Whether a match of a node that matched before has more of it: two patterns may fit."""
    if known is None:
        return True
    new, old = (
        (one.body is not None, -one.outer.start_byte, len(one.scope) + len(one.name))
        for one in (definition, known)
    )
    return new > old


def _selector(data: bytes, node: Any) -> tuple[int, str]:
    """Where the name of a message is, and the name: `add:to:` of `[x add:a to:b]`."""
    parts = [
        child
        for number, child in enumerate(node.children)
        if child.type == ":" or node.field_name_for_child(number) == "method"
    ]
    return parts[0].start_byte, "".join(text_of(data, part) for part in parts)


def _parse(parser: Any, data: bytes, seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    try:
        # Only a parser that asks for its input, block by block, can be stopped.
        tree = parser.parse(
            lambda at, _: data[at : at + _BLOCK],
            progress_callback=lambda *_: time.monotonic() > deadline,
        )
    except ValueError:
        parser.reset()  # or it would go on with this file when it is given the next
        raise ValueError(f"no end after {seconds:g} s") from None
    return tree.root_node


def _definition(data: bytes, captures: dict[str, list[Any]], kind: str) -> Definition:
    node = captures[kind][0]
    outer = captures["outer"][0] if "outer" in captures else node
    while outer.parent is not None and outer.parent.type in _WRAPPERS:
        outer = outer.parent
    parts = captures["name"]
    if len(parts) > 1:
        parts = sorted(parts, key=lambda part: int(part.start_byte))
    name = " ".join(_joined([text_of(data, part) for part in parts]).split())
    if kind != "definition.section" and not name.isidentifier():
        name = _NOT_OF_NAME.sub("", _SEPARATOR.sub(".", name))
        name = name.replace(".prototype.", ".")
        name = name.removeprefix("module.exports.").removeprefix("exports.")
    scope = text_of(data, captures["scope"][0]) if "scope" in captures else ""
    if scope and not scope.isidentifier():
        scope = _NOT_OF_NAME.sub("", scope)
    body = captures["body"][0] if "body" in captures else None
    return Definition(node, outer, kind.removeprefix("definition."), name, scope, body)


def _joined(parts: list[str]) -> str:
    """`operator` and `+` or `int` are `operator+` and `operator int`."""
    name = parts[0]
    for part in parts[1:]:
        name += f" {part}" if name[-1:].isalnum() and part[:1].isalnum() else part
    return name


def _import(data: bytes, node: Any) -> str:
    # A grammar may count the comment below among it.
    comments = [child for child in node.named_children if "comment" in child.type]
    end = comments[0].start_byte if comments else node.end_byte
    text = data[node.start_byte : end].decode("utf-8", "replace").strip()
    # A line of Go's import ( … ) block alone does not say that it is one.
    return f"import {text}" if node.type == "import_spec" else text


def text_of(data: bytes, node: Any) -> str:
    """A node's text; `node.text` would ask the parser's input for it byte by byte."""
    return data[node.start_byte : node.end_byte].decode("utf-8", "replace")


@cache
def _compiled(grammar: str, calls: bool) -> tuple[Any, Any, list[str]]:
    """The parser, the query, and what each of its patterns is for: its main capture.

    A grammar without a query has None for it. One query for all: the way through the tree
    costs more than the matches.
    """
    from tree_sitter import Query
    from tree_sitter_language_pack import get_language, get_parser

    if not languages()[grammar].tagged:
        return get_parser(grammar), None, []
    text = _query_text(grammar)
    query = Query(get_language(grammar), text)
    source = text.encode()
    kinds = []
    for number in range(query.pattern_count):
        start = query.start_byte_for_pattern(number)
        pattern = source[start : query.end_byte_for_pattern(number)]
        kind = _MAIN_CAPTURE.findall(pattern)[-1].decode()
        kinds.append(kind)
        if kind.startswith("reference.") and not calls:
            query.disable_pattern(number)
    return get_parser(grammar), query, kinds


def _query_text(name: str) -> str:
    """A query file, after the one that its first line inherits."""
    text = files("forge_cli.mine").joinpath("queries", f"{name}.scm").read_text("utf-8")
    inherits = re.match(r"; inherits: (\w+)\n", text)
    return (_query_text(inherits[1]) if inherits else "") + text
