"""Which of a repository's definitions are asked about, and which others may be shown."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from forge_cli.core.records import Chunk


class Asking:
    """All definitions, or some of them.

    Args:
        askable: all definitions that can be asked about.
        only: ids of those to ask about. beside: of what may be shown with them (None: all).

    Attributes:
        about: ids of the definitions to ask about. paths: their files.
        chosen: whether that is a choice, so that others stand beside them.
    """

    def __init__(
        self,
        askable: Sequence[Chunk],
        only: Collection[str] | None = None,
        beside: Collection[str] | None = None,
    ) -> None:
        wanted = [chunk for chunk in askable if only is None or chunk.id in only]
        self.about = {chunk.id for chunk in wanted}
        self.paths = {chunk.path for chunk in wanted}
        self.chosen = only is not None
        self._beside = None if beside is None else set(beside)

    def may_show(self, chunk: Chunk) -> bool:
        """Whether a chunk may be a document."""
        return self._beside is None or chunk.id in self._beside or chunk.id in self.about

    def is_asked(self, chunks: Sequence[Chunk]) -> bool:
        """Whether a context of these chunks holds one to ask about."""
        return any(chunk.id in self.about for chunk in chunks)

    def is_other(self, chunk: Chunk) -> bool:
        """Whether there was a choice and a chunk is not of it."""
        return self.chosen and chunk.id not in self.about
