"""How a language is tested: a sample, what must be found in it, and the sample damaged."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from forge_cli import mine
from forge_cli.core.records import Chunk
from forge_cli.mine.chunks import cut_file
from forge_cli.mine.files import Source
from forge_cli.mine.links import Links
from forge_cli.mine.worker import facts_of

# symbol → (kind, signature, docstring, how the chunk's text begins without its indent)
Wanted = dict[str, tuple[str, str, str | None, str]]


def mined(folder: Path, name: str, text: str, limit: int) -> dict[str, Chunk]:
    """The chunks of a file by symbol, the first of each; the contract is checked."""
    (folder / name).write_bytes(text.encode())
    chunks = list(mine.run(folder, max_chars=limit, jobs=1))
    keeps_the_contract(chunks, text.encode())
    by_symbol: dict[str, Chunk] = {}
    for chunk in chunks:
        by_symbol.setdefault(chunk.symbol or "", chunk)
    return by_symbol


def keeps_the_contract(chunks: list[Chunk], data: bytes) -> None:
    """Ranges that are disjoint and cover the file; each text is its bytes."""
    ends = [0, *(chunk.end_byte for chunk in chunks)]
    assert [chunk.start_byte for chunk in chunks] == ends[:-1] and ends[-1] == len(data)
    for chunk in chunks:
        assert chunk.text.encode() == data[chunk.start_byte : chunk.end_byte]


def finds(folder: Path, name: str, text: str, limit: int, wanted: Wanted) -> dict[str, Chunk]:
    """Check that these symbols are found, and that none is torn from its comment at any limit."""
    found = mined(folder, name, text, limit)
    assert set(wanted) <= set(found)
    for symbol, (kind, signature, docstring, begins) in wanted.items():
        chunk = found[symbol]
        assert (chunk.kind, chunk.signature, chunk.docstring) == (kind, signature, docstring)
        assert chunk.text.lstrip().startswith(begins), symbol
    for other in (max(40, limit // 2), 2 * limit, 1500):
        for symbol, chunk in mined(folder, name, text, other).items():
            if symbol in wanted and chunk.parts == 1:
                assert chunk.text.lstrip().startswith(wanted[symbol][3]), (symbol, other)
    return found


def survives_damage(language: str, text: str, rounds: int = 100) -> None:
    """Check the contract on broken copies of a sample, and that the links take what is found."""
    rng = random.Random(f"damage {language}")
    for _ in range(rounds):
        data = damaged(rng, text)
        source = Source("a", data)
        chunks, tags = cut_file(source, language, "r", rng.choice([40, 90, 300]))
        keeps_the_contract(chunks, data)
        assert all(name for chunk in chunks for name in [chunk.symbol or "-", *chunk.calls])
        links, facts = Links(), facts_of(source, language, chunks, tags)
        links.add(facts)
        links.resolve(facts)
        assert {*links.called_by, *links.tests} <= set(range(len(chunks)))


def damaged(rng: random.Random, text: str) -> bytes:
    """A copy with pieces missing, doubled, and strange ones put in."""
    data = text.encode() * rng.randint(1, 6 if len(text) < 200 else 2)
    for _ in range(rng.randint(1, 8)):
        at, to = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        to = min(to, at + 12)
        data = data[:at] + rng.choice(_CRUMBS) * rng.randint(0, 2) + data[to:]
    return data.decode("utf-8", "ignore").encode()


def _crumbs() -> Iterator[bytes]:
    yield from (b"{", b"}", b"(", b'"', b"'", b"`", b"#", b"\n", b"\r\n", b"\t", b"/*", b"*/")
    yield "é€🎉".encode()
    yield from (b"def ", b"class ", b"fn ", b"<", b">", b"\x0c", b"\\", b";", b"--", b"end", b"@")


_CRUMBS = list(_crumbs())
