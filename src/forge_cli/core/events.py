"""What a stage tells whoever runs it.

A stage takes a `Reporter` and knows nothing of terminals. The command line shows
a progress bar; a library user who passes nothing gets silence.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Task(Protocol):
    """A unit of progress that is under way."""

    def advance(self, amount: float = 1.0, detail: str = "") -> None:
        """Add `amount` units; `detail` is a short live text, such as the loss."""

    def resize(self, total: float) -> None:
        """From now on the work is `total` units."""


class Reporter(Protocol):
    """Where a stage sends progress, notes and warnings."""

    def note(self, message: str) -> None:
        """A line that a user may want to know."""

    def warn(self, message: str) -> None:
        """A line that a user should act on."""

    @contextmanager
    def task(self, name: str, total: float | None = None) -> Iterator[Task]:
        """A piece of work of `total` units (None: not known)."""
        raise NotImplementedError
        yield


class _SilentTask:
    def advance(self, amount: float = 1.0, detail: str = "") -> None:
        pass

    def resize(self, total: float) -> None:
        pass


class Silent:
    """The reporter of a caller who wants no output."""

    def note(self, message: str) -> None:
        pass

    def warn(self, message: str) -> None:
        pass

    @contextmanager
    def task(self, name: str, total: float | None = None) -> Iterator[Task]:
        yield _SilentTask()


SILENT = Silent()
