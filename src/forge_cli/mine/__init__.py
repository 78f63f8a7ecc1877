"""Mine a repository into chunks that cover its text files: `mine.run(...)`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.records import Chunk, Verdict, content_id
from forge_cli.mine.files import Source, Tree, find_tree, read
from forge_cli.mine.grammar import check_languages, language_of
from forge_cli.mine.links import link
from forge_cli.mine.units import cut_file

# Below this many files a pool of processes costs more than it saves.
_POOL_FILES = 200


@dataclass
class Coverage:
    """What became of the files' bytes; counted from the chunks, not assumed."""

    files: int = 0
    chunks: int = 0
    text_bytes: int = 0
    chunk_bytes: int = 0
    rejected: int = 0

    @property
    def share(self) -> float:
        """Share of the mined files' bytes that are in chunks."""
        return self.chunk_bytes / self.text_bytes if self.text_bytes else 1.0


def run(
    path: Path,
    *,
    langs: Sequence[str] = (),
    max_chars: int = 1500,
    jobs: int = 0,
    on_reject: Callable[[Verdict], None] | None = None,
    reporter: Reporter = SILENT,
) -> Iterator[Chunk]:
    """Yield the chunks of a repository, by path and position.

    Args:
        langs: only these languages (none: all).
        max_chars: largest chunk, in bytes of UTF-8 text.
        jobs: processes (0: one per core, where there are files enough).
        on_reject: gets each file that is left out, with the reason.

    Raises:
        UsageError: the path is not there, or an unknown language.
        ForgeError: there is nothing to mine.
    """
    check_languages(tuple(langs))
    tree = find_tree(path)
    coverage = Coverage()
    chunks: list[Chunk] = []
    with reporter.task("mining", len(tree.paths)) as task:
        for found in _mine_all(tree, tuple(langs), max_chars, jobs):
            if isinstance(found, Verdict):
                coverage.rejected += 1
                if on_reject:
                    on_reject(found)
            elif found is not None:
                size, file_chunks = found
                coverage.files += 1
                coverage.text_bytes += size
                coverage.chunk_bytes += sum(c.end_byte - c.start_byte for c in file_chunks)
                chunks += file_chunks
            task.advance()
    coverage.chunks = len(chunks)
    if not chunks:
        raise ForgeError(
            f"{path}: none of {len(tree.paths)} files holds text that Forge mines",
            "see why with --rejects FILE",
        )
    reporter.note(
        f"mined {coverage.files} files into {coverage.chunks} chunks: "
        f"{coverage.share:.2%} of {coverage.text_bytes / 1e6:.2f} MB; "
        f"{coverage.rejected} files rejected"
    )
    if coverage.chunk_bytes != coverage.text_bytes:
        reporter.warn("some bytes are in no chunk: please report the repository")
    yield from link(chunks)


_Found = tuple[int, list[Chunk]] | Verdict | None


def _mine_all(tree: Tree, langs: tuple[str, ...], limit: int, jobs: int) -> Iterator[_Found]:
    jobs = jobs or os.cpu_count() or 1
    tasks = [(tree, path, langs, limit) for path in tree.paths]
    if jobs == 1 or len(tasks) < _POOL_FILES:
        yield from map(_mine_one, tasks)
        return
    import multiprocessing

    # spawn: the parent may hold threads (MLX, BLAS) that a fork would break.
    bare = Tree(tree.top, tree.name, tree.commit, [])
    tasks = [(bare, path, langs, limit) for path in tree.paths]
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(_mine_one, tasks, chunksize=16)


def _mine_one(task: tuple[Tree, str, tuple[str, ...], int]) -> _Found:
    """One file: its size and chunks, a verdict, or None when its language is not asked for."""
    tree, path, langs, limit = task
    language = language_of(path)
    if langs and language not in langs:
        return None
    source = read(tree, path)
    if isinstance(source, Verdict):
        return source
    if language is None:
        return _rejected(source, "language", "no language or text format known by this name")
    try:
        chunks = cut_file(source, language, tree.name, limit)
    except (RecursionError, ValueError) as error:
        return _rejected(source, "parse", f"the grammar failed: {error}")
    if tree.commit:
        chunks = [chunk.model_copy(update={"commit": tree.commit}) for chunk in chunks]
    return len(source.data), chunks


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
