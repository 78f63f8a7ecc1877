"""Who calls whom, by names that are unambiguous within the repository."""

from __future__ import annotations

import builtins
import io
import json
import re
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from forge_cli.core.test_paths import is_test_path
from forge_cli.mine.words import last_word

_MOST_CANDIDATES = 100
# Here a bare name of another file has to be imported by its name.
_IMPORTING = {"python", "javascript", "typescript", "tsx"}
_OWN_WITHOUT_RECEIVER = {"java", "cpp", "csharp", "kotlin", "ruby", "scala", "swift"}
_OWN = {"self", "this", "cls", "Self", "super"}
# Methods that every language's strings, collections, files and locks have: `d.get(…)` says
# nothing of whose `get` it is.
_COMMON = {
    *dir(str), *dir(bytes), *dir(dict), *dir(list), *dir(set), *dir(io.TextIOWrapper),
    *dir(io.BufferedRandom), *dir(PurePosixPath), *dir(re.compile("")), "push", "map", "filter",
    "len", "concat", "slice", "has", "forEach", "toString", "size", "contains", "isEmpty",
    "clone", "unwrap", "iter", "push_back", "begin", "end", "String", "Error", "call", "apply",
    "bind", "open", "exists", "mkdir", "unlink", "send", "recv", "connect", "acquire", "release",
    "start", "stop", "run", "wait", "put", "set", "is_set", "cancel", "result", "submit", "info",
    "debug", "warning", "error", "exception", "log", "then", "catch", "next", "equals",
    "hashCode", "get", "add", "remove", "match", "group", "execute", "commit", "cursor",
}  # fmt: skip
# Names that need no import: a bare call means them unless the file itself defines the name.
_BUILT_IN = {
    *dir(builtins), "String", "Number", "Boolean", "Array", "Object", "Promise", "Symbol", "Date",
    "RegExp", "Map", "Set", "parseInt", "parseFloat", "require", "fetch", "setTimeout",
    "setInterval", "len", "cap", "make", "new", "append", "copy", "delete", "panic", "recover",
    "close", "print", "println", "Some", "Ok", "Err", "None", "Box", "Vec", "printf", "malloc",
    "free", "memcpy", "strlen", "exit", "abort", "echo", "isset", "puts", "raise", "assert",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Target:
    """A definition that a call may mean."""

    index: int
    file: _File
    symbol: str
    scope: str  # the symbol without its last name
    is_method: bool

    def stands_in(self, name: str) -> bool:
        """Whether a call of it may hang on `name`: its module, package or class."""
        return name in (self.file.stem, self.file.folder) or (
            self.scope == name or self.scope.endswith(f".{name}")
        )


@dataclass(frozen=True, slots=True)
class _File:
    """What the targets of one file share."""

    number: int
    path: str
    stem: str
    folder: str


@dataclass(frozen=True, slots=True)
class _Caller:
    file: int
    language: str
    scope: str
    imported: frozenset[str] | None  # None: anything


@dataclass(frozen=True, slots=True)
class _Named:
    """All targets of one name, in the order of the files, and the file of each."""

    targets: list[_Target]
    files: list[int]
    through: dict[str, list[_Target]]  # receiver → those that it may mean; filled when asked

    def of_file(self, number: int) -> list[_Target]:
        first = bisect_left(self.files, number)
        return self.targets[first : bisect_right(self.files, number, first)]


class Links:
    """Calls resolved to definitions: all files are added, then all are resolved.

    A call is resolved to the definition of that name in the same class or file, else to the
    only one in the repository. An ambiguous name is left alone: a wrong link is worse than
    none. Kept in memory are the definitions and the links, not the calls.

    Attributes:
        called_by, tests: number of a chunk → symbols that call it, and tests that do; some twice.
    """

    def __init__(self) -> None:
        self.called_by: dict[int, list[str]] = {}
        self.tests: dict[int, list[str]] = {}
        self._by_name: dict[str, _Named] = {}
        self._chunks = self._files = self._resolved = 0

    def add(self, facts: bytes) -> None:
        """Take up the definitions of the next file (`Found.facts`)."""
        path, count, definitions = json.loads(facts.partition(b"\n")[0])
        pure = PurePosixPath(path)
        file = _File(self._files, path, pure.stem, pure.parent.name)
        for number, symbol, kind in definitions:
            scope, _, name = symbol.rpartition(".")
            number += self._chunks
            target = _Target(number, file, symbol, sys.intern(scope), kind == "method")
            named = self._by_name.setdefault(name, _Named([], [], {}))
            named.targets.append(target)
            named.files.append(file.number)
        self._chunks += count
        self._files += 1

    def resolve(self, facts: bytes) -> None:
        """Resolve the calls of the next file, in the same order, when all have been added."""
        path, language, names, callers = json.loads(facts.partition(b"\n")[2])
        imported = None if names is None else frozenset(names)
        into = self.tests if is_test_path(path) else self.called_by
        for symbol, calls in callers:
            scope = symbol.rpartition(".")[0]
            caller = _Caller(self._resolved, language, scope, imported)
            for target in self._called(caller, calls):
                if (target.file.path, target.symbol) != (path, symbol):
                    known = into.setdefault(target.index, [])
                    if not known or known[-1] != symbol:
                        known.append(symbol)
        self._resolved += 1

    def _called(self, caller: _Caller, calls: dict[str, list[str | None]]) -> Iterator[_Target]:
        for name, hangs_on in calls.items():
            if named := self._by_name.get(name):
                for receiver in hangs_on:
                    target = _resolve(named, name, receiver, caller)
                    if target is not None:
                        yield target


def receiver_at(data: bytes, at: int) -> str | None:
    """What the name at a byte hangs on: a name, "" for an expression, None for nothing."""
    before = data[max(0, at - 60) : at].rstrip()
    if before[-1:] != b"." and before[-2:] not in (b"::", b"->"):
        return None
    before = before.rstrip(b".:->").rstrip().rstrip(b"?!")
    return last_word(before).decode("utf-8", "replace")


def _resolve(named: _Named, name: str, receiver: str | None, caller: _Caller) -> _Target | None:
    """The one candidate of the caller's class, else of its file, else of the repository."""
    scope = caller.scope
    # `x.f()` of any `x` may be a method of this file or of another.
    knows = receiver is None or receiver in _OWN
    if own := named.of_file(caller.file):
        same_file = _fitting(own, name, receiver, caller)
        same_class = [target for target in same_file if scope and target.scope == scope]
        for found in (same_class, same_file):
            if len(found) == 1 and (knows or found[0].stands_in(receiver or "")):
                return found[0]
        if knows and same_file:
            return None
    # Of a name that is everywhere, looking through all would take the square of the files.
    if len(named.targets) > _MOST_CANDIDATES:
        return None
    if receiver is None and not _may_be_elsewhere(name, caller):
        return None
    everywhere = _fitting(named.targets, name, receiver, caller, named.through)
    if receiver in _OWN and caller.language in _IMPORTING and caller.imported is not None:
        # A method of its own that stands elsewhere is a base class's, which is imported.
        everywhere = [t for t in everywhere if t.scope.rpartition(".")[2] in caller.imported]
    return everywhere[0] if len(everywhere) == 1 else None


def _may_be_elsewhere(name: str, caller: _Caller) -> bool:
    """Whether a bare name can come from another file: it is imported, or needs no import."""
    if caller.language in _IMPORTING and caller.imported is not None:
        return name in caller.imported
    return name not in _BUILT_IN


def _fitting(
    candidates: list[_Target],
    name: str,
    receiver: str | None,
    caller: _Caller,
    known: dict[str, list[_Target]] | None = None,
) -> list[_Target]:
    """The candidates that a call through `receiver` (None: a bare name) can mean.

    Args:
        known: of these candidates, those that stand in a receiver which was asked for before.
    """
    if receiver is None:
        # `open(…)` is no call of some class's method `open`, but in some languages inside it.
        inside = caller.scope if caller.language in _OWN_WITHOUT_RECEIVER else ""
        return [t for t in candidates if not t.is_method or (inside and t.scope == inside)]
    if receiver in _OWN:
        return [t for t in candidates if t.is_method]
    standing = known.get(receiver) if known is not None else None
    if standing is None:
        standing = [t for t in candidates if receiver and t.stands_in(receiver)]
        if known is not None:
            known[receiver] = standing
    if standing:
        return standing
    # `json.load()` is a function of that module, whoever else has a method `load`.
    if caller.imported is not None and receiver in caller.imported:
        return []
    return [] if name in _COMMON else [t for t in candidates if t.is_method]
