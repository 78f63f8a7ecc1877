"""Mine a repository into chunks that cover its text files: `mine.run(...)`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.records import Chunk, Verdict, content_id
from forge_cli.mine.chunks import cut_file
from forge_cli.mine.files import Source, Tree, find_tree, read
from forge_cli.mine.grammar import check_languages, language_of, refine
from forge_cli.mine.history import Past
from forge_cli.mine.links import link

# Below this many files a pool of processes costs more than it saves.
_POOL_FILES = 200
_LEAST_CHARS = 40


# Rejects that are text, and so count as text that is in no chunk.
_TEXT_CHECKS = {"language", "minified", "parse", "coverage"}


@dataclass
class Coverage:
    """What became of the files' bytes; counted from the chunks and rejects, not assumed."""

    files: int = 0
    chunks: int = 0
    text_bytes: int = 0
    chunk_bytes: int = 0
    rejected: Counter[str] = field(default_factory=Counter)  # by check

    def add(self, size: int, chunks: Sequence[Chunk]) -> None:
        """Count a mined file of `size` bytes."""
        self.files += 1
        self.text_bytes += size
        self.chunks += len(chunks)
        self.chunk_bytes += sum(len(chunk.text.encode()) for chunk in chunks)

    def reject(self, verdict: Verdict) -> None:
        """Count a file that was left out; its bytes are missed when they are text."""
        self.rejected[verdict.check] += 1
        if verdict.check in _TEXT_CHECKS:
            self.text_bytes += verdict.end_byte or 0

    @property
    def share(self) -> float:
        """Share of the text's bytes that are in chunks."""
        return self.chunk_bytes / self.text_bytes if self.text_bytes else 1.0

    def __str__(self) -> str:
        named = ", ".join(f"{count} {check}" for check, count in sorted(self.rejected.items()))
        return (
            f"mined {self.files:,} files into {self.chunks:,} chunks: {self.share:.2%} of "
            f"{self.text_bytes / 1e6:.2f} MB; {self.rejected.total()} files rejected"
            + (f" ({named})" if named else "")
        )


def run(
    path: Path,
    *,
    langs: Sequence[str] = (),
    max_chars: int = 1500,
    jobs: int = 0,
    parse_seconds: float = 20.0,
    on_reject: Callable[[Verdict], None] | None = None,
    reporter: Reporter = SILENT,
) -> Iterator[Chunk]:
    """Yield the chunks of a repository, by path and position.

    Args:
        langs: only these languages (none: all).
        max_chars: largest chunk, in bytes of UTF-8 text.
        jobs: processes (0: one per core, where there are files enough).
        parse_seconds: a file whose parse takes longer is left out, by name.
        on_reject: gets each file that is left out, with the reason.

    Raises:
        UsageError: the path is not there, an unknown language, or `max_chars` below 40.
        ForgeError: there is nothing to mine.
    """
    check_languages(tuple(langs))
    if max_chars < _LEAST_CHARS:
        raise UsageError(f"max_chars {max_chars} is too few", f"give {_LEAST_CHARS} or more")
    tree = find_tree(path)
    coverage = Coverage()
    chunks: list[Chunk] = []
    with reporter.task("mining", len(tree.paths)) as task:
        for found in _mine_all(tree, tuple(langs), max_chars, jobs, parse_seconds):
            if isinstance(found, Verdict):
                coverage.reject(found)
                if on_reject:
                    on_reject(found)
            elif found is not None:
                size, file_chunks = found
                coverage.add(size, file_chunks)
                chunks += file_chunks
            task.advance()
    if not chunks:
        raise ForgeError(
            f"{path}: none of {len(tree.paths)} files holds text that Forge mines",
            "see why with --rejects FILE",
        )
    reporter.note(str(coverage))
    yield from link(chunks)


_Found = tuple[int, list[Chunk]] | Verdict | None
_Task = tuple[Tree, str, Past | None, tuple[str, ...], int, float]


def _mine_all(
    tree: Tree, langs: tuple[str, ...], limit: int, jobs: int, seconds: float
) -> Iterator[_Found]:
    jobs = jobs or os.cpu_count() or 1
    # What each task carries to its process: not all the paths, and one file's history.
    tasks = [
        (replace(tree, paths=[], history={}), path, tree.history.get(path), langs, limit, seconds)
        for path in tree.paths
    ]
    if jobs == 1 or len(tasks) < _POOL_FILES:
        yield from map(_mine_one, tasks)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    # spawn: the parent may hold threads (MLX, BLAS) that a fork would break.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context)
    try:
        yield from pool.map(_mine_one, tasks, chunksize=16)
    except BrokenProcessPool:
        raise ForgeError(
            f"{tree.top}: a mining process died (a grammar crashed, or memory ran out)",
            "find the file with --jobs 1 -v, and leave it out in .forgeignore",
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _mine_one(task: _Task) -> _Found:
    """One file: its size and chunks, a verdict, or None when its language is not asked for."""
    tree, path, past, langs, limit, seconds = task
    language = language_of(path)
    if langs and language not in langs and not (language == "c" and "cpp" in langs):
        return None
    source = read(tree, path)
    if isinstance(source, Verdict):
        return source
    if language is None:
        return _rejected(source, "language", "no language or text format known by this name")
    language = refine(language, path, source.data)
    if langs and language not in langs:
        return None
    try:
        chunks = cut_file(source, language, tree.name, limit, past, seconds=seconds)
    except (RecursionError, ValueError) as error:
        return _rejected(source, "parse", f"the grammar failed: {error}")
    if not _covers(chunks, source.data):
        return _rejected(source, "coverage", "its chunks are not its bytes: a defect of Forge")
    return len(source.data), chunks


def _covers(chunks: list[Chunk], data: bytes) -> bool:
    """Whether the chunks' ranges follow each other from end to end and their text is `data`."""
    at = 0
    for chunk in chunks:
        if chunk.start_byte != at or chunk.text.encode() != data[at : chunk.end_byte]:
            return False
        at = chunk.end_byte
    return at == len(data)


def _rejected(source: Source, check: str, reason: str) -> Verdict:
    return Verdict(
        id=content_id(source.path, check),
        check=check,
        reason=reason,
        path=source.path,
        start_byte=0,
        end_byte=len(source.data),
    )


__all__ = ["Coverage", "run"]
