"""Whether an answer is what the documents' syntax says: checked anew, from the record alone.

Kinds of question that are not known here pass: their quotes are checked all the same.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable
from functools import lru_cache

from forge_cli.core.answer_form import ABSTAIN
from forge_cli.core.records import Document, Example

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_NAMED = re.compile(r"`([^`]+)`")


def answer_is_true(example: Example) -> str | None:
    """The answer agrees with the syntax tree of the document that it is about."""
    kind, final = example.origin.kind, example.answer.final
    about = next((d for d in example.documents if d.id == example.origin.chunk), None)
    if kind == "absent":
        return _absent(example, about)
    if final == ABSTAIN:
        return None
    if about is not None and kind in _OF_DOCUMENT:
        if not about.symbol or _last(about.symbol) not in about.text:
            return f"`{about.symbol}` does not stand in its document"
        return _OF_DOCUMENT[kind](example, about)
    return _called(example) if kind in ("callers", "usage") else None


def _last(symbol: str) -> str:
    return re.split(r"[.:]", symbol)[-1]


@lru_cache(maxsize=4096)
def _parse(text: str) -> ast.AST | None:
    try:
        body = ast.parse(textwrap.dedent(text)).body
    except (SyntaxError, ValueError, RecursionError):
        return None
    return next((n for n in body if isinstance(n, _Function | ast.ClassDef)), None)


def _function(document: Document) -> _Function | None:
    node = _parse(document.text) if document.path.endswith((".py", ".pyi")) else None
    return node if isinstance(node, _Function) else None


def _parameters(node: _Function) -> list[ast.arg]:
    a = node.args
    extra = [arg for arg in (a.vararg, a.kwarg) if arg]
    return [*a.posonlyargs, *a.args, *a.kwonlyargs, *extra]


def _same(code: str, node: ast.expr | None) -> bool:
    try:
        return node is not None and ast.dump(ast.parse(code.strip(), mode="eval").body) == ast.dump(
            node
        )
    except SyntaxError:
        return False


def _folded(text: str) -> str:
    return re.sub(r"[\s#/*]+", "", text)


def _purpose(example: Example, about: Document) -> str | None:
    found = _folded(example.answer.final) in _folded(about.text)
    return None if found else "the purpose does not stand in the document"


def _find(example: Example, about: Document) -> str | None:
    named = _NAMED.findall(example.answer.final)
    return None if named == [about.symbol, about.path] else "the definition named is another"


def _where(example: Example, about: Document) -> str | None:
    return None if example.answer.final == about.path else "the file named is another"


def _signature(example: Example, about: Document) -> str | None:
    final = example.answer.final
    node = _function(about)
    if node is None:
        found = _folded(final) in _folded(about.text)
        return None if found else "the signature does not stand in the document"
    stated = _parse(f"{final.rstrip(':')}: pass")
    if not isinstance(stated, _Function) or stated.name != node.name:
        return "the signature is not one of this function"
    same = ast.dump(stated.args) == ast.dump(node.args)
    return None if same else "the signature's parameters are not the function's"


def _default(example: Example, about: Document) -> str | None:
    node = _function(about)
    names = _NAMED.findall(example.question)
    if node is None:
        return None
    a = node.args
    positional = [*a.posonlyargs, *a.args]
    pairs = [
        *zip(positional[len(positional) - len(a.defaults) :], a.defaults, strict=True),
        *zip(a.kwonlyargs, a.kw_defaults, strict=True),
    ]
    defaults = {arg.arg: value for arg, value in pairs if value is not None}
    asked = [name for name in names if name in defaults]
    if any(_same(example.answer.final, defaults[name]) for name in asked):
        return None
    return "the default stated is not that of the parameter"


def _returns(example: Example, about: Document) -> str | None:
    node = _function(about)
    if node is not None:
        same = _same(example.answer.final, node.returns)
        return None if same else "the return type is not the declared one"
    found = _folded(example.answer.final) in _folded(about.text)
    return None if found else "the return type does not stand in the document"


def _raised(node: ast.AST) -> set[str]:
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Raise) and part.exc is not None:
            exc = part.exc.func if isinstance(part.exc, ast.Call) else part.exc
            found.add(exc.attr if isinstance(exc, ast.Attribute) else getattr(exc, "id", ""))
    return found


def _raises(example: Example, about: Document) -> str | None:
    node = _function(about)
    stated = {name.strip() for name in example.answer.final.split(",")}
    if node is None or stated <= _raised(node):
        return None
    return "an exception is named that the code does not raise"


def _members(example: Example, about: Document) -> str | None:
    node = _parse(about.text) if about.path.endswith((".py", ".pyi")) else None
    if not isinstance(node, ast.ClassDef):
        return None
    there = list(dict.fromkeys(n.name for n in node.body if isinstance(n, _Function)))
    stated = [name.strip() for name in example.answer.final.split(",")]
    return None if stated == there else "the methods named are not those of the class"


def _calls(example: Example, about: Document) -> str | None:
    names = [_last(symbol) for symbol in _NAMED.findall(example.answer.final)]
    missing = [name for name in names if not re.search(rf"\b{re.escape(name)}\b", about.text)]
    return f"`{missing[0]}` is not called in the document" if missing else None


def _completion(example: Example, about: Document) -> str | None:
    node = _function(about)
    if node is None:
        return None
    # What returns or yields parses only inside a function.
    wrapped = _parse(f"def f():\n{textwrap.indent(example.answer.final, '    ')}\n")
    stated = wrapped.body if isinstance(wrapped, _Function) else []
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    same = [ast.dump(n) for n in stated] == [ast.dump(n) for n in body]
    return None if same else "the body is not the function's"


def _called(example: Example) -> str | None:
    """What the question names is called in each quote."""
    named = _NAMED.findall(example.question)
    name = _last(named[0]) if named else ""
    wrong = [
        q.text for q in example.answer.quotes if not re.search(rf"\b{re.escape(name)}\b", q.text)
    ]
    return f"`{name}` is not called in the quote {wrong[0][:60]!r}" if wrong else None


def _absent(example: Example, about: Document | None) -> str | None:
    if about is None:
        return "the definition that lacks the parameter is not shown"
    node = _function(about)
    names = set(_NAMED.findall(example.question)) - {about.symbol or ""}
    if node is not None and names & {arg.arg for arg in _parameters(node)}:
        return "the parameter is there"
    return None


_OF_DOCUMENT: dict[str, Callable[[Example, Document], str | None]] = {
    "purpose": _purpose,
    "find": _find,
    "where": _where,
    "signature": _signature,
    "default": _default,
    "returns": _returns,
    "raises": _raises,
    "members": _members,
    "calls": _calls,
    "completion": _completion,
}
