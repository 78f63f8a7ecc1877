"""What the clients that follow one job share: its blocks of metrics and log, kept once for all.

A client is a place in them, no queue of its own, so that one that reads slowly holds no memory.
"""

from __future__ import annotations

import json
import threading
from asyncio import Event
from collections.abc import Callable

from forge_cli.serve.jobs import JobStore

_KEPT = 4 << 20  # characters of one kind in memory; what is older is read from the store again
PAGE = 50  # blocks that are read at once


class Blocks:
    """The newest blocks of one kind, as the data of messages.

    Attributes:
        first: number of the oldest one in memory.
    """

    def __init__(self, kind: str, job_id: str, show: Callable[[str], str]) -> None:
        self.kind, self.job_id, self.show = kind, job_id, show
        self.first = 0
        self._kept: list[str] = []
        self._size = 0
        self._lock = threading.Lock()

    @property
    def end(self) -> int:
        """The number of the next one."""
        return self.first + len(self._kept)

    def after(self, place: int) -> list[str] | None:
        """Those from number `place` on; None: they are no longer in memory."""
        with self._lock:
            return None if place < self.first else self._kept[place - self.first :]

    def read(self, store: JobStore) -> bool:
        """Fetch what is new; whether anything was."""
        before = self.end
        while new := store.blocks(self.kind, self.job_id, self.end, most=PAGE):
            shown = [self.show(text) for text in new]
            with self._lock:
                self._kept += shown
                self._size += sum(map(len, shown))
                while self._size > _KEPT and len(self._kept) > 1:
                    self._size -= len(self._kept.pop(0))
                    self.first += 1
            if len(new) < PAGE:
                break
        return self.end > before

    def old(self, store: JobStore, place: int) -> list[str]:
        """A page of those from `place` on that are no longer in memory."""
        return [self.show(t) for t in store.blocks(self.kind, self.job_id, place, most=PAGE)]


class Channel:
    """One job that is followed.

    Attributes:
        ready: it was read to its end once.
        stale: there may be more to read, though the job does not run.
        waiting: set when there is news.
    """

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.metrics = Blocks("m", job_id, show_rows)
        self.log = Blocks("l", job_id, show_text)
        self.ready, self.stale = False, True
        self.waiting: set[Event] = set()

    def read(self, store: JobStore) -> bool:
        """Fetch what is new; whether there is news."""
        self.stale = False
        news = [blocks.read(store) for blocks in (self.metrics, self.log)]
        first, self.ready = not self.ready, True
        return first or any(news)


def rows_of(text: str) -> list[dict[str, object]]:
    """The rows of a block of metrics; what is no number is null, as JSON has no NaN."""
    return [json.loads(row, parse_constant=lambda _: None) for row in text.splitlines()]


def show_rows(text: str) -> str:
    """The data of a message of metrics."""
    if "NaN" in text or "Infinity" in text:
        return json.dumps({"rows": rows_of(text)})
    return f'{{"rows":[{",".join(text.splitlines())}]}}'


def show_text(text: str) -> str:
    """The data of a message of log."""
    return json.dumps({"text": text})
