"""One look at the queue for all clients: a thread polls it, requests are answered from memory."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from typing import Any

from forge_cli.serve.channels import Channel
from forge_cli.serve.jobs import Job, JobStore
from forge_cli.serve.jobs.store import is_name, job_name, number_of
from forge_cli.serve.schemas import JobView

_PAUSE = 0.25  # seconds between two looks
_ALL = 20  # looks, of which one is also at the jobs that are over and at gaps between ids
_AHEAD = 50  # ids behind the last one that are looked for
_GONE = 1000  # removed jobs that are still told of
_log = logging.getLogger("forge.serve")


class Known:
    """A job in memory.

    Attributes:
        version: of the last change to it, among all changes that this server saw.
        total: events of all jobs at that time; unlike `version` the same after a restart.
    """

    __slots__ = ("_body", "job", "progress", "total", "version")

    def __init__(self, job: Job, progress: dict[str, Any], version: int, total: int) -> None:
        self.job, self.progress = job, progress
        self.version, self.total = version, total
        self._body: bytes | None = None

    def body(self) -> bytes:
        """The JobView as JSON, made once."""
        if self._body is None:
            self._body = JobView.of(self.job, self.progress).model_dump_json().encode()
        return self._body


class Watcher:
    """Jobs and their progress in memory, and who wants to hear of changes.

    What this server itself writes is handed to `saw`, so that the next request already sees it.

    Attributes:
        error: why the last look failed; empty: it did not.
        started: events there were when this server began.
    """

    def __init__(self, store: JobStore, pause: float = _PAUSE) -> None:
        self.store, self.pause = store, pause
        self.error = ""
        self.seconds = 0.0  # that the last look took
        self.total = self.version = self.started = 0
        self.jobs: dict[str, Known] = {}
        self.recent: OrderedDict[str, tuple[int, int]] = OrderedDict()  # (version, total)
        self.channels: dict[str, Channel] = {}
        self.waiting: set[asyncio.Event] = set()  # for changes of any job
        self.closing = False
        self._numbers: list[int] = []  # ascending
        self._gaps: set[int] = set()
        self._removed: dict[str, int] = {}  # → its number of events
        self._last = self._looks = 0
        self._lock = threading.RLock()
        self._poke, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due: deque[asyncio.Event] = deque()
        self._waker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read what there is, then go on by itself."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self.look)
        self.started = self.total
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """End the thread and all streams."""
        self.end_streams()
        self._stop.set()
        self._poke.set()
        if self._thread:
            await asyncio.to_thread(self._thread.join, 10)

    def end_streams(self) -> None:
        """Let every stream end, as the server does."""
        self.closing = True
        for event in [*self.waiting, *(e for c in self.channels.values() for e in c.waiting)]:
            event.set()

    def get(self, job_id: str) -> Known | None:
        """The job as it was at the last look."""
        return self.jobs.get(job_id)

    def fetch(self, job_id: str) -> Known | None:
        """The job, also one that another server has just created; asks the store."""
        if known := self.jobs.get(job_id):
            return known
        job = self.store.find(job_id)
        return self.saw(job) if job and not job.removed else None

    def page(self, limit: int, before: str = "", state: str = "") -> list[Known]:
        """The newest jobs, the newest first."""
        end = number_of(before) if is_name(before) else None
        found: list[Known] = []
        with self._lock:
            for number in reversed(self._numbers):
                known = self.jobs[job_name(number)]
                if (end is None or number < end) and state in ("", known.job.state):
                    found.append(known)
                    if len(found) == limit:
                        break
        return found

    def counts(self) -> Counter[str]:
        """How many jobs there are in each state."""
        with self._lock:
            return Counter(known.job.state for known in self.jobs.values())

    def saw(self, job: Job, progress: dict[str, Any] | None = None) -> Known:
        """Take over a job as the store has it; the newest of what was seen counts."""
        with self._lock:
            known = self._take(job, progress)
        self._tell([job.id])
        return known

    def channel(self, job_id: str) -> Channel:
        """What those who follow the job share; on the server's loop alone."""
        if job_id not in self.channels:
            self.channels[job_id] = Channel(job_id)
            self._poke.set()
        return self.channels[job_id]

    def leave(self, channel: Channel) -> None:
        """Forget the channel if nobody is left."""
        if not channel.waiting:
            self.channels.pop(channel.job_id, None)

    def look(self) -> None:
        """Ask the store for everything that may have changed."""
        began = time.monotonic()
        everything = self._looks % _ALL == 0
        self._looks += 1
        with self._lock:
            known = [k.job for k in self.jobs.values() if everything or not k.job.is_over]
        ids = [*self.store.behind(known), *self._unknown(everything)]
        found = [job for job in self.store.find_many(ids) if job]
        changed = {job.id for job in found if job.id not in self._removed}
        running = [job.id for job in (*known, *found) if job.state == "running"]
        # Also of what has ended since the last look, or before this server began.
        moving = [*running, *changed]
        told = self.store.get(f"p:{job_id}" for job_id in moving)
        # Before its end is seen, so that a stream has told of all when it tells of the end.
        news = self._read_channels(changed | set(running))
        with self._lock:
            for job in found:
                self._take(job, None)
            for job_id in moving:
                if (progress := told.get(f"p:{job_id}")) and job_id in self.jobs:
                    before = self.jobs[job_id]
                    if before.progress != progress:
                        self._take(before.job, progress)
                        changed.add(job_id)
            self._note_gaps(ids, found)
        self._tell(changed | news)
        self.seconds = time.monotonic() - began

    def _unknown(self, everything: bool) -> list[str]:
        last = max(self._last, self.store.count()) if everything else self._last + _AHEAD
        ahead = range(self._last + 1, last + 1)
        return [job_name(n) for n in ([*sorted(self._gaps), *ahead] if everything else ahead)]

    def _note_gaps(self, ids: list[str], found: list[Job]) -> None:
        there = {number_of(job.id) for job in found}
        asked = {number_of(job_id) for job_id in ids}
        self._last = max(self._last, *there, 0)
        # Ids that were given out for nothing, or whose job is being created.
        self._gaps = {n for n in (self._gaps | asked) - there if n < self._last} - {
            n for n in asked if job_name(n) in self.jobs or job_name(n) in self._removed
        }

    def _read_channels(self, may_have_more: set[str]) -> set[str]:
        news = set()
        for channel in list(self.channels.values()):
            if (channel.stale or channel.job_id in may_have_more) and channel.read(self.store):
                news.add(channel.job_id)
        return news

    def _take(self, job: Job, progress: dict[str, Any] | None) -> Known:
        before = self.jobs.get(job.id)
        number = number_of(job.id)
        seen = before.job.events if before else self._removed.get(job.id, 0)
        if before and job.events <= seen and progress is None:
            return before
        self.version += 1
        self.total += max(0, job.events - seen)
        newest = before.job if before and before.job.events > job.events else job
        kept = progress if progress is not None else before.progress if before else {}
        known = Known(newest, kept, self.version, self.total)
        self.recent[job.id] = self.version, self.total
        self.recent.move_to_end(job.id)
        if job.removed or job.id in self._removed:
            self._removed[job.id] = max(job.events, seen)
            if self.jobs.pop(job.id, None):
                self._numbers.remove(number)
            while len(self.recent) > len(self.jobs) + _GONE:
                self.recent.popitem(last=False)
            return known
        if before is None:
            _insert(self._numbers, number)
        self.jobs[job.id] = known
        return known

    def _tell(self, ids: Iterable[str]) -> None:
        told = set(ids)
        if self._loop and told and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, told)

    def _wake(self, ids: set[str]) -> None:
        for job_id in ids:
            if channel := self.channels.get(job_id):
                channel.stale = True
                self._due.extend(channel.waiting)
        self._due.extend(self.waiting)
        if self._due and (self._waker is None or self._waker.done()):
            self._waker = asyncio.ensure_future(self._wake_slowly())

    async def _wake_slowly(self) -> None:
        # A thousand clients woken at once would keep every request waiting behind them.
        while self._due:
            for _ in range(min(8, len(self._due))):
                self._due.popleft().set()
            await asyncio.sleep(0.003)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._poke.wait(self.pause)
            self._poke.clear()
            try:
                self.look()
                self.error = ""
            except Exception as error:  # the queue is away; it may come back
                if not self.error:
                    _log.warning("the queue does not answer: %s", type(error).__name__)
                self.error = f"{type(error).__name__}"
                self._stop.wait(1.0)
            self._stop.wait(0.05)


def _insert(numbers: list[int], number: int) -> None:
    from bisect import insort

    insort(numbers, number)
