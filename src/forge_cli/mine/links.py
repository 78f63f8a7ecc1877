"""Who calls whom, by names that are unambiguous within the repository."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from forge_cli.core.records import Chunk
from forge_cli.mine.words import occurrences

_TEST = re.compile(r"(^|/)(tests?|__tests__)/|(^|/)test_[^/]*$|_test\.[^/]*$|\.(test|spec)\.[^/]*$")
# What a call hangs on (`receiver.name(`), and what shows that a name is called.
_RECEIVER = re.compile(r"(\w*)[?!]?\s*(?:\.|::|->)\s*\Z")
_CALLED = re.compile(r"\s*(?:\(|<|::<|!)")
_MOST_CANDIDATES = 100
_OWN = {"self", "this", "cls", "Self", "super"}
# Methods that every language's strings and collections have: `d.get(…)` says nothing.
_COMMON = {
    *dir(str), *dir(bytes), *dir(dict), *dir(list), *dir(set), "push", "map", "filter", "len",
    "concat", "slice", "has", "forEach", "toString", "size", "contains", "isEmpty", "clone",
    "unwrap", "iter", "push_back", "begin", "end", "String", "Error", "call", "apply", "bind",
}  # fmt: skip


@dataclass(frozen=True)
class _Target:
    """A definition that a call may mean."""

    index: int
    path: str
    scope: str  # the symbol without its last name
    is_method: bool
    # Names that a call of it may hang on: its module, package and class.
    places: frozenset[str]


@dataclass
class _Named:
    """The definitions of one name: all, and by file."""

    all: list[_Target] = field(default_factory=list)
    by_path: dict[str, list[_Target]] = field(default_factory=dict)

    def add(self, target: _Target) -> None:
        self.all.append(target)
        self.by_path.setdefault(target.path, []).append(target)


def link(chunks: Sequence[Chunk]) -> list[Chunk]:
    """The same chunks with `called_by` and `tests` set.

    A call is resolved to the definition of that name in the same class or file, else to the
    only one in the repository. An ambiguous name is left alone: a wrong link is worse than
    none.
    """
    by_name: dict[str, _Named] = {}
    for index, chunk in enumerate(chunks):
        if target := _as_target(index, chunk):
            name = (chunk.symbol or "").rsplit(".", 1)[-1]
            by_name.setdefault(name, _Named()).add(target)
    called_by: dict[int, set[str]] = {}
    tests: dict[int, set[str]] = {}
    for caller in chunks:
        if caller.symbol is None:
            continue
        into = tests if _TEST.search(caller.path) else called_by
        for index in _called(caller, by_name):
            if (chunks[index].path, chunks[index].symbol) != (caller.path, caller.symbol):
                into.setdefault(index, set()).add(caller.symbol)
    linked = list(chunks)
    for index in called_by.keys() | tests.keys():
        callers = {
            "called_by": sorted(called_by.get(index, ())),
            "tests": sorted(tests.get(index, ())),
        }
        linked[index] = linked[index].model_copy(update=callers)
    return linked


def _as_target(index: int, chunk: Chunk) -> _Target | None:
    """Definitions, each once: a class has no signature but where it begins."""
    if chunk.symbol is None or chunk.part > 1:
        return None
    if chunk.kind not in ("function", "method") and not (chunk.kind == "class" and chunk.signature):
        return None
    path = PurePosixPath(chunk.path)
    scope = chunk.symbol.rpartition(".")[0]
    places = frozenset({path.stem, path.parent.name, scope.rpartition(".")[2]} - {""})
    return _Target(index, chunk.path, scope, chunk.kind == "method", places)


def _called(caller: Chunk, by_name: dict[str, _Named]) -> Iterator[int]:
    for name in caller.calls:
        if named := by_name.get(name):
            for receiver in _receivers(caller.text, name):
                index = _resolve(named, name, receiver, caller)
                if index is not None:
                    yield index


def _receivers(text: str, name: str) -> set[str | None]:
    """What the calls of a name hang on: a name, "" for an expression, None for nothing."""
    found: set[str | None] = set()
    for at in occurrences(text, name):
        if _CALLED.match(text, at + len(name)):
            hangs = None
            if text[max(0, at - 60) : at].rstrip()[-1:] in (".", ":", ">"):
                hangs = _RECEIVER.search(text, max(0, at - 60), at)
            found.add(hangs[1] if hangs else None)
    return found


def _resolve(named: _Named, name: str, receiver: str | None, caller: Chunk) -> int | None:
    """The one candidate of the caller's class, else of its file, else of the repository."""
    scope = (caller.symbol or "").rpartition(".")[0]
    same_file = _fitting(named.by_path.get(caller.path, []), name, receiver, caller)
    same_class = [target for target in same_file if scope and target.scope == scope]
    for found in (same_class, same_file):
        if len(found) == 1:
            return found[0].index
    # Of a name that is everywhere, looking through all would take the square of the files.
    if same_file or len(named.all) > _MOST_CANDIDATES:
        return None
    everywhere = _fitting(named.all, name, receiver, caller)
    return everywhere[0].index if len(everywhere) == 1 else None


def _fitting(
    candidates: list[_Target], name: str, receiver: str | None, caller: Chunk
) -> list[_Target]:
    """The candidates that a call through `receiver` (None: a bare name) can mean."""
    if receiver is None:
        # `open(…)` is no call of some class's method `open`, but for Java and C++ inside it.
        scope = (caller.symbol or "").rpartition(".")[0]
        inside = scope if caller.language in ("java", "cpp") else ""
        return [t for t in candidates if not t.is_method or (inside and t.scope == inside)]
    if receiver in _OWN:
        return [t for t in candidates if t.is_method]
    if known := [t for t in candidates if receiver in t.places]:
        return known
    return [] if name in _COMMON else [t for t in candidates if t.is_method]
