"""Languages, their grammars and their tags-style queries.

A language is a query file, `queries/<grammar>.scm`, and a row in `LANGUAGES`. Captures:
`@definition.<kind>` with `@name` (and `@scope`, the type that a method outside it belongs
to), `@reference.call`, `@import`. A file that begins with `; inherits: NAME` adds to another.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

from forge_cli.core.errors import UsageError

# language → (grammar, file name endings)
LANGUAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "python": ("python", (".py", ".pyi")),
    "javascript": ("javascript", (".js", ".mjs", ".cjs", ".jsx")),
    "typescript": ("typescript", (".ts", ".mts", ".cts")),
    "tsx": ("tsx", (".tsx",)),
    "go": ("go", (".go",)),
    "rust": ("rust", (".rs",)),
    "java": ("java", (".java",)),
    "c": ("c", (".c", ".h")),
    "cpp": ("cpp", (".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx")),
    "markdown": ("markdown", (".md", ".markdown")),
}
# Mined as plain text: documentation and configuration without a grammar here.
_TEXT = {
    ".rst", ".txt", ".adoc", ".toml", ".yaml", ".yml", ".ini", ".cfg", ".json", ".sh", ".sql",
    ".html", ".css", ".scm", ".xml", ".proto", ".graphql", ".tf",
}  # fmt: skip
_TEXT_NAMES = {"Makefile", "Dockerfile", "LICENSE", "NOTICE", "CHANGELOG", "AUTHORS", "README"}

_BY_SUFFIX = {suffix: name for name, (_, suffixes) in LANGUAGES.items() for suffix in suffixes}

_CPP_ONLY = re.compile(
    rb"^[ \t]*(class\s+\w+[^;]*\{|namespace\b|template\s*<|(public|private|protected)\s*:)",
    re.MULTILINE,
)

_BLOCK = 1 << 16  # bytes
# Kinds that hold other definitions and may be opened.
CONTAINERS = {"class", "implementation", "namespace", "section"}
_WRAPPERS = {
    "decorated_definition", "export_statement", "template_declaration", "ambient_declaration",
    "declaration_list_item", "friend_declaration",
}  # fmt: skip


@dataclass(frozen=True)
class Definition:
    """A definition in a file: `outer` counts decorators and export; `node` is it alone."""

    node: Any  # tree_sitter.Node
    outer: Any
    kind: str
    name: str
    scope: str = ""


@dataclass
class Tags:
    """What the query found in `data`: definitions by position, calls as (byte, name), imports."""

    data: bytes = b""
    definitions: list[Definition] = field(default_factory=list)
    calls: list[tuple[int, str]] = field(default_factory=list)
    imports: list[str] = field(default_factory=list)
    # name that an import brings in → numbers of those imports; filled where it is needed
    imported: dict[bytes, list[int]] = field(default_factory=dict)


def language_of(path: str) -> str | None:
    """The language by the file's name; "text" without a grammar; None when unknown."""
    pure = PurePosixPath(path)
    if found := _BY_SUFFIX.get(pure.suffix.lower()):
        return found
    return "text" if pure.suffix.lower() in _TEXT or pure.name in _TEXT_NAMES else None


def refine(language: str, path: str, data: bytes) -> str:
    """The language, where only the content can tell: a `.h` may hold C++."""
    is_cpp = language == "c" and path.endswith(".h") and _CPP_ONLY.search(data)
    return "cpp" if is_cpp else language


def check_languages(langs: tuple[str, ...]) -> None:
    """Raise UsageError for a name that is not in `LANGUAGES` (or "text")."""
    for lang in langs:
        if lang not in LANGUAGES and lang != "text":
            raise UsageError(f"{lang}: unknown language", f"known: {', '.join(LANGUAGES)}, text")


def parse(data: bytes, language: str, *, seconds: float = 20.0) -> tuple[Any, Tags]:
    """Parse and tag; a syntax error leaves ERROR nodes, never an exception.

    Raises:
        ValueError: it took more than `seconds`; broken code can make a grammar search for
            minutes.
    """
    from tree_sitter import QueryCursor

    parser, definitions, references = _compiled(LANGUAGES[language][0])
    root = _parse(parser, data, seconds)
    tags = Tags(data)
    seen: set[tuple[int, int]] = set()
    for _, captures in QueryCursor(definitions).matches(root):
        kind = next(name for name in captures if name.startswith("definition."))
        definition = _definition(data, captures, kind)
        place = (definition.node.start_byte, definition.node.end_byte)
        # Two patterns may match one node; nested twins of one range are one thing.
        # What the grammar only supposes to be there, in broken code, has no name.
        if place not in seen and definition.name:
            seen.add(place)
            tags.definitions.append(definition)
    found = QueryCursor(references).captures(root)
    for node in found.get("reference.call", ()):
        start, end = node.start_byte, node.end_byte
        if end > start:
            tags.calls.append((start, data[start:end].decode("utf-8", "replace")))
    # Captures come in no order that two processes would share.
    imports = sorted(found.get("import", ()), key=lambda node: int(node.start_byte))
    tags.imports = [_import(data, node) for node in imports]
    tags.definitions.sort(key=lambda d: (d.outer.start_byte, -d.outer.end_byte))
    tags.calls.sort()
    return root, tags


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
    outer = node
    while outer.parent is not None and outer.parent.type in _WRAPPERS:
        outer = outer.parent
    name = ".".join(" ".join(text_of(data, captures["name"][0]).split()).split("::"))
    if kind != "definition.section":
        name = re.sub(r"<.*>$", "", name).replace(".prototype.", ".")
        name = name.removeprefix("module.exports.").removeprefix("exports.")
    scope = text_of(data, captures["scope"][0]) if "scope" in captures else ""
    return Definition(node, outer, kind.removeprefix("definition."), name, scope)


def _import(data: bytes, node: Any) -> str:
    text = text_of(data, node).strip()
    # A line of Go's import ( … ) block alone does not say that it is one.
    return f"import {text}" if node.type == "import_spec" else text


def text_of(data: bytes, node: Any) -> str:
    """A node's text; `node.text` would ask the parser's input for it byte by byte."""
    return data[node.start_byte : node.end_byte].decode("utf-8", "replace")


@cache
def _compiled(grammar: str) -> tuple[Any, Any, Any]:
    """The parser, and the query's patterns in two: definitions, and what they refer to.

    References are many and need no match of their own, which costs a third of the time.
    """
    from tree_sitter import Query
    from tree_sitter_language_pack import get_language, get_parser

    text = _query_text(grammar)
    language = get_language(grammar)
    definitions, references = Query(language, text), Query(language, text)
    source = text.encode()
    for number in range(definitions.pattern_count):
        start = definitions.start_byte_for_pattern(number)
        pattern = source[start : definitions.end_byte_for_pattern(number)]
        (references if b"@definition." in pattern else definitions).disable_pattern(number)
    return get_parser(grammar), definitions, references


def _query_text(name: str) -> str:
    """A query file, after the one that its first line inherits."""
    text = files("forge_cli.mine").joinpath("queries", f"{name}.scm").read_text()
    inherits = re.match(r"; inherits: (\w+)\n", text)
    return (_query_text(inherits[1]) if inherits else "") + text
