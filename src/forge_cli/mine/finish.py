"""From the mined files to whole records: what other files and git say is added last.

The chunks of one file are known long before those that call them. So they wait on disk, not
in memory, and only the definitions and the links are kept.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from typing import IO

from forge_cli.mine.history import Past
from forge_cli.mine.links import Links
from forge_cli.mine.worker import Found, head_of


class Waiting:
    """Mined files on disk, in order, until all are there. Close it to free the space."""

    def __init__(self) -> None:
        self._heads: IO[bytes] = tempfile.TemporaryFile(prefix="forge-mine-")  # noqa: SIM115
        self._facts: IO[bytes] = tempfile.TemporaryFile(prefix="forge-mine-")  # noqa: SIM115
        self._links = Links()

    def add(self, found: Found) -> None:
        """Take up a file that was mined."""
        self._heads.write(b"%d %s\n" % (found.chunks, found.path.encode()) + found.heads)
        self._facts.write(found.facts + b"\n")
        self._links.add(found.facts)

    def finished(self, history: Mapping[str, Past]) -> Iterator[tuple[str, bytes]]:
        """(path, its whole records, a line each) of every file."""
        self._facts.seek(0)
        while definitions := self._facts.readline():
            self._links.resolve(definitions + self._facts.readline())
        self._heads.seek(0)
        number = 0
        for line in self._heads:
            count, _, path = line.decode().rstrip("\n").partition(" ")
            heads = [self._heads.readline() for _ in range(int(count))]
            yield path, finish(heads, history.get(path), self._links, number)
            number += len(heads)

    def close(self) -> None:
        """Free the space."""
        self._heads.close()
        self._facts.close()


def finish(heads: list[bytes], past: Past | None, links: Links, first: int) -> bytes:
    """Whole JSON lines from their heads.

    Args:
        first: the number of the first head's chunk in `links`.
    """
    plain = _tail((), (), past)
    lines = []
    for number, head in enumerate(heads, first):
        callers, tests = links.called_by.get(number), links.tests.get(number)
        tail = plain
        if callers or tests:
            tail = _tail(sorted(set(callers or ())), sorted(set(tests or ())), past)
        lines.append(head.removesuffix(b"\n") + tail)
    return b"".join(lines)


def finish_alone(heads: bytes, past: Past | None) -> bytes:
    """Whole JSON lines from their heads, a line each, without links."""
    return heads.replace(b"\n", _tail((), (), past))


def heads_of(lines: bytes) -> bytes:
    """The heads of whole lines: what `finish` can be given again."""
    return b"".join(map(head_of, lines.splitlines()))


def _tail(called_by: object, tests: object, past: Past | None) -> bytes:
    values = {
        "called_by": called_by,
        "tests": tests,
        "commit": past.commit if past else None,
        "committed": past.committed if past else None,
        "history": past.subjects if past else (),
    }
    return b"," + json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()[1:] + b"\n"
