"""What goes over the wire; docs and the page read these."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from forge_cli.serve.jobs.job import Event, Job, State

NAME = r"^([A-Za-z0-9][A-Za-z0-9._:/-]*)?$"
"""Of a model that is served; nothing that could be taken for a flag."""


class FineTune(BaseModel):
    """POST /fine-tune.

    Attributes:
        source: a folder that the server may read, a git URL of an allowed host, or `file-…`.
        options: settings of `forge train`, as in forge.yaml.
    """

    model_config = ConfigDict(extra="forbid")

    source: str = Field(min_length=1, max_length=4096)
    options: dict[str, Any] = Field(default_factory=dict)
    export: bool = False
    deploy: str = Field("", max_length=200, pattern=NAME)
    priority: int = Field(0, ge=-100, le=100)
    tags: dict[str, str] = Field(default_factory=dict, max_length=16)


class Progress(BaseModel):
    """How far a job is; what is not known yet is absent."""

    model_config = ConfigDict(extra="ignore")

    stage: str = ""
    done: int = 0
    total: int = 0
    detail: str = ""
    step: int | None = None
    loss: float | None = None
    valid_loss: float | None = None
    peak_bytes: int | None = None


class JobView(BaseModel):
    """A job as clients see it."""

    id: str
    state: State
    wanted: str
    source: str
    options: dict[str, Any]
    export: bool
    deploy: str
    priority: int
    tags: dict[str, str]
    created: str
    started: str
    ended: str
    attempt: int
    worker: str
    host: str
    error: str
    hint: str
    progress: Progress
    result: dict[str, Any]
    links: dict[str, str]

    @classmethod
    def of(cls, job: Job, progress: dict[str, Any] | None = None) -> JobView:
        """The view of a job with its progress as the store has it."""
        here = f"/jobs/{job.id}"
        parts = ("events", "logs", "metrics", "artifacts", "report")
        spec = job.spec.model_dump()
        own = job.model_dump(
            include={
                "id", "state", "wanted", "created", "started", "ended", "attempt", "worker", "host",
                "error", "hint", "result",
            }
        )  # fmt: skip
        return cls(
            **spec,
            **own,
            progress=Progress(**(progress or {})),
            links={"self": here} | {part: f"{here}/{part}" for part in parts},
        )


class JobPage(BaseModel):
    """GET /jobs: the newest first; `next` is the `before` of the next page, empty at the end."""

    jobs: list[JobView]
    next: str = ""


class EventPage(BaseModel):
    """GET /jobs/{id}/events as JSON."""

    events: list[Event]


class Metrics(BaseModel):
    """GET /jobs/{id}/metrics: a row for each optimiser step, in order."""

    rows: list[dict[str, Any]]


class Artifact(BaseModel):
    """A file that a job wrote."""

    path: str
    bytes: int
    link: str


class Artifacts(BaseModel):
    """GET /jobs/{id}/artifacts."""

    artifacts: list[Artifact]
