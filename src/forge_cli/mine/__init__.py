"""Mine a repository into chunks that cover its text files: `mine.run(...)`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from forge_cli.core.errors import UsageError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.records import Chunk, Verdict
from forge_cli.mine.cache import Cache
from forge_cli.mine.coverage import Coverage
from forge_cli.mine.files import find_tree
from forge_cli.mine.languages import check_languages
from forge_cli.mine.mining import Mining
from forge_cli.mine.worker import Config

_LEAST_CHARS = 40


class Mined:
    """The chunks of a repository, by path and position: as records, or as lines of JSON.

    It can be gone through once; the mining is done while it is.
    """

    def __init__(self, mining: Mining) -> None:
        self._mining = mining

    def __iter__(self) -> Iterator[Chunk]:
        for block in self.lines():
            for line in block.splitlines():
                yield Chunk.model_validate_json(line)

    def lines(self) -> Iterator[bytes]:
        """The same records as blocks of whole JSON lines: what `jsonl.dump` would write."""
        return self._mining.lines()


def run(
    path: Path,
    *,
    langs: Sequence[str] = (),
    max_chars: int = 1500,
    jobs: int = 0,
    links: bool = True,
    parse_seconds: float = 20.0,
    cache: Path | None = None,
    on_reject: Callable[[Verdict], None] | None = None,
    reporter: Reporter = SILENT,
) -> Mined:
    """The chunks of a repository, by path and position.

    Args:
        langs: only these languages (none: all).
        max_chars: largest chunk, in bytes of UTF-8 text.
        jobs: processes (0: one per core, where there are files enough).
        links: find out who calls whom (`calls`, `called_by`, `tests`); without, these are empty.
        parse_seconds: a file whose parse takes longer is left out, by name.
        cache: a folder that keeps the results, so that only what changed is parsed again.
        on_reject: gets each file that is left out, with the reason.

    Raises:
        UsageError: the path is not there, an unknown language, or `max_chars` below 40.
        ForgeError: there is nothing to mine (while the chunks are gone through).
    """
    check_languages(tuple(langs))
    if max_chars < _LEAST_CHARS:
        raise UsageError(f"max_chars {max_chars} is too few", f"give {_LEAST_CHARS} or more")
    tree = find_tree(path)
    config = Config(tree.top, tree.name, tuple(langs), max_chars, parse_seconds, links)
    jobs = jobs or os.cpu_count() or 1
    known = Cache(cache, path, config) if cache else None
    return Mined(Mining(path, tree, config, jobs, known, on_reject, reporter))


__all__ = ["Coverage", "Mined", "run"]
