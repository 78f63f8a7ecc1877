"""What of a repository changed between two minings, chunk by chunk and symbol by symbol.

A chunk's id hashes its position too, so that a line more at the top of a file would change all
of them. Here chunks are compared by path, symbol, kind and text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from forge_cli.core.records import Chunk

T = TypeVar("T")
Key = tuple[str, str, str]  # path, symbol or "", kind
Sort = Literal["code", "text"]


@dataclass(frozen=True)
class Count:
    """How many symbols, or texts, came to what."""

    added: int = 0
    changed: int = 0
    gone: int = 0
    moved: int = 0
    unchanged: int = 0

    @property
    def differing(self) -> int:
        """Added, changed or gone."""
        return self.added + self.changed + self.gone

    @property
    def share(self) -> float:
        """Added, changed or gone, of all that stood or stands; 0 of nothing."""
        return self.differing / max(1, self.differing + self.moved + self.unchanged)


@dataclass(frozen=True)
class Changes:
    """Two minings of a repository against each other; chunks in the order of the mining.

    Attributes:
        added, moved, unchanged: chunks as they are now. "moved": the same text stood elsewhere.
        changed: (old, new).
        gone: chunks as they were.
        before: id of a chunk of now that is unchanged, changed or moved → what it was.
        counts: "code": definitions, each once, however many parts it is cut into or pieces its
            class consists of. "text": what has no name: prose, cells, code between definitions.
        share: of both sorts, what was added, changed or is gone, of all that stood or stands.
    """

    added: list[Chunk]
    changed: list[tuple[Chunk, Chunk]]
    gone: list[Chunk]
    moved: list[Chunk]
    unchanged: list[Chunk]
    before: dict[str, Chunk] = field(repr=False)
    counts: dict[Sort, Count]
    share: float


def changes(old: Sequence[Chunk], now: Sequence[Chunk]) -> Changes:
    """What became of the chunks of one mining in a later one of the same repository."""
    chunks = _match(old, now, _key, lambda chunk: plain(chunk.text))
    counts: dict[Sort, Count] = {}
    before, after = _symbols(old), _symbols(now)
    for sort in ("code", "text"):
        one, other = ([s for s in found if s.sort == sort] for found in (before, after))
        found = _match(one, other, lambda symbol: symbol.key, lambda symbol: plain(symbol.text))
        counts[sort] = Count(
            len(found.added), len(found.changed), len(found.gone), len(found.moved),
            len(found.same),
        )  # fmt: skip
    both = [counts["code"], counts["text"]]
    every = sum(count.differing + count.moved + count.unchanged for count in both)
    pairs = [*chunks.same, *chunks.changed, *chunks.moved]
    return Changes(
        added=chunks.added,
        changed=chunks.changed,
        gone=chunks.gone,
        moved=[new for _, new in chunks.moved],
        unchanged=[new for _, new in chunks.same],
        before={new.id: was for was, new in pairs},
        counts=counts,
        share=sum(count.differing for count in both) / max(1, every),
    )


def plain(text: str) -> str:
    """A text as it is compared: which blank lines stand around it depends on its neighbours, and
    how its lines end on the checkout."""
    return text.replace("\r\n", "\n").strip()


def is_code(chunk: Chunk) -> bool:
    """Whether a chunk is a definition in code, or part of one."""
    return chunk.symbol is not None and chunk.kind != "section"


def _key(chunk: Chunk) -> Key:
    return chunk.path, chunk.symbol or "", chunk.kind


@dataclass
class _Symbol:
    """A definition with all its chunks, or a chunk without a name."""

    key: Key
    sort: Sort
    text: str


def _symbols(chunks: Iterable[Chunk]) -> list[_Symbol]:
    found: list[_Symbol] = []
    named: dict[Key, _Symbol] = {}
    for chunk in chunks:
        key = _key(chunk)
        if not is_code(chunk):
            found.append(_Symbol(key, "text", chunk.text))
        elif key in named:
            named[key].text += chunk.text
        else:
            named[key] = _Symbol(key, "code", chunk.text)
            found.append(named[key])
    return found


@dataclass
class _Matched(Generic[T]):
    """Pairs are (old, new)."""

    same: list[tuple[T, T]] = field(default_factory=list)
    changed: list[tuple[T, T]] = field(default_factory=list)
    moved: list[tuple[T, T]] = field(default_factory=list)
    gone: list[T] = field(default_factory=list)
    added: list[T] = field(default_factory=list)


def _match(
    old: Sequence[T], now: Sequence[T], key: Callable[[T], Key], text: Callable[[T], str]
) -> _Matched[T]:
    """Equal in place and text, then equal in text alone, then the rest of a place in order."""
    found: _Matched[T] = _Matched()
    left, rest = _pair(old, now, lambda one: (key(one), text(one)), found.same)
    left, rest = _pair(left, rest, lambda one: (key(one)[2], text(one)), found.moved)
    found.gone, found.added = _pair(left, rest, key, found.changed)
    return found


def _pair(
    old: Sequence[T], now: Sequence[T], name: Callable[[T], Hashable], pairs: list[tuple[T, T]]
) -> tuple[list[T], list[T]]:
    """Append to `pairs` what has an equal name, first to first; return what is left of both."""
    waiting: dict[Hashable, deque[int]] = {}
    for place, one in enumerate(old):
        waiting.setdefault(name(one), deque()).append(place)
    taken: set[int] = set()
    rest = []
    for one in now:
        if places := waiting.get(name(one)):
            taken.add(place := places.popleft())
            pairs.append((old[place], one))
        else:
            rest.append(one)
    return [one for place, one in enumerate(old) if place not in taken], rest
