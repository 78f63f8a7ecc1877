"""What is known of a repository's definitions across its files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from forge_cli.core.records import Chunk
from forge_cli.raft.spans import first_sentence

_TEST_PATH = re.compile(r"(^|/)(tests?|testing|__tests__)(/|$)|(^|/)test_|_test\.|\.(test|spec)\.")
_DEFINITIONS = ("function", "method", "class", "implementation")


def is_test(path: str) -> bool:
    """Whether a path looks like test code, which is shown but not asked about."""
    return _TEST_PATH.search(path) is not None


def last_name(symbol: str | None) -> str:
    """`join` of `Path.join`."""
    return (symbol or "").rsplit(".", 1)[-1]


class Index:
    """Definitions by name, and the links between them that leave no doubt.

    `called_by` and `tests` of a chunk name symbols, not files: a link counts only where the
    symbol stands once in the repository.

    Attributes:
        names: last names of all definitions.
        described: first sentence of a documentation → how many definitions have it.
        callees: id of a caller → the definitions that it calls.
        callers, testers: id of a definition → the chunks that call it, and the tests that do.
    """

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        definitions = [c for c in chunks if c.symbol and c.kind in _DEFINITIONS and c.part == 1]
        self._by_symbol: dict[str, list[Chunk]] = {}
        for chunk in definitions:
            self._by_symbol.setdefault(chunk.symbol or "", []).append(chunk)
        self.described = Counter(first_sentence(c.docstring) for c in definitions if c.docstring)
        self.names = {last_name(chunk.symbol) for chunk in definitions}
        self.callees: dict[str, list[Chunk]] = {}
        self.callers: dict[str, list[Chunk]] = {}
        self.testers: dict[str, list[Chunk]] = {}
        for chunk in definitions:
            for symbol in chunk.called_by:
                if caller := self._only(symbol):
                    self.callees.setdefault(caller.id, []).append(chunk)
                    self.callers.setdefault(chunk.id, []).append(caller)
            testers = (self._only(symbol) for symbol in chunk.tests)
            self.testers[chunk.id] = [found for found in testers if found]

    def _only(self, symbol: str) -> Chunk | None:
        found = self._by_symbol.get(symbol, ())
        return found[0] if len(found) == 1 else None

    def is_askable(self, chunk: Chunk) -> bool:
        """Whether a chunk is a whole definition outside the tests that a name can mean."""
        if chunk.kind not in _DEFINITIONS or not chunk.symbol or chunk.parts > 1:
            return False
        twins = self._by_symbol.get(chunk.symbol, ())
        # A property's getter and setter, or overloads: a question would mean either.
        here = sum(twin.path == chunk.path for twin in twins)
        return here == 1 and not is_test(chunk.path)

    def is_sole(self, chunk: Chunk) -> bool:
        """Whether a definition's symbol stands once in the repository."""
        return len(self._by_symbol.get(chunk.symbol or "", ())) == 1

    def refer(self, chunk: Chunk) -> str:
        """How a question names a definition: with its file where the name stands in several."""
        sole = self.is_sole(chunk)
        return f"`{chunk.symbol}`" if sole else f"`{chunk.symbol}` (in `{chunk.path}`)"

    def known_callees(self, chunk: Chunk) -> list[Chunk] | None:
        """The definitions that a chunk calls; None where some call may mean one or another."""
        found = [c for c in self.callees.get(chunk.id, ()) if c.id != chunk.id]
        known = {last_name(c.symbol) for c in found} | {last_name(chunk.symbol)}
        doubtful = [name for name in chunk.calls if name in self.names and name not in known]
        return None if doubtful else found
