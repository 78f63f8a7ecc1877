"""What a job writes: events, log, metrics, files, report; at once, or as it comes."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, StreamingResponse

from forge_cli.serve import streams
from forge_cli.serve.channels import PAGE, rows_of
from forge_cli.serve.files import find_file, list_files
from forge_cli.serve.jobs import JobStore
from forge_cli.serve.openapi import content, problems
from forge_cli.serve.problems import Refused
from forge_cli.serve.routes.jobs import Found, Watching, known_job
from forge_cli.serve.schemas import Artifact, Artifacts, EventPage, Metrics
from forge_cli.serve.services import Services
from forge_cli.serve.watcher import Known, Watcher

router = APIRouter(tags=["output"])

OfPath = Annotated[Known, Depends(known_job)]
LastId = Annotated[
    str, Header(alias="Last-Event-ID", max_length=64, description="`id` of the last message seen")
]
_STREAM: dict[int | str, dict[str, Any]] = {200: content("text/event-stream")}
_BYTES = content("application/octet-stream", binary=True)
# A report is a page of its own; it holds text of the repository, and must not act as this site.
_REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'; sandbox allow-scripts"
)
_REPORTS = ("eval/report.html", "report.html")


def _check_room(watching: Watcher, found: Services) -> None:
    followed = list(watching.channels.values())
    if sum(len(c.waiting) for c in followed) + len(watching.waiting) >= found.limits.streams:
        raise Refused(
            503, "Too many event streams", hint="ask for the job now and then", Retry_After="5"
        )


@router.get("/events", response_class=Response, responses=problems(422, 503, also=_STREAM))
async def all_events(watching: Watching, found: Found, last: LastId = "") -> Response:
    """Server-sent events: `job` (a JobView) for each job that changes, `removed` ({"id"})."""
    _check_room(watching, found)
    client = streams.Client()
    events = streams.place_of(last)[0] if last else -1
    return streams.EventStream(client, streams.of_all(watching, client, events))


@router.get(
    "/jobs/{job_id}/events",
    response_model=EventPage,
    responses=problems(404, 422, 503, also=_STREAM),
)
async def events(
    known: OfPath,
    watching: Watching,
    found: Found,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
    last: LastId = "",
    after: Annotated[int, Query(ge=0, le=1 << 53, description="number of an event")] = 0,
) -> Response:
    """What happened to it; with `Accept: text/event-stream` as server-sent events.

    These are `job` (a JobView), `metrics` ({"rows": […]}), `log` ({"text": "…"}) and `removed`.
    """
    job_id = known.job.id
    if "text/event-stream" in accept:
        _check_room(watching, found)
        client = streams.Client()
        place = streams.place_of(last)
        return streams.EventStream(client, streams.of_job(watching, job_id, client, place))
    page = EventPage(events=await run_in_threadpool(found.store.events, job_id, after))
    return Response(page.model_dump_json(), media_type="application/json")


@router.get(
    "/jobs/{job_id}/logs",
    response_class=StreamingResponse,
    responses=problems(404, 422, 503, also={200: content("text/plain")}),
)
async def logs(
    known: OfPath,
    found: Found,
    start: Annotated[int, Query(ge=0, le=1 << 31, description="block to begin with")] = 0,
) -> Response:
    """The log so far."""
    return StreamingResponse(
        _pages(found.store, known.job.id, start), media_type="text/plain; charset=utf-8"
    )


def _pages(store: JobStore, job_id: str, start: int) -> Iterator[bytes]:
    while new := store.blocks("l", job_id, start, most=PAGE):
        yield "".join(new).encode()
        start += len(new)


@router.get("/jobs/{job_id}/metrics", response_model=Metrics, responses=problems(404, 422, 503))
def metrics(known: OfPath, found: Found) -> Response:
    """A row for each optimiser step; as it was last told, as a validation comes in later."""
    told = (row for text in found.store.blocks("m", known.job.id) for row in rows_of(text))
    rows = {json.dumps(row.get("step")): row for row in told}
    return Response(
        Metrics(rows=list(rows.values())).model_dump_json(), media_type="application/json"
    )


def _check_here(known: Known, found: Services) -> None:
    """Refused where the job ran on another machine, which its files have not left."""
    job = known.job
    there = job.host not in ("", socket.gethostname())
    if there and not (found.home / job.id / "run").exists():
        raise Refused(
            409, "Not on this machine", f"{job.id} ran on {job.host}, where its files are",
            f"ask a forge serve on {job.host} that has the same --queue, or copy them from there",
        )  # fmt: skip


@router.get("/jobs/{job_id}/artifacts", responses=problems(404, 409, 422))
def artifacts(known: OfPath, found: Found) -> Artifacts:
    """The files of its run directory, on the machine where it ran."""
    _check_here(known, found)
    job_id = known.job.id
    files = list_files(found.home, job_id)
    return Artifacts(
        artifacts=[
            Artifact(path=name, bytes=size, link=f"/jobs/{job_id}/artifacts/{name}")
            for name, size in files
        ]
    )


@router.get(
    "/jobs/{job_id}/artifacts/{path:path}",
    response_class=FileResponse,
    responses=problems(404, 409, 422, also={200: _BYTES}),
)
def artifact(
    known: OfPath, found: Found, path: Annotated[str, InPath(max_length=1000)]
) -> Response:
    """One of them; ranges are served."""
    _check_here(known, found)
    file = find_file(found.home, known.job.id, path)
    if file is None:
        raise Refused(404, "No such file", hint=f"see /jobs/{known.job.id}/artifacts")
    return FileResponse(
        file, media_type="application/octet-stream", filename=file.name,
        headers={"Content-Security-Policy": "default-src 'none'; sandbox"},
    )  # fmt: skip


@router.get(
    "/jobs/{job_id}/report",
    response_class=FileResponse,
    responses=problems(404, 409, 422, also={200: content("text/html")}),
)
def report(known: OfPath, found: Found) -> Response:
    """What the judge found, or the curves while there is no judgement."""
    _check_here(known, found)
    for name in _REPORTS:
        if file := find_file(found.home, known.job.id, name):
            policy = {"Content-Security-Policy": _REPORT_POLICY, "X-Frame-Options": "SAMEORIGIN"}
            return FileResponse(file, media_type="text/html; charset=utf-8", headers=policy)
    raise Refused(404, "No report yet", hint="it is written when training ends")
