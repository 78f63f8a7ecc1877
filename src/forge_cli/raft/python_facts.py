"""What the syntax tree of a Python definition says: defaults, return type, exceptions."""

from __future__ import annotations

import ast
import textwrap
from dataclasses import dataclass, field


@dataclass
class Facts:
    """Spans are verbatim source text.

    Attributes:
        defaults: parameter → (its whole span such as `n: int = 3`, the default's span).
        returns: the return annotation, or "".
        raises: exception name → the `raise` statement's first line.
    """

    defaults: dict[str, tuple[str, str]] = field(default_factory=dict)
    returns: str = ""
    raises: dict[str, str] = field(default_factory=dict)


def read_facts(text: str) -> Facts | None:
    """Parse the text of one function or method; None when it does not stand alone."""
    source = textwrap.dedent(text)
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError):
        return None
    node = next((n for n in body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)), None)
    if node is None:
        return None
    facts = Facts(defaults=_defaults(node, source), raises=_raises(node, source))
    if node.returns is not None:
        facts.returns = ast.get_source_segment(source, node.returns) or ""
    return facts


def _defaults(
    node: ast.FunctionDef | ast.AsyncFunctionDef, source: str
) -> dict[str, tuple[str, str]]:
    args = node.args
    positional = args.posonlyargs + args.args
    pairs: list[tuple[ast.arg, ast.expr | None]] = [
        *zip(positional[len(positional) - len(args.defaults) :], args.defaults, strict=True),
        *zip(args.kwonlyargs, args.kw_defaults, strict=True),
    ]
    found = {}
    lines = source.splitlines(keepends=True)
    for arg, default in pairs:
        if default is None:
            continue
        value = ast.get_source_segment(source, default) or ""
        if arg.lineno == default.end_lineno and "\n" not in value:
            line = lines[arg.lineno - 1].encode()
            found[arg.arg] = (line[arg.col_offset : default.end_col_offset].decode(), value)
    return found


def _raises(node: ast.AST, source: str) -> dict[str, str]:
    found: dict[str, str] = {}
    lines = source.splitlines()
    for part in _own_nodes(node):
        if not isinstance(part, ast.Raise) or part.exc is None:
            continue
        exc = part.exc.func if isinstance(part.exc, ast.Call) else part.exc
        name = exc.attr if isinstance(exc, ast.Attribute) else getattr(exc, "id", "")
        # A lower-case name is a caught exception or a factory: its type is not stated here.
        if name[:1].isupper():
            found.setdefault(name, lines[part.lineno - 1].strip())
    return found


def _own_nodes(node: ast.AST) -> list[ast.AST]:
    """Nodes of a function without those of functions and classes inside it."""
    found: list[ast.AST] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        found += [child, *_own_nodes(child)]
    return found
