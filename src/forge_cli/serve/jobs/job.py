"""A job is what its events say, one after the other.

    created → queued → claimed → running → ended: succeeded, failed or cancelled
    queued or running → paused → resumed → queued
    running → released → queued       its worker is gone, or a fault that can pass

Whoever claims a running job anew has the next attempt; events of an attempt before are refused, so
that a worker that was only slow cannot end what is another's.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

State = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
Kind = Literal[
    "created", "claimed", "cancel", "pause", "resumed", "retried", "released", "ended", "removed"
]
ENDED: frozenset[State] = frozenset({"succeeded", "failed", "cancelled"})


class Conflict(Exception):
    """An event that the job's state does not allow."""


class Spec(BaseModel):
    """What is to be done.

    Attributes:
        source: a folder, a git URL, or the id of an uploaded file (`file-…`).
        options: settings of Forge by name, as in forge.yaml.
        export: whether a GGUF is written after training. deploy: name to serve it under; empty: no.
        priority: the higher one goes first.
        tags: for those who asked, such as a suffix of the model's name.
        validation: the id of an uploaded file to validate on; empty: a share of the source.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(min_length=1, max_length=4096)
    options: dict[str, Any] = Field(default_factory=dict)
    export: bool = False
    deploy: str = ""
    priority: int = Field(0, ge=-100, le=100)
    tags: dict[str, str] = Field(default_factory=dict)
    validation: str = Field("", max_length=64)


class Event(BaseModel):
    """One thing that happened; numbers begin at 1 and have no gap.

    Attributes:
        attempt, worker: whose event it is, where a worker's.
        state: of `ended`. data: what is told about it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    time: str
    kind: Kind
    attempt: int = 0
    worker: str = ""
    state: State | None = None
    data: dict[str, Any] = Field(default_factory=dict)


class Job(BaseModel):
    """A job as it stands.

    Attributes:
        events: the number of its last event.
        attempt: how often it was begun. lost: how often its worker went away.
        wanted: what the worker is asked to do: go on, stop for good, stop for now.
        not_before: ISO 8601; a job that is tried again waits so long.
        host: the machine of its last attempt, where its files are.
        error, hint: why it failed. result: the `run` record of one that succeeded.
        removed: it is over and not shown any more; its events stay, so that it never runs again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    spec: Spec
    state: State = "queued"
    events: int = 0
    created: str = ""
    started: str = ""
    ended: str = ""
    attempt: int = 0
    lost: int = 0
    worker: str = ""
    host: str = ""
    wanted: Literal["run", "cancel", "pause"] = "run"
    not_before: str = ""
    error: str = ""
    hint: str = ""
    result: dict[str, Any] = Field(default_factory=dict)
    removed: bool = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return self.state in ENDED


def now() -> str:
    """The time as events have it: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def begin(job_id: str, event: Event) -> Job:
    """The job of a `created` event."""
    return Job(id=job_id, spec=Spec(**event.data["spec"]), events=event.number, created=event.time)


def follow(job: Job, event: Event) -> Job:
    """The job after one more event.

    Raises:
        Conflict: the job's state does not allow it, or it is of an attempt that is over.
    """
    if event.number != job.events + 1:
        raise Conflict(f"{job.id}: event {event.number} after {job.events}")
    if event.kind in ("released", "ended") and (
        job.state != "running" or event.attempt != job.attempt
    ):
        raise Conflict(f"{job.id}: attempt {event.attempt} no longer has it")
    change = _CHANGES[event.kind](job, event)
    return job.model_copy(update={"events": event.number, **change})


def _claimed(job: Job, event: Event) -> dict[str, Any]:
    _need(job, "claim", "queued")
    return {
        "state": "running", "attempt": event.attempt, "worker": event.worker, "wanted": "run",
        # A worker's name is HOST-PID-RANDOM.
        "host": event.worker.rsplit("-", 2)[0],
        "started": job.started or event.time, "not_before": "", "error": "", "hint": "",
    }  # fmt: skip


def _cancel(job: Job, event: Event) -> dict[str, Any]:
    _need(job, "cancel", "queued", "paused", "running")
    if job.state == "running":
        return {"wanted": "cancel"}
    return {"state": "cancelled", "ended": event.time}


def _pause(job: Job, event: Event) -> dict[str, Any]:
    _need(job, "pause", "queued", "running")
    if job.state == "running":
        if job.wanted == "cancel":
            raise Conflict(f"{job.id}: is being cancelled")
        return {"wanted": "pause"}
    return {"state": "paused"}


def _resumed(job: Job, event: Event) -> dict[str, Any]:
    _need(job, "resume", "paused")
    return {"state": "queued", "wanted": "run"}


def _retried(job: Job, event: Event) -> dict[str, Any]:
    _need(job, "retry", "failed", "cancelled")
    return {"state": "queued", "wanted": "run", "ended": "", "lost": 0, "not_before": ""}


def _released(job: Job, event: Event) -> dict[str, Any]:
    lost = job.lost + bool(event.data.get("lost"))
    told = {"worker": "", "lost": lost, "not_before": event.data.get("not_before", "")}
    if job.wanted == "cancel":
        return told | {"state": "cancelled", "ended": event.time}
    return told | {"state": "paused" if job.wanted == "pause" else "queued", "wanted": "run"}


def _ended(job: Job, event: Event) -> dict[str, Any]:
    told = {key: event.data.get(key, "") for key in ("error", "hint")}
    told |= {"state": event.state, "worker": "", "wanted": "run"}
    if event.state in ENDED:
        told |= {"ended": event.time, "result": event.data.get("result", {})}
    return told


def _removed(job: Job, event: Event) -> dict[str, Any]:
    if not job.is_over and not job.removed:
        raise Conflict(f"{job.id}: is {job.state}: cancel it before it is removed")
    _need(job, "remove", *ENDED)
    return {"removed": True}


_CHANGES = {
    "claimed": _claimed, "cancel": _cancel, "pause": _pause, "resumed": _resumed,
    "retried": _retried, "released": _released, "ended": _ended, "removed": _removed,
}  # fmt: skip


def _need(job: Job, doing: str, *states: State) -> None:
    if job.state not in states or job.removed:
        raise Conflict(f"{job.id}: is {job.state}, which one cannot {doing}")
