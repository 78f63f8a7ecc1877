"""Jobs, their events and their checkpoints as OpenAI has them."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from forge_cli.core.config import Settings
from forge_cli.models.resolve import public_name
from forge_cli.serve.jobs import Event, Job
from forge_cli.serve.jobs.store import JobStore

Auto = Literal["auto"]
SUFFIX, MULTIPLIER = "openai.suffix", "openai.learning_rate_multiplier"  # tags of a job
_SHOWN = ("epochs", "accumulate", "seed")  # settings that have a place in a job of OpenAI's


class Hyperparameters(BaseModel):
    """How to train; "auto" leaves it to Forge."""

    model_config = ConfigDict(extra="forbid")

    n_epochs: Auto | Annotated[int, Field(ge=1, le=1000)] = "auto"
    batch_size: Auto | Annotated[int, Field(ge=1, le=4096)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0, le=1000)] = "auto"


class JobError(BaseModel):
    """Why a job failed."""

    code: str
    message: str
    param: str | None = None


class MethodTold(BaseModel):
    """What the job trains by."""

    type: Literal["supervised", "dpo"]
    supervised: dict[str, Any] | None = None
    dpo: dict[str, Any] | None = None


class FineTuningJob(BaseModel):
    """A job, as OpenAI has it."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    model: str
    fine_tuned_model: str | None
    organization_id: str = "forge"
    status: Literal[
        "validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"
    ]
    training_file: str
    validation_file: str | None
    hyperparameters: dict[str, float | int | Auto]
    method: MethodTold
    seed: int
    error: JobError | None
    result_files: list[str] = []
    trained_tokens: int | None
    estimated_finish: int | None = None
    integrations: list[Any] = []
    metadata: dict[str, str]
    user_provided_suffix: str | None


class JobList(BaseModel):
    """GET /v1/fine_tuning/jobs."""

    object: Literal["list"] = "list"
    data: list[FineTuningJob]
    has_more: bool = False


class JobEvent(BaseModel):
    """One thing that a job tells."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"] = "info"
    message: str
    type: Literal["message", "metrics"] = "message"
    data: dict[str, Any] = {}


class EventList(BaseModel):
    """GET /v1/fine_tuning/jobs/{id}/events: the newest first."""

    object: Literal["list"] = "list"
    data: list[JobEvent]
    has_more: bool = False


class Checkpoint(BaseModel):
    """A state of the model that can be talked to."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: dict[str, float]
    step_number: int


class CheckpointList(BaseModel):
    """GET /v1/fine_tuning/jobs/{id}/checkpoints."""

    object: Literal["list"] = "list"
    data: list[Checkpoint]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


def base_of(job: Job) -> str:
    """The model that the job starts from."""
    return str(job.spec.options.get("model", Settings.model_fields["model"].default))


def model_name(job: Job) -> str:
    """What the job's model is called in a chat: `ft:BASE:SUFFIX:JOB`."""
    return f"ft:{public_name(base_of(job))}:{job.spec.tags.get(SUFFIX, '')}:{job.id}"


def can_chat(job: Job) -> bool:
    """Whether there is a model that a server could run."""
    return job.state == "succeeded" and (job.spec.export or bool(job.spec.deploy))


def seconds(time: str) -> int:
    """The time of an event in seconds since 1970; 0 for none."""
    return int(datetime.fromisoformat(time).timestamp()) if time else 0


def steps_of(job: Job, store: JobStore) -> list[dict[str, Any]]:
    """The rows of its optimiser steps; of one that two attempts made, the later row."""
    found: dict[object, dict[str, Any]] = {}
    for text in store.blocks("m", job.id):
        for line in text.splitlines():
            with suppress(ValueError):
                row = json.loads(line)
                found[row.get("step")] = row
    return list(found.values())


def job_object(job: Job, store: JobStore) -> FineTuningJob:
    """The view of a job."""
    options, tags = job.spec.options, job.spec.tags
    # As Forge reads them, as one may have come as text.
    read = Settings(**{name: options[name] for name in _SHOWN if name in options})
    multiplier = tags.get(MULTIPLIER)
    # OpenAI's are whole; Forge's need not be.
    epochs = int(read.epochs) if read.epochs and read.epochs.is_integer() else read.epochs
    how: dict[str, float | int | Auto] = {
        "n_epochs": epochs or "auto",
        "batch_size": read.accumulate if "accumulate" in options else "auto",
        "learning_rate_multiplier": float(multiplier) if multiplier else "auto",
    }
    kind: Literal["supervised", "dpo"] = "dpo" if options.get("loss") == "dpo" else "supervised"
    error = None
    if job.state == "failed":
        told = f"{job.error} ({job.hint})" if job.hint else job.error
        error = JobError(code="job_failed", message=told)
    tokens = None
    if job.state == "succeeded":
        tokens = sum(int(row.get("tokens") or 0) for row in steps_of(job, store))
    return FineTuningJob(
        id=job.id,
        created_at=seconds(job.created),
        finished_at=seconds(job.ended) if job.is_over else None,
        model=base_of(job),
        fine_tuned_model=model_name(job) if can_chat(job) else None,
        status=job.state,
        training_file=job.spec.source,
        validation_file=job.spec.validation or None,
        hyperparameters=how,
        method=MethodTold.model_validate({"type": kind, kind: {"hyperparameters": how}}),
        seed=read.seed,
        error=error,
        trained_tokens=tokens,
        metadata={name: value for name, value in tags.items() if not name.startswith("openai.")},
        user_provided_suffix=tags.get(SUFFIX),
    )


_SAYS = {
    "created": "The job is queued",
    "claimed": "Attempt {attempt} begins",
    "cancel": "Cancelling was asked for",
    "pause": "Pausing was asked for",
    "resumed": "The job is queued again",
    "retried": "The job is queued again",
    "released": "The attempt stopped: {why}",
    "ended": "The job has {state}",
    "removed": "The job was removed",
}


def job_events(job: Job, store: JobStore) -> list[JobEvent]:
    """What a job told so far, the oldest first: its own events and a row for each step.

    A step's time is that of the first attempt and the steps before it, as rows have none.
    """
    own = store.events(job.id)
    at = next((seconds(event.time) for event in own if event.kind == "claimed"), 0)
    found = [_event(job, event) for event in own]
    passed = 0.0
    for row in steps_of(job, store):
        passed += float(row.get("seconds") or 0)
        found.append(_step(job, row, at + int(passed)))
    # Sorted by time alone, and stable: events of one second keep their order, before steps.
    last = [event for event in found if event.message.startswith("The job has ")]
    rest = [event for event in found if event not in last]
    return sorted(rest, key=lambda event: event.created_at) + last


def _event(job: Job, event: Event) -> JobEvent:
    why = event.data.get("why") or event.data.get("error") or ""
    text = _SAYS[event.kind].format(attempt=event.attempt, why=why, state=event.state)
    failed = event.state == "failed"
    if failed:
        text += f": {why}"
    return JobEvent(
        id=f"ftevent-{job.id.removeprefix('ftjob-')}-e{event.number}",
        created_at=seconds(event.time),
        level="error" if failed else "warn" if event.data.get("lost") else "info",
        message=text,
        data={"kind": event.kind, "attempt": event.attempt},
    )


def _step(job: Job, row: dict[str, Any], at: int) -> JobEvent:
    names = {"step": "step", "loss": "train_loss", "valid_loss": "valid_loss"}
    data = {told: row[name] for name, told in names.items() if row.get(name) is not None}
    text = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in data.items())
    return JobEvent(
        id=f"ftevent-{job.id.removeprefix('ftjob-')}-m{row.get('step')}",
        created_at=at,
        message=text,
        type="metrics",
        data=data,
    )


def checkpoints(job: Job) -> list[Checkpoint]:
    """The one that is kept and can be talked to: the best by validation loss."""
    train = job.result.get("metrics", {}).get("train", {})
    if not can_chat(job) or "best_step" not in train:
        return []
    step, loss = int(train["best_step"]), train.get("best_valid_loss")
    return [
        Checkpoint(
            id=f"ftckpt-{job.id.removeprefix('ftjob-')}",
            created_at=seconds(job.ended),
            fine_tuned_model_checkpoint=model_name(job),
            fine_tuning_job_id=job.id,
            metrics={"step": step} | ({} if loss is None else {"full_valid_loss": loss}),
            step_number=step,
        )
    ]
