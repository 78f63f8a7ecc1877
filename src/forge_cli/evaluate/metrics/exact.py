"""Whether an answer is the reference, once both are read as what their kind of question asks."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

# Kinds whose answer is a list of names, in any order.
NAMES = frozenset({"raises", "members", "calls", "callers", "find"})
CODE = frozenset({"completion", "usage"})


def exact_match(kind: str, answer: str, reference: str) -> bool:
    """Equal after normalisation: values evaluated, signatures parsed, names as sets, code without
    its layout, text without case and end mark.

    Args:
        kind: of the question (see `raft`); an unknown one is text.
    """
    read = _READ.get(kind, _text)
    return read(answer) == read(reference)


def names_of(text: str) -> set[str]:
    """Names and paths in a list such as "`a`, `b.c` and d"."""
    found = re.split(r"[,;\s]+|\band\b|\bin\b", text.replace("`", " "))
    return {name.strip("'\"():").rstrip(".") for name in found} - {"", "and", "in"}


def _text(text: str) -> object:
    return " ".join(text.lower().split()).rstrip(".").strip("`'\" ")


def _value(text: str) -> object:
    text = text.strip().strip("`").strip()
    try:
        value = ast.literal_eval(text)
        return type(value).__name__ if value != value else value  # NaN is not itself
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return "".join(text.split())


def _signature(text: str) -> object:
    """The syntax tree of a Python declaration; another language's text without white space."""
    text = text.strip().strip("`").strip().removesuffix("...").rstrip().rstrip(":")
    if re.match(r"(async\s+)?def\s|class\s", text):
        try:
            return ast.dump(ast.parse(f"{text}: ..."))
        except (SyntaxError, ValueError):
            pass
    return "".join(text.split()).rstrip("{;")


def _code(text: str) -> object:
    fenced = re.search(r"```\w*\n(.*?)```", text, re.DOTALL)
    return "\n".join(_dedented(fenced[1] if fenced else text))


def _dedented(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.strip("`\n").expandtabs(4).splitlines() if line.strip()]
    margin = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    return [line[margin:] for line in lines]


def _path(text: str) -> object:
    return text.strip().rstrip(".").strip("`'\"").removeprefix("./")


_READ: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(NAMES, names_of),
    **dict.fromkeys(CODE, _code),
    "default": _value,
    "returns": _value,
    "signature": _signature,
    "where": _path,
}
