"""A worker: claims jobs, runs each as a child process, and takes over what a dead worker left."""

from __future__ import annotations

import math
import os
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from forge_cli.core.events import SILENT, Reporter
from forge_cli.serve.jobs.attempt import Around, Attempt, Begin
from forge_cli.serve.jobs.job import Conflict, Job, now
from forge_cli.serve.jobs.retention import PATIENCE, Unfinished, remove_old
from forge_cli.serve.jobs.store import JobStore

LEASE = 30.0  # seconds without a heartbeat after which a worker is taken for gone
TRIES = 3  # times that a job may be lost, or meet a fault that can pass
BACK_OFF = 10.0  # seconds before it is tried again; doubled each time

_CLEAR_EVERY = 3600.0  # seconds


class Worker:
    """Works on the jobs of a store until it is stopped.

    Args:
        home: folder of the jobs' folders. begin: what a job runs, in its folder.
        slots: jobs at once; those that need the accelerator wait for one another by a lock.
        lease, back_off: seconds.
        keep_days: after which jobs that are over are removed; 0: never.
        patience: seconds after which an upload that does not grow is removed.
        around: entered before an attempt's process starts, left when it has ended.
    """

    def __init__(
        self,
        store: JobStore,
        home: Path,
        begin: Begin,
        *,
        slots: int = 2,
        lease: float = LEASE,
        back_off: float = BACK_OFF,
        keep_days: float = 0,
        patience: float = PATIENCE,
        reporter: Reporter = SILENT,
        around: Around = lambda _: nullcontext(),
    ) -> None:
        self.store, self.home, self.begin = store, home, begin
        self.slots, self.lease, self.back_off = slots, lease, back_off
        self.keep_days = keep_days
        self._unfinished = Unfinished(store, patience)
        self.reporter, self.around = reporter, around
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.stopping = threading.Event()
        self._running: dict[str, threading.Thread] = {}
        self._seen: dict[str, tuple[object, float]] = {}  # heartbeats, and when they changed

    def run(self, clock: Callable[[], float]) -> None:
        """Until `stop`; what is under way then is released and can be resumed.

        Args:
            clock: seconds, of which only differences count.
        """
        looked = cleared = swept = -math.inf
        while not self.stopping.is_set():
            self._running = {k: t for k, t in self._running.items() if t.is_alive()}
            if clock() - looked >= self.lease / 3:
                looked = clock()
                self._take_over(looked)
            if clock() - swept >= self._unfinished.patience / 4:
                swept = clock()
                for name in self._unfinished.remove(swept):
                    self.reporter.note(f"{name}: removed, as its upload broke off")
            if self.keep_days and clock() - cleared >= _CLEAR_EVERY:
                cleared = clock()
                for job_id in remove_old(self.store, self.home, self.keep_days):
                    self.reporter.note(f"{job_id}: removed, as it ended {self.keep_days} days ago")
            if len(self._running) < self.slots and self._claim():
                continue
            # The queue only wakes: which job is next, the store says.
            if not self.store.wait():
                self.stopping.wait(min(0.5, self.lease / 4))
        for thread in self._running.values():
            thread.join()

    def stop(self) -> None:
        """Let `run` end, and what runs with it."""
        self.stopping.set()

    def _claim(self) -> bool:
        due = now()
        waiting = [job for job in self.store.open_jobs() if job.state == "queued"]
        waiting.sort(key=lambda job: -job.spec.priority)
        for job in waiting:
            if job.not_before > due or job.id in self._running:
                continue
            try:
                claimed = self.store.add(job.id, "claimed", worker=self.name)
            except Conflict:
                continue  # another was sooner
            self._start(claimed)
            return True
        return False

    def _start(self, job: Job) -> None:
        self.reporter.note(f"{job.id}: attempt {job.attempt}")
        attempt = Attempt(self, job)
        attempt.beat()
        thread = threading.Thread(target=attempt.run, name=job.id, daemon=True)
        self._running[job.id] = thread
        thread.start()

    def _take_over(self, at: float) -> None:
        """Release the jobs whose worker has not been heard for a lease, by this clock alone."""
        running = [job for job in self.store.open_jobs() if job.state == "running"]
        beats = self.store.get(f"h:{job.id}" for job in running)
        self._seen = {job.id: self._seen[job.id] for job in running if job.id in self._seen}
        for job in running:
            beat = (job.attempt, beats.get(f"h:{job.id}", {}).get("beat"))
            before, since = self._seen.get(job.id, (None, at))
            if beat != before:
                self._seen[job.id] = beat, at
            elif at - since >= self.lease and job.id not in self._running:
                self.reporter.warn(f"{job.id}: {job.worker} is gone")
                self.give_back(job, "its worker is gone", lost=True, delay=0.0)

    def give_back(self, job: Job, why: str, *, lost: bool, delay: float | None = None) -> None:
        """Release an attempt; one that was lost too often has failed."""
        told: dict[str, Any] = {"attempt": job.attempt, "worker": self.name}
        try:
            if lost and job.lost + 1 >= TRIES and job.wanted == "run":
                failed = {"error": f"{why}; tried {TRIES} times", "hint": "see its log; then retry"}
                self.store.add(job.id, "ended", state="failed", data=failed, **told)
                self.reporter.note(f"{job.id}: failed: {failed['error']}")
                return
            wait = self.back_off * 2**job.lost if delay is None else delay
            after = datetime.now(UTC) + timedelta(seconds=wait)
            data: dict[str, object] = {"why": why, "lost": lost}
            if lost and wait:
                data["not_before"] = after.isoformat(timespec="milliseconds")
            self.store.add(job.id, "released", data=data, **told)
            self.reporter.note(f"{job.id}: given back: {why}")
        except Conflict:
            pass  # another has released it, or has it
