"""`/v1/fine_tuning/jobs`: the same jobs as under /jobs, as OpenAI's clients ask for them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from forge_cli.core.config import Settings
from forge_cli.serve.jobs import Job, JobStore, Spec
from forge_cli.serve.jobs.checks import check_spec
from forge_cli.serve.jobs.command import check_options
from forge_cli.serve.jobs.files import FileStore
from forge_cli.serve.jobs.job import Kind
from forge_cli.serve.jobs.store import is_name, number_of
from forge_cli.serve.openai_form import missing, wrong
from forge_cli.serve.problems import Refused
from forge_cli.serve.routes.jobs import Watching
from forge_cli.serve.routes.openai.job_objects import (
    MULTIPLIER,
    SUFFIX,
    CheckpointList,
    EventList,
    FineTuningJob,
    Hyperparameters,
    JobList,
    checkpoints,
    job_events,
    job_object,
)
from forge_cli.serve.services import Services, services
from forge_cli.serve.watcher import Watcher

router = APIRouter()
Found = Annotated[Services, Depends(services)]
_FILE = r"^file-[0-9a-f]{24}$"
After = Annotated[str, Query(max_length=64)]


class HowTo(BaseModel):
    """Hyperparameters of a method."""

    model_config = ConfigDict(extra="forbid")

    hyperparameters: Hyperparameters | None = None


class DpoHyperparameters(Hyperparameters):
    """Those of preferences."""

    beta: Literal["auto"] | Annotated[float, Field(gt=0, le=100)] = "auto"


class DpoHowTo(BaseModel):
    """Hyperparameters of preferences."""

    model_config = ConfigDict(extra="forbid")

    hyperparameters: DpoHyperparameters | None = None


class Method(BaseModel):
    """What to train by."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["supervised", "dpo"] = "supervised"
    supervised: HowTo | None = None
    dpo: DpoHowTo | None = None


class CreateJob(BaseModel):
    """POST /v1/fine_tuning/jobs.

    Attributes:
        model: the base: a built-in, a Hugging Face id, a folder, a .gguf.
        options: beyond OpenAI's: settings of `forge train` by name (`extra_body` of its client).
    """

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, max_length=1000)
    training_file: str = Field(pattern=_FILE)
    validation_file: str | None = Field(default=None, pattern=_FILE)
    hyperparameters: Hyperparameters | None = None
    method: Method | None = None
    suffix: str | None = Field(default=None, min_length=1, max_length=64, pattern=r"^[\w.-]+$")
    seed: int | None = Field(default=None, ge=0, le=2**31 - 1)
    metadata: dict[str, str] | None = Field(default=None, max_length=16)
    integrations: list[Any] | None = Field(default=None, max_length=0)
    options: dict[str, Any] = Field(default_factory=dict)


@router.post("/fine_tuning/jobs")
def create(
    body: CreateJob,
    found: Found,
    watching: Watching,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> FineTuningJob:
    """Queue a job; its model is exported, so that one can chat with it."""
    kind = _check_files(body, found)
    tags = dict(body.metadata or {})
    for name, value in tags.items():
        if len(name) > 64 or len(value) > 512 or name.startswith("openai."):
            raise wrong(f"metadata.{name[:64]}", "at most 64 and 512 characters, no openai.…")
    if body.suffix:
        tags[SUFFIX] = body.suffix
    method, how = _method(body, kind)
    options = {**_options(body, how, method), **body.options, "model": body.model}
    times = how.learning_rate_multiplier
    if times != "auto":
        tags[MULTIPLIER] = str(times)
    spec = Spec(
        source=body.training_file, validation=body.validation_file or "", export=True, tags=tags,
        options=options, priority=0,
    )  # fmt: skip
    check_spec(spec, found.allowed)
    if times != "auto" and times != 1 and "learning_rate" not in options:
        # Only now: the model's own folder is read for it.
        options["learning_rate"] = times * _suited_rate(options, method)
        check_options(options)
        spec = spec.model_copy(update={"options": options})
    job, _ = found.store.create(spec, idempotency_key or "")
    watching.saw(job)
    return job_object(job, found.store)


def _check_files(body: CreateJob, found: Services) -> str:
    """The kind of rows; Refused unless the files are there and go together."""
    files = FileStore(found.store)
    training = files.find(body.training_file)
    if training is None:
        raise missing("training_file", "no such file", "upload it: POST /v1/files")
    if body.validation_file:
        validation = files.find(body.validation_file)
        if validation is None:
            raise missing("validation_file", "no such file", "upload it: POST /v1/files")
        if validation.kind != training.kind:
            raise wrong("validation_file", f"{validation.kind} rows beside {training.kind} rows")
    elif training.kind == "chat" and training.different < 2:
        raise wrong(
            "training_file",
            "one chat: another is needed to validate on",
            "add rows, or name a validation_file",
        )
    return training.kind


def _method(body: CreateJob, kind: str) -> tuple[str, Hyperparameters]:
    """What to train by, and how; Refused unless the rows are for it."""
    method = body.method or Method()
    is_dpo = method.type == "dpo"
    if is_dpo != (kind == "preference"):
        raise wrong(
            "method.type",
            f"{method.type} does not train on {kind} rows",
            "dpo takes preference records, supervised chats or example records",
        )
    own = method.dpo if is_dpo else method.supervised
    how = (own.hyperparameters if own else None) or body.hyperparameters or Hyperparameters()
    return method.type, how


def _options(body: CreateJob, how: Hyperparameters, method: str) -> dict[str, Any]:
    options: dict[str, Any] = {"loss": "dpo"} if method == "dpo" else {}
    if body.seed is not None:
        options["seed"] = body.seed
    if how.n_epochs != "auto":
        options["epochs"] = float(how.n_epochs)
    if how.batch_size != "auto":
        # Rows that are packed run as one batch, and a step is a number of batches.
        options |= {"accumulate": how.batch_size, "packing": False}
    if isinstance(how, DpoHyperparameters) and how.beta != "auto":
        options["beta"] = how.beta
    return options


def _suited_rate(options: dict[str, Any], method: str) -> float:
    """What 1 stands for: the rate that Forge takes by the width of the model."""
    from forge_cli.models.resolve import BUILT_IN, public_name, resolve
    from forge_cli.train.schedules import suited_rate

    model = str(options["model"])
    init = str(options.get("init", Settings.model_fields["init"].default))
    try:
        if model not in BUILT_IN and public_name(model) == model:
            raise wrong(
                "hyperparameters.learning_rate_multiplier",
                f"the rate that suits {model} is known when the model is here",
                'send options.learning_rate instead, or leave it "auto"',
            )
        config = json.loads((resolve(model) / "config.json").read_bytes())
        return suited_rate(config, init, "dpo" if method == "dpo" else "sft")
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError):
        # No path at all, or a folder whose config.json is no model's.
        raise wrong("model", "not a model that can be read", "see options.learning_rate") from None


@router.get("/fine_tuning/jobs")
def list_jobs(
    request: Request,
    found: Found,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: After = "",
) -> JobList:
    """The newest first; `metadata[name]=value` chooses among them."""
    if after and not is_name(after):
        raise missing("after", "no such job")
    wanted = {
        name[len("metadata[") : -1]: value
        for name, value in request.query_params.items()
        if name.startswith("metadata[") and name.endswith("]")
    }
    jobs: list[Job] = []
    while len(jobs) <= limit:
        page = found.store.page(100, after)
        jobs += [job for job in page if wanted.items() <= job.spec.tags.items()]
        if len(page) < 100 or number_of(page[-1].id) == 1:
            break
        after = page[-1].id
    data = [job_object(job, found.store) for job in jobs[:limit]]
    return JobList(data=data, has_more=len(jobs) > limit)


@router.get("/fine_tuning/jobs/{job_id}")
def retrieve(job_id: str, found: Found) -> FineTuningJob:
    """One job."""
    return job_object(find(job_id, found.store), found.store)


@router.get("/fine_tuning/jobs/{job_id}/events")
def list_events(
    job_id: str,
    found: Found,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    after: After = "",
) -> EventList:
    """What it told, the newest first."""
    events = job_events(find(job_id, found.store), found.store)[::-1]
    names = [event.id for event in events]
    if after and after not in names:
        raise missing("after", "no such event")
    rest = events[names.index(after) + 1 :] if after else events
    return EventList(data=rest[:limit], has_more=len(rest) > limit)


@router.get("/fine_tuning/jobs/{job_id}/checkpoints")
def list_checkpoints(
    job_id: str,
    found: Found,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    after: After = "",
) -> CheckpointList:
    """The state that is kept, once it can be talked to."""
    data = [one for one in checkpoints(find(job_id, found.store)) if one.id != after][:limit]
    name = data[0].id if data else None
    return CheckpointList(data=data, first_id=name, last_id=name)


@router.post("/fine_tuning/jobs/{job_id}/cancel")
def cancel(job_id: str, found: Found, watching: Watching) -> FineTuningJob:
    """Stop it for good."""
    return _asked(job_id, "cancel", found.store, watching)


@router.post("/fine_tuning/jobs/{job_id}/pause")
def pause(job_id: str, found: Found, watching: Watching) -> FineTuningJob:
    """Stop it for now."""
    return _asked(job_id, "pause", found.store, watching)


@router.post("/fine_tuning/jobs/{job_id}/resume")
def resume(job_id: str, found: Found, watching: Watching) -> FineTuningJob:
    """Go on with a paused job."""
    return _asked(job_id, "resumed", found.store, watching)


def find(job_id: str, store: JobStore) -> Job:
    """The job, or Refused with 404."""
    job = store.find(job_id)
    if job is None or job.removed:
        raise Refused(404, "Job not found", job_id[:64])
    return job


def _asked(job_id: str, what: Kind, store: JobStore, watching: Watcher) -> FineTuningJob:
    find(job_id, store)
    return job_object(watching.saw(store.add(job_id, what)).job, store)
