"""What the syntax tree of a Python definition says: parameters, return type, calls …"""

from __future__ import annotations

import ast
import textwrap
from dataclasses import dataclass, field

from forge_cli.raft.spans import QUOTE_CHARS

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Facts:
    """Spans are source text without the definition's indentation.

    Attributes:
        parameters: their names; None where `**kwargs` takes any.
        defaults: parameter → (its whole span such as `n: int = 3`, the default's span).
        returns: the return annotation, or "".
        raises: exception name → the first `raise` statement of it.
        calls: last name of what is called → the first statement that does; of a long one the
            call alone.
        methods: of a class: name → the line of its `def`.
        head, body: the lines up to the docstring's end, and those after it.
    """

    parameters: list[str] | None = None
    defaults: dict[str, tuple[str, str]] = field(default_factory=dict)
    returns: str = ""
    raises: dict[str, str] = field(default_factory=dict)
    calls: dict[str, str] = field(default_factory=dict)
    methods: dict[str, str] = field(default_factory=dict)
    head: str = ""
    body: str = ""


def read_facts(text: str) -> Facts | None:
    """Parse the text of one function, method or class; None when it does not stand alone."""
    source = textwrap.dedent(text)
    try:
        tree = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError):
        return None
    node = next((n for n in tree if isinstance(n, _Function | ast.ClassDef)), None)
    if node is None:
        return None
    lines = source.splitlines()
    facts = Facts(calls=_calls(node, source))
    if isinstance(node, ast.ClassDef):
        members = [n for n in node.body if isinstance(n, _Function)]
        facts.methods = {n.name: lines[n.lineno - 1].strip() for n in members}
        return facts
    if node.args.kwarg is None:
        args = node.args
        facts.parameters = [a.arg for a in [*args.posonlyargs, *args.args, *args.kwonlyargs]]
    facts.defaults = _defaults(node, source)
    facts.raises = _raises(node, source)
    if node.returns is not None:
        facts.returns = ast.get_source_segment(source, node.returns) or ""
    facts.head, facts.body = _halves(node, lines)
    return facts


def _halves(node: _Function, lines: list[str]) -> tuple[str, str]:
    has_docstring = ast.get_docstring(node, clean=False) is not None
    rest = node.body[1:] if has_docstring else node.body
    if not rest or rest[0].lineno <= node.lineno:
        return "", ""
    # Comments between the docstring and the first statement belong to the body.
    first = (node.body[0].end_lineno or 0) if has_docstring else rest[0].lineno - 1
    return "\n".join(lines[node.lineno - 1 : first]), "\n".join(lines[first : node.end_lineno])


def _defaults(node: _Function, source: str) -> dict[str, tuple[str, str]]:
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
    for part in _own_nodes(node):
        if not isinstance(part, ast.Raise) or part.exc is None:
            continue
        exc = part.exc.func if isinstance(part.exc, ast.Call) else part.exc
        name = exc.attr if isinstance(exc, ast.Attribute) else getattr(exc, "id", "")
        # A lower-case name is a caught exception or a factory: its type is not stated here,
        # so no list of names would be whole.
        if not name[:1].isupper():
            return {}
        found.setdefault(name, ast.get_source_segment(source, part) or "")
    return found


def _calls(node: ast.AST, source: str) -> dict[str, str]:
    """Of each name that is called, the smallest statement that does so first."""
    found: dict[str, str] = {}

    def visit(part: ast.AST, statement: ast.stmt | None) -> None:
        for child in ast.iter_child_nodes(part):
            simple = isinstance(child, ast.stmt) and not hasattr(child, "body")
            own = child if simple and isinstance(child, ast.stmt) else statement
            if isinstance(child, ast.Call) and own is not None:
                func = child.func
                name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
                if name and name not in found:
                    text = ast.get_source_segment(source, own) or ""
                    short = len(text) <= QUOTE_CHARS
                    found[name] = text if short else ast.get_source_segment(source, child) or ""
            visit(child, own if simple else statement)

    visit(node, None)
    return found


def _own_nodes(node: ast.AST) -> list[ast.AST]:
    """Nodes of a function without those of functions and classes inside it."""
    found: list[ast.AST] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _Function | ast.ClassDef | ast.Lambda):
            continue
        found += [child, *_own_nodes(child)]
    return found
