"""One file mined, in a process of its own: a grammar that crashes takes only this one along."""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import os
import pickle
import signal
import struct
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from forge_cli.core.records import Chunk, Verdict
from forge_cli.mine.chunks import cut_file
from forge_cli.mine.files import Source, read, stat_of, verdict_of
from forge_cli.mine.generated import foreign
from forge_cli.mine.grammar import Tags
from forge_cli.mine.imports import import_names
from forge_cli.mine.languages import language_of, may_be, refine
from forge_cli.mine.links import receiver_at

_FILES_A_COLLECTION = 25
_SIZE = struct.Struct("<Q")
# In every chunk's JSON what comes from here on is known when all files are mined.
_TAIL = b',"called_by":'


class Task(NamedTuple):
    """A file to mine; `exempt`: .gitattributes says that it was written here."""

    path: str
    exempt: bool = False


@dataclass(frozen=True)
class Config:
    """What holds for all the files of a run."""

    top: Path
    repo: str
    langs: tuple[str, ...] = ()
    max_chars: int = 1500
    parse_seconds: float = 20.0
    links: bool = True


@dataclass(frozen=True)
class Found:
    """What became of one file.

    Attributes:
        verdict: why it was left out.
        size, chunk_bytes: bytes of the file, where it was mined, and of its chunks.
        heads: the chunks' JSON, one a line, up to what other files decide (`called_by` …).
        facts: two lines of JSON for `links`, from `facts_of`.
        digest, stat: SHA-256 of the bytes, and `stat_of` the file before they were read.
        skipped: its language is not one that was asked for.
    """

    path: str
    verdict: Verdict | None = None
    size: int = 0
    chunks: int = 0
    chunk_bytes: int = 0
    heads: bytes = b""
    facts: bytes = b""
    digest: str = ""
    stat: tuple[int, ...] = ()
    skipped: bool = False


def mine_file(config: Config, task: Task) -> Found:
    """Read, parse and cut one file."""
    stat = stat_of(config.top / task.path)
    return replace(_mine(config, task), stat=stat)


def _mine(config: Config, task: Task) -> Found:
    path = task.path
    named = language_of(path)
    langs = config.langs
    if langs and not may_be(path, langs):
        return Found(path, skipped=True)
    source = read(config.top, path)
    if isinstance(source, Verdict):
        return Found(path, skipped=True) if langs and named is None else Found(path, source)
    language = refine(named, path, source.data)
    if langs and language not in langs:
        return Found(path, skipped=True)
    if not task.exempt and (foreign_to := foreign(path, source.data)):
        return Found(path, _rejected(source, *foreign_to))
    if language is None:
        why = "no language or text format known by this name or first line"
        return Found(path, _rejected(source, "language", why))
    try:
        chunks, tags = cut_file(
            source, language, config.repo, config.max_chars,
            calls=config.links, seconds=config.parse_seconds,
        )  # fmt: skip
    except (RecursionError, ValueError) as error:
        return Found(path, _rejected(source, "parse", f"the grammar failed: {error}"))
    if not _covers(chunks, source.data):
        why = "its chunks are not its bytes: a defect of Forge"
        return Found(path, _rejected(source, "coverage", why))
    heads = b"".join(head_of(chunk.model_dump_json().encode()) for chunk in chunks)
    facts = facts_of(source, language, chunks, tags) if config.links else b""
    in_chunks = sum(chunk.end_byte - chunk.start_byte for chunk in chunks)
    digest = hashlib.sha256(source.data).hexdigest()
    return Found(path, None, len(source.data), len(chunks), in_chunks, heads, facts, digest)


def head_of(line: bytes) -> bytes:
    """A chunk's JSON up to what other files decide, as a line."""
    # A quote inside a string is escaped, so this can only be the field.
    return line[: line.rindex(_TAIL)] + b"\n"


def facts_of(source: Source, language: str, chunks: list[Chunk], tags: Tags) -> bytes:
    """What `links` needs of a file, as two lines of JSON.

    The first: path, number of chunks, and of each definition that calls can mean the number of
    its chunk, its symbol and kind. The second: path, language, the names that are imported
    (null where one import brings in all that there is), and each chunk's symbol and calls.
    """
    imported: list[str] | None = None
    if not any("*" in statement for statement in tags.imports):
        names = {n for statement in tags.imports for n in import_names(statement, language)}
        imported = sorted(name.decode("utf-8", "replace") for name in names)
    definitions = [[n, c.symbol, c.kind] for n, c in enumerate(chunks) if _may_be_called(c)]
    callers = [[c.symbol, calls] for c, calls in _hanging(source.data, chunks, tags) if c.symbol]
    first = json.dumps([source.path, len(chunks), definitions])
    return f"{first}\n{json.dumps([source.path, language, imported, callers])}".encode()


def _hanging(
    data: bytes, chunks: list[Chunk], tags: Tags
) -> Iterator[tuple[Chunk, dict[str, list[str | None]]]]:
    """Each chunk that calls something, with the names and what each hangs on."""
    calls, at = tags.calls, 0
    for chunk in chunks:
        hangs_on: dict[str, list[str | None]] = {}
        while at < len(calls) and calls[at][0] < chunk.end_byte:
            place, name = calls[at]
            found = hangs_on.setdefault(name, [])
            if (receiver := receiver_at(data, place)) not in found:
                found.append(receiver)
            at += 1
        if hangs_on:
            yield chunk, hangs_on


def _may_be_called(chunk: Chunk) -> bool:
    # Definitions each once: a class has no signature but where it begins.
    return (
        chunk.symbol is not None
        and chunk.part == 1
        and (
            chunk.kind in ("function", "method")
            or (chunk.kind == "class" and bool(chunk.signature))
        )
    )


def _covers(chunks: list[Chunk], data: bytes) -> bool:
    """Whether the chunks' ranges follow each other from end to end and their text is `data`."""
    at = 0
    for chunk in chunks:
        if chunk.start_byte != at or chunk.text.encode() != data[at : chunk.end_byte]:
            return False
        at = chunk.end_byte
    return at == len(data)


def _rejected(source: Source, check: str, reason: str) -> Verdict:
    return verdict_of(source.path, check, reason, len(source.data))


def send(fd: int, message: object) -> None:
    """Write a message with its length before it."""
    data = pickle.dumps(message)
    view = memoryview(_SIZE.pack(len(data)) + data)
    while view:
        view = view[os.write(fd, view) :]


def receive(fd: int) -> Any:
    """The next message; None when the other side is gone."""
    head = _read(fd, _SIZE.size)
    data = _read(fd, _SIZE.unpack(head)[0]) if head else None
    return None if data is None else pickle.loads(data)


def _read(fd: int, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        got = os.read(fd, size - len(parts))
        if not got:
            return None
        parts += got
    return bytes(parts)


def main(target: str) -> None:
    """Answer each (config, task) on stdin with `target`'s result, until stdin ends.

    Args:
        target: `module:function` called with the config and the task.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not get among the answers
    module, _, name = target.partition(":")
    work: Callable[[Config, Task], Any] = getattr(importlib.import_module(module), name)
    # Nearly all that a file makes is freed without the collector, which costs a tenth.
    gc.disable()
    gc.freeze()
    send(answers, "ready")
    for number, message in enumerate(iter(lambda: receive(sys.stdin.fileno()), None)):
        if number % _FILES_A_COLLECTION == 0:
            gc.collect()
        try:
            answer = work(*message)
        except Exception:
            answer = traceback.format_exc()
        send(answers, answer)
