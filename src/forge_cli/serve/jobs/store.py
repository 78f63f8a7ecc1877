"""The jobs in a storage: an event each is written once, whoever writes.

Keys: `e:JOB:N` is event N, the truth; `s:JOB` the job as somebody last read it, which may lag;
`i:KEY` the job of an Idempotency-Key; `h:JOB` its worker's heartbeat; `p:JOB` its progress;
`l:JOB:N` and `m:JOB:N` blocks of its log and of its metrics.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from forge_cli.serve.jobs.job import Conflict, Event, Job, Kind, Spec, begin, follow, now

_MANY = 400  # keys asked for at once
_TRIES = 100  # writers that may come first, one after the other
BLOCKS = ("l", "m")  # logs, metrics


class JobStore:
    """Jobs by id; safe for any number of processes at once."""

    def __init__(self, storage: Any) -> None:
        self.storage = storage
        self._oldest_open = 1  # no job before it is open; only grows

    def create(self, spec: Spec, key: str = "") -> tuple[Job, bool]:
        """A new job, or the one that was created with the same Idempotency-Key before.

        Returns:
            The job, and whether it is new.

        Raises:
            Conflict: the key was used for another spec.
        """
        told = spec.model_dump()
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        job_id = job_name(self.storage.incr("jobs"))
        if key:
            claim = json.dumps([job_id, digest]).encode()
            if not self.storage.put_if_empty(f"i:{key}", claim):
                job_id, before = json.loads(self._bytes(f"i:{key}") or b"[]")
                if before != digest:
                    raise Conflict("the Idempotency-Key was used for another request")
                if job := self.find(job_id):
                    return job, False
        event = Event(number=1, time=now(), kind="created", data={"spec": told})
        new = self.storage.put_if_empty(f"e:{job_id}:1", _dump(event))
        job = self.find(job_id)
        assert job is not None
        self.wake(job)
        return job, bool(new)

    def find(self, job_id: str) -> Job | None:
        """The job with all its events; None if there is none."""
        return self.find_many([job_id])[0] if is_name(job_id) else None

    def find_many(self, ids: Sequence[str]) -> list[Job | None]:
        """Each job with all its events, in a few requests for all."""
        read = self.read([f"s:{job_id}" for job_id in ids])
        jobs: dict[str, Job | None] = {
            job_id: Job.model_validate_json(read[f"s:{job_id}"]) if f"s:{job_id}" in read else None
            for job_id in ids
        }
        behind = list(dict.fromkeys(ids))
        while behind:
            wanted = {i: f"e:{i}:{(j.events if (j := jobs[i]) else 0) + 1}" for i in behind}
            read = self.read(wanted.values())
            behind = [job_id for job_id in behind if wanted[job_id] in read]
            for job_id in behind:
                event = Event.model_validate_json(read[wanted[job_id]])
                job = jobs[job_id]
                jobs[job_id] = job = follow(job, event) if job else begin(job_id, event)
                self.storage.put_data(f"s:{job_id}", job.model_dump_json().encode())
        return [jobs[job_id] for job_id in ids]

    def behind(self, jobs: Iterable[Job]) -> list[str]:
        """The ids of those to which something happened since they were read."""
        keys = {f"e:{job.id}:{job.events + 1}": job.id for job in jobs}
        return [keys[key] for key in self.read(keys)]

    def add(self, job_id: str, kind: Kind, **more: Any) -> Job:
        """Write an event down, after whatever others write meanwhile.

        Raises:
            KeyError: no such job. Conflict: its state does not allow the event.
        """
        for _ in range(_TRIES):
            job = self.find(job_id)
            if job is None:
                raise KeyError(job_id)
            if kind == "claimed":
                more["attempt"] = job.attempt + 1
            event = Event(number=job.events + 1, time=now(), kind=kind, **more)
            after = follow(job, event)  # refuses before anything is written
            if self.storage.put_if_empty(f"e:{job_id}:{event.number}", _dump(event)):
                self.storage.put_data(f"s:{job_id}", after.model_dump_json().encode())
                if after.state == "queued":
                    self.wake(after)
                return after
        raise Conflict(f"{job_id}: too many write to it at once")

    def wake(self, job: Job) -> None:
        """Tell one worker that waits."""
        self.storage.enqueue(job.id.encode(), job.spec.priority)

    def wait(self) -> bool:
        """Until a worker is woken, or a moment; whether there was a call."""
        return self.storage.dequeue() is not None

    def count(self) -> int:
        """How many ids were given out."""
        return int(self.storage.incr("jobs", 0))

    def page(self, limit: int, before: str = "") -> list[Job]:
        """The newest jobs, the newest first; `before`: older than that one."""
        last = number_of(before) - 1 if before else self.count()
        found: list[Job] = []
        while last >= 1 and len(found) < limit:
            ids = [job_name(n) for n in range(last, max(0, last - limit), -1)]
            found += [job for job in self.find_many(ids) if job and not job.removed]
            last -= limit
        return found[:limit]

    def open_jobs(self) -> list[Job]:
        """All that are not over, the oldest first."""
        ids = [job_name(n) for n in range(self._oldest_open, self.count() + 1)]
        jobs = self.find_many(ids)
        # An id without a job may be one that is just being created.
        over = next((i for i, job in enumerate(jobs) if job is None or not job.is_over), len(jobs))
        self._oldest_open += over
        return [job for job in jobs if job and not job.is_over]

    def events(self, job_id: str, after: int = 0) -> list[Event]:
        """The events behind number `after`."""
        job = self.find(job_id)
        last = job.events if job else 0
        keys = [f"e:{job_id}:{n}" for n in range(after + 1, last + 1)]
        read = self.read(keys)
        return [Event.model_validate_json(read[key]) for key in keys if key in read]

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Keep a small value that is written over and over: `h:JOB`, `p:JOB`."""
        self.storage.put_data(key, json.dumps(value).encode())

    def get(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """What of `keys` there is."""
        return {key: json.loads(value) for key, value in self.read(keys).items()}

    def append(self, kind: str, job_id: str, text: str, at: int) -> int:
        """Write a block of log or metrics at the first free place from `at`; returns the next."""
        while not self.storage.put_if_empty(f"{kind}:{job_id}:{at}", text.encode()):
            at += 1
        return at + 1

    def blocks(self, kind: str, job_id: str, start: int = 0, most: int | None = None) -> list[str]:
        """The blocks of log or metrics from number `start` on; not many more than `most`."""
        found: list[str] = []
        while most is None or len(found) < most:
            keys = [f"{kind}:{job_id}:{start + len(found) + n}" for n in range(50)]
            read = self.read(keys)
            for key in keys:
                if key not in read:
                    return found
                found.append(read[key].decode())
        return found

    def remove(self, job_id: str) -> None:
        """Take a job that is over out of sight, with its log and its metrics.

        Raises:
            KeyError: no such job. Conflict: it is not over.
        """
        self.add(job_id, "removed")
        for kind in BLOCKS:
            for number in range(len(self.blocks(kind, job_id))):
                self._delete(f"{kind}:{job_id}:{number}")
        for kind in ("h", "p"):
            self._delete(f"{kind}:{job_id}")

    def _delete(self, key: str) -> None:
        self.storage.pop_data(key)

    def read(self, keys: Iterable[str]) -> dict[str, bytes]:
        """What of `keys` there is, as it is kept."""
        wanted = list(keys)
        found: dict[str, bytes] = {}
        for start in range(0, len(wanted), _MANY):
            some = self.storage.peek_many(wanted[start : start + _MANY])
            found |= {_text(key): bytes(value) for key, value in some.items()}
        return found

    def _bytes(self, key: str) -> bytes | None:
        return self.read([key]).get(key)


def job_name(number: int) -> str:
    """The id of the n-th job, from 1 on."""
    return f"ftjob-{number:06}"


def number_of(job_id: str) -> int:
    """Which job it is; ValueError for what is no id."""
    return int(job_id.removeprefix("ftjob-"))


def is_name(text: str) -> bool:
    """Whether it is an id of a job, of which there need be none."""
    digits = text.removeprefix("ftjob-")
    return len(digits) >= 6 and digits.isascii() and digits.isdigit() and text != digits


def _dump(event: Event) -> bytes:
    return event.model_dump_json().encode()


def _text(key: str | bytes) -> str:
    return key.decode() if isinstance(key, bytes) else key
