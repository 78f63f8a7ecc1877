"""What an earlier run mined, by content: a file that did not change is not parsed again.

A repository and a set of options have an index (JSON), the records as they were written
(JSONL), and what linking needs. The key holds a hash of this package's source, so another
version of the miner never reads the results of this one.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

from forge_cli.core.errors import ForgeError
from forge_cli.core.jsonl import atomic_file
from forge_cli.core.records import Verdict
from forge_cli.mine.files import stat_of
from forge_cli.mine.finish import heads_of
from forge_cli.mine.worker import Config, Found, Task

# A file that changed so shortly before it was read may change again within its time stamp.
_RACY_NS = 2_000_000_000
_OLD_SECONDS = 14 * 86_400
_BLOCK = 1 << 20  # bytes


@dataclass
class Entry:
    """A file as it was: what tells that it is the same, and where its results stand.

    Attributes:
        stat: as `files.stat_of` gives it.
        lines, facts: (offset, length) in the two files.
    """

    stat: list[int]
    digest: str = ""
    exempt: bool = False
    skipped: bool = False
    size: int = 0
    chunks: int = 0
    chunk_bytes: int = 0
    lines: list[int] = field(default_factory=lambda: [0, 0])
    facts: list[int] = field(default_factory=lambda: [0, 0])
    verdict: dict[str, Any] | None = None


class Cache:
    """The results of the last run with the same options over the same repository.

    A cache that is broken, foreign or half-written counts as empty. Its files stay open, and so
    readable when another run replaces them, until `close`.
    """

    def __init__(self, folder: Path, path: Path, config: Config) -> None:
        self.folder = folder / hashlib.sha256(os.fsencode(config.top)).hexdigest()[:16]
        asked = [str(path.resolve()), config.repo, config.langs]
        options = [*asked, config.max_chars, config.links, _version()]
        self.key = hashlib.sha256(repr(options).encode()).hexdigest()[:16]
        self.index = self.folder / f"{self.key}.json"
        self.head, self.taken = "", 0
        self._lines: IO[bytes] = io.BytesIO()
        self._facts: IO[bytes] = io.BytesIO()
        self.entries: dict[str, Entry] = {}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            self._read()
        self._top = config.top

    def _read(self) -> None:
        known = json.loads(self.index.read_bytes())
        self._lines = open(self.file(known["nonce"], "lines"), "rb")  # noqa: SIM115
        self._facts = open(self.file(known["nonce"], "facts"), "rb")  # noqa: SIM115
        sizes = [os.fstat(stream.fileno()).st_size for stream in (self._lines, self._facts)]
        if sizes == known["sizes"]:
            self.entries = {path: Entry(*values) for path, values in known["entries"].items()}
            self.head, self.taken = known["head"], known["taken"]

    def file(self, nonce: str, kind: str) -> Path:
        """Where a run keeps its `lines` or `facts`."""
        return self.folder / f"{self.key}-{nonce}.{kind}"

    def close(self) -> None:
        """Close the files."""
        self._lines.close()
        self._facts.close()

    def same(self, task: Task) -> Entry | None:
        """The entry of a file that is as it was: by its time stamps, else by its content."""
        entry = self.entries.get(task.path)
        if entry is None or entry.exempt != task.exempt:
            return None
        file = self._top / task.path
        stat = [*stat_of(file)]
        if not stat:
            return None
        if stat == entry.stat and stat[1] < self.taken - _RACY_NS:
            return entry
        # Only what was read before is opened: a file of secrets never is.
        if entry.digest and stat[0] == entry.stat[0]:
            with contextlib.suppress(OSError):
                if digest_of(file) == entry.digest:
                    entry.stat = stat
                    return entry
        return None

    def outcome(self, path: str, entry: Entry) -> Found:
        """An entry's result without its chunks' text."""
        return Found(
            path,
            verdict=Verdict.model_validate(entry.verdict) if entry.verdict else None,
            size=entry.size,
            chunks=entry.chunks,
            chunk_bytes=entry.chunk_bytes,
            digest=entry.digest,
            stat=tuple(entry.stat),
            skipped=entry.skipped,
        )

    def found(self, path: str, entry: Entry) -> Found:
        """An entry's result, whole."""
        self._lines.seek(entry.lines[0])
        self._facts.seek(entry.facts[0])
        heads = heads_of(self._lines.read(entry.lines[1]))
        facts = self._facts.read(entry.facts[1])
        return replace(self.outcome(path, entry), heads=heads, facts=facts)

    def blocks(self) -> Iterator[bytes]:
        """All records of the last run, in blocks of whole lines."""
        self._lines.seek(0)
        while block := self._lines.read(_BLOCK):
            yield block + self._lines.readline()


class Writer:
    """The cache of this run; it replaces the last one's when `commit` is called."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._broken = False  # the disk is full: the run goes on without a cache
        self._nonce = secrets.token_hex(4)
        self._taken = time.time_ns()
        self._entries: dict[str, Entry] = {}
        cache.folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # it holds private code
        self._lines = open(cache.file(self._nonce, "lines"), "wb")  # noqa: SIM115
        self._facts = open(cache.file(self._nonce, "facts"), "wb")  # noqa: SIM115

    def add(self, task: Task, found: Found) -> None:
        """Take up a file's result."""
        verdict = found.verdict
        # Whether a parse came to its end may lie in what else the machine did.
        if not found.stat or (verdict and verdict.check in ("parse", "hang", "crash")):
            return
        self._entries[task.path] = Entry(
            stat=[*found.stat],
            digest=found.digest,
            exempt=task.exempt,
            skipped=found.skipped,
            size=found.size,
            chunks=found.chunks,
            chunk_bytes=found.chunk_bytes,
            facts=self._put(self._facts, found.facts),
            verdict=verdict.model_dump(exclude_none=True) if verdict else None,
        )

    def write(self, path: str, lines: bytes) -> None:
        """The whole records of a file that was added."""
        place = self._put(self._lines, lines)
        if entry := self._entries.get(path):
            entry.lines = place

    def _put(self, stream: IO[bytes], data: bytes) -> list[int]:
        place = [stream.tell(), len(data)]
        try:
            stream.write(data)
        except OSError:
            self._broken = True
        return place

    def commit(self, head: str) -> None:
        """Put the index in place, which makes all this the cache, and drop what is old."""
        sizes = [stream.tell() for stream in (self._lines, self._facts)]
        self.close()
        if self._broken:
            return
        value = {
            "head": head,
            "nonce": self._nonce,
            "taken": self._taken,
            "sizes": sizes,
            "entries": {path: list(vars(entry).values()) for path, entry in self._entries.items()},
        }
        with contextlib.suppress(ForgeError), atomic_file(self._cache.index) as stream:
            stream.write(json.dumps(value, separators=(",", ":")).encode())
        self._drop_old()

    def close(self) -> None:
        """Close the files; without `commit` they are dropped by a later run."""
        for stream in (self._lines, self._facts):
            try:
                stream.close()
            except OSError:
                self._broken = True

    def _drop_old(self) -> None:
        now = time.time()
        for file in self._cache.folder.iterdir():
            own = file.name.startswith(f"{self._cache.key}-{self._nonce}.")
            replaced = file.name.startswith(f"{self._cache.key}-") and not own
            with contextlib.suppress(OSError):
                if replaced or now - file.stat().st_mtime > _OLD_SECONDS:
                    file.unlink()


def digest_of(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def _version() -> str:
    """A hash of the miner's source and its grammars' versions."""
    digest = hashlib.sha256()
    package = files("forge_cli.mine")
    folders = [package, package.joinpath("queries")]
    for folder in folders:
        for file in sorted(folder.iterdir(), key=lambda f: f.name):
            if file.name.endswith((".py", ".scm")):
                digest.update(file.read_bytes())
    digest.update(files("forge_cli.core").joinpath("records.py").read_bytes())
    for name in ("tree-sitter", "tree-sitter-language-pack"):
        digest.update(importlib.metadata.version(name).encode())
    return digest.hexdigest()
