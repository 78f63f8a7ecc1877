"""Jobs: start, list, look at, stop, go on, remove."""

from __future__ import annotations

import shutil
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from forge_cli.serve.jobs import Conflict, Spec
from forge_cli.serve.jobs.checks import NotAllowed, check_spec
from forge_cli.serve.jobs.job import Kind, State
from forge_cli.serve.openapi import problems
from forge_cli.serve.problems import Refused
from forge_cli.serve.schemas import FineTune, JobPage, JobView
from forge_cli.serve.services import Services, services
from forge_cli.serve.watcher import Known, Watcher

router = APIRouter(tags=["jobs"])

Found = Annotated[Services, Depends(services)]
JobId = Annotated[str, Path(description="such as ftjob-000001", max_length=64)]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key", min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$",
        description="the same key with the same request makes one job",
    ),
]  # fmt: skip


async def watcher(request: Request) -> Watcher:
    """The server's, for a route; async, as FastAPI takes any other dependency to a thread."""
    found = request.app.state.watcher
    assert isinstance(found, Watcher)
    return found


Watching = Annotated[Watcher, Depends(watcher)]


def missing(job_id: str) -> Refused:
    """There is no such job."""
    return Refused(404, "No such job", job_id[:64].encode("ascii", "replace").decode())


async def known_job(job_id: JobId, watching: Watching) -> Known:
    """The job of the path: from memory, or from the store if it is new."""
    known = watching.get(job_id) or await run_in_threadpool(watching.fetch, job_id)
    if known is None:
        raise missing(job_id)
    return known


def _view(known: Known, status: int = 200, **headers: str) -> Response:
    return Response(known.body(), status, headers, media_type="application/json")


@router.post(
    "/fine-tune",
    status_code=202,
    response_model=JobView,
    responses=problems(
        403, 409, 422, 503, also={202: {"headers": {"Location": {"schema": {"type": "string"}}}}}
    ),
)
def fine_tune(asked: FineTune, found: Found, watching: Watching, key: Key = None) -> Response:
    """Queue a job; it is checked now, and answered before it begins."""
    spec = Spec(**asked.model_dump())
    try:
        check_spec(spec, found.allowed)
    except NotAllowed as error:
        raise Refused(403, "Not allowed", error.message, error.hint) from None
    job, _ = found.store.create(spec, key or "")
    if job.removed:
        raise Conflict(f"{job.id}: is removed, and its Idempotency-Key was used")
    return _view(watching.saw(job), 202, Location=f"/jobs/{job.id}")


@router.get("/jobs", response_model=JobPage, responses=problems(422))
async def list_jobs(
    watching: Watching,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[
        str, Query(description="`next` of a page", pattern=r"^(ftjob-\d{6,12})?$")
    ] = "",
    state: State | None = None,
) -> Response:
    """The newest jobs, the newest first."""
    page = watching.page(limit, before, state or "")
    last = page[-1].job.id if len(page) == limit else ""
    body = b'{"jobs":[' + b",".join(known.body() for known in page) + b'],"next":"'
    return Response(body + last.encode() + b'"}', media_type="application/json")


@router.get("/jobs/{job_id}", response_model=JobView, responses=problems(404, 422))
async def get_job(known: Annotated[Known, Depends(known_job)]) -> Response:
    """The job as it stands."""
    return _view(known)


def _change(job_id: str, kind: Kind, found: Services, watching: Watcher) -> Response:
    try:
        job = found.store.add(job_id, kind)
    except KeyError:
        raise missing(job_id) from None
    return _view(watching.saw(job))


_CHANGED: dict[str, Any] = {
    "response_model": JobView,
    "responses": problems(404, 409, 422, 503),
}


@router.post("/jobs/{job_id}/cancel", **_CHANGED)
def cancel(job_id: JobId, found: Found, watching: Watching) -> Response:
    """Stop it for good; what it wrote stays, and `retry` goes on from there."""
    return _change(job_id, "cancel", found, watching)


@router.post("/jobs/{job_id}/pause", **_CHANGED)
def pause(job_id: JobId, found: Found, watching: Watching) -> Response:
    """Stop it for now, after a checkpoint."""
    return _change(job_id, "pause", found, watching)


@router.post("/jobs/{job_id}/resume", **_CHANGED)
def resume(job_id: JobId, found: Found, watching: Watching) -> Response:
    """Queue a paused job again."""
    return _change(job_id, "resumed", found, watching)


@router.post("/jobs/{job_id}/retry", **_CHANGED)
def retry(job_id: JobId, found: Found, watching: Watching) -> Response:
    """Queue a failed or cancelled job again."""
    return _change(job_id, "retried", found, watching)


@router.delete("/jobs/{job_id}", status_code=204, responses=problems(404, 409, 422, 503))
def remove(job_id: JobId, found: Found, watching: Watching) -> Response:
    """Remove a job that is over, and its folder if that is on this machine."""
    try:
        found.store.remove(job_id)
    except KeyError:
        raise missing(job_id) from None
    shutil.rmtree(found.home / job_id, ignore_errors=True)
    if job := found.store.find(job_id):
        watching.saw(job)
    return Response(status_code=204)
