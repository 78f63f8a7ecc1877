"""Which tests reach a definition."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from forge_cli.core.records import Chunk
from forge_cli.core.test_paths import is_test_path

# Of a name that is everywhere: more tests take longer and say little more.
_MOST_TESTS = 40
_TEST_CLASS = re.compile(r"Test|\w*Test(s|Case)?$")


class Reach:
    """Tests of a repository, by their symbols and by what they call."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._by_symbol: dict[str, list[Chunk]] = {}
        self._by_call: dict[str, list[Chunk]] = {}
        for chunk in chunks:
            if chunk.symbol and is_test_path(chunk.path):
                self._by_symbol.setdefault(chunk.symbol, []).append(chunk)
                for name in set(chunk.calls):
                    self._by_call.setdefault(name, []).append(chunk)

    def tests_of(self, chunk: Chunk) -> list[Chunk]:
        """The tests that mining links to a definition, else those that call something so named.

        A name is no proof: whether they do notice the definition is for calibration to say. A
        method that no one calls by its name, such as `__init__`, has the calls of its class.
        """
        *scope, name = (chunk.symbol or "").split(".")
        if scope and name.startswith("__"):
            name = scope[-1]
        found = [
            test
            for symbol in chunk.tests
            for test in self._by_symbol.get(symbol, ())
            # A symbol of this name may stand in several files.
            if len(self._by_symbol[symbol]) == 1 or name in test.calls
        ]
        found = found or self._by_call.get(name, [])
        order = sorted({(test.path, test.start_byte): test for test in found}.items())
        return [test for _, test in order[:_MOST_TESTS]]


def node_ids(tests: Sequence[Chunk], inside: Callable[[str], str]) -> list[str]:
    """What pytest is told to run: tests, or their classes, or the files of helpers.

    Args:
        inside: path of a chunk → path in the folder where pytest runs.
    """
    return list(dict.fromkeys(_node_id(inside(test.path), test.symbol or "") for test in tests))


def files_of(tests: Sequence[Chunk], inside: Callable[[str], str]) -> list[str]:
    """The files of tests; `inside` as in `node_ids`."""
    return list(dict.fromkeys(inside(test.path) for test in tests))


def _node_id(path: str, symbol: str) -> str:
    names = symbol.split(".")
    if path.endswith(".py"):
        for count, name in enumerate(names, 1):
            if name.startswith("test"):
                return "::".join([path, *names[:count]])
        if _TEST_CLASS.match(names[0]):
            return f"{path}::{names[0]}"
    return path
