"""One run over a repository: what changed is mined, the rest comes from the cache."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Reporter
from forge_cli.core.records import Verdict
from forge_cli.mine.cache import Cache, Entry, Writer
from forge_cli.mine.coverage import Coverage
from forge_cli.mine.files import Tree, verdict_of
from forge_cli.mine.finish import Waiting, finish_alone
from forge_cli.mine.history import Past, read_history
from forge_cli.mine.pool import mine_files
from forge_cli.mine.worker import Config, Found, Task


class Mining:
    """The order of the work; see `mine.run` for the arguments."""

    def __init__(
        self,
        path: Path,
        tree: Tree,
        config: Config,
        jobs: int,
        cache: Cache | None,
        on_reject: Callable[[Verdict], None] | None,
        reporter: Reporter,
    ) -> None:
        self.path, self.tree, self.config, self.jobs = path, tree, config, jobs
        self.cache = cache
        self.on_reject, self.reporter = on_reject, reporter
        self.coverage = Coverage()

    def lines(self) -> Iterator[bytes]:
        """Blocks of whole JSON lines."""
        marks = self.tree.marks
        tasks = [Task(path, exempt=marks.get(path) is False) for path in self.tree.paths]
        with contextlib.ExitStack() as stack:
            known: dict[str, Entry | None] = {}
            if self.cache:
                stack.callback(self.cache.close)
                known = {t.path: self.cache.same(t) for t in tasks if not marks.get(t.path)}
                if self._nothing_changed(self.cache, known):
                    yield from self._again(self.cache, known)
                    return
            writer = self._writer(self.cache, stack) if self.cache else None
            results = self._results(tasks, known, writer, stack)
            if self.config.links:
                yield from self._linked(results, writer, stack)
            else:
                yield from self._plain(results, writer)
            if writer:
                writer.commit(self.tree.head)

    def _nothing_changed(self, cache: Cache, known: dict[str, Entry | None]) -> bool:
        same_files = cache.entries.keys() == known.keys() and all(known.values())
        return same_files and cache.head == self.tree.head

    def _again(self, cache: Cache, known: dict[str, Entry | None]) -> Iterator[bytes]:
        """What the last run wrote."""
        for path in self.tree.paths:
            entry = known.get(path)
            self._count(cache.outcome(path, entry) if entry else _marked(path))
        self._conclude()
        yield from cache.blocks()

    def _writer(self, cache: Cache, stack: contextlib.ExitStack) -> Writer | None:
        try:
            writer = Writer(cache)
        except OSError as error:
            self.reporter.warn(f"no cache in {cache.folder}: {error.strerror or error}")
            return None
        stack.callback(writer.close)
        return writer

    def _results(
        self,
        tasks: list[Task],
        known: dict[str, Entry | None],
        writer: Writer | None,
        stack: contextlib.ExitStack,
    ) -> Iterator[Found]:
        """What became of each file, in order, counted."""
        marks = self.tree.marks
        new = [t for t in tasks if not marks.get(t.path) and not known.get(t.path)]
        mined = mine_files(self.config, new, self.jobs)
        stack.callback(mined.close)
        with self.reporter.task("mining", len(tasks)) as progress:
            for task in tasks:
                entry = known.get(task.path)
                if marks.get(task.path):
                    found = _marked(task.path)
                elif entry and self.cache:
                    found = self.cache.found(task.path, entry)
                else:
                    found = next(mined)
                if writer and not marks.get(task.path):
                    writer.add(task, found)
                self._count(found)
                yield found
                progress.advance()
        self._conclude()

    def _count(self, found: Found) -> None:
        self.coverage.add(found)
        if found.verdict and self.on_reject:
            self.on_reject(found.verdict)

    def _conclude(self) -> None:
        if not self.coverage.chunks:
            raise ForgeError(
                f"{self.path}: none of {len(self.tree.paths)} files holds text that Forge mines",
                "see why with --rejects FILE",
            )
        self.reporter.note(str(self.coverage))

    def _history(self) -> Mapping[str, Past]:
        return read_history(self.tree.top) if self.tree.head else {}

    def _plain(self, results: Iterator[Found], writer: Writer | None) -> Iterator[bytes]:
        history = self._history()
        for found in results:
            if found.chunks:
                lines = finish_alone(found.heads, history.get(found.path))
                if writer:
                    writer.write(found.path, lines)
                yield lines

    def _linked(
        self, results: Iterator[Found], writer: Writer | None, stack: contextlib.ExitStack
    ) -> Iterator[bytes]:
        waiting = Waiting()
        stack.callback(waiting.close)
        for found in results:
            if found.chunks:
                waiting.add(found)
        history = self._history()
        with self.reporter.task("linking", self.coverage.files) as progress:
            for path, lines in waiting.finished(history):
                if writer:
                    writer.write(path, lines)
                yield lines
                progress.advance()


def _marked(path: str) -> Found:
    reason = ".gitattributes says that it is generated or vendored"
    return Found(path, verdict_of(path, "generated", reason))
