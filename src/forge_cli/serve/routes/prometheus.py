"""Figures for Prometheus, in its text format 0.0.4."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from fastapi import APIRouter, Request, Response

from forge_cli.serve.jobs.job import State
from forge_cli.serve.observed import BOUNDS, Figures
from forge_cli.serve.openapi import content
from forge_cli.serve.routes.jobs import Watching
from forge_cli.serve.watcher import Watcher

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=Response, responses={200: content("text/plain")})
async def prometheus(request: Request, watching: Watching) -> Response:
    """Jobs by state, requests, streams, and how the queue answers."""
    lines = [*_of_jobs(watching), *_of_requests(request.app.state.figures)]
    return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4; charset=utf-8")


def _of_jobs(watching: Watcher) -> Iterator[str]:
    counts = watching.counts()
    yield "# HELP forge_jobs Jobs that are not removed, by state."
    yield "# TYPE forge_jobs gauge"
    for state in get_args(State):
        yield f'forge_jobs{{state="{state}"}} {counts[state]}'
    yield "# HELP forge_events_total Events of all jobs."
    yield "# TYPE forge_events_total counter"
    yield f"forge_events_total {watching.total}"
    yield "# HELP forge_queue_up Whether the queue answered the last time."
    yield "# TYPE forge_queue_up gauge"
    yield f"forge_queue_up {int(not watching.error)}"
    yield "# HELP forge_queue_look_seconds How long the last look at the queue took."
    yield "# TYPE forge_queue_look_seconds gauge"
    yield f"forge_queue_look_seconds {watching.seconds:.6f}"
    streams = sum(len(c.waiting) for c in list(watching.channels.values()))
    yield "# HELP forge_streams Event streams that are open."
    yield "# TYPE forge_streams gauge"
    yield f"forge_streams {streams + len(watching.waiting)}"


def _of_requests(figures: Figures) -> Iterator[str]:
    yield "# HELP forge_http_requests_total Requests, by method, route and status."
    yield "# TYPE forge_http_requests_total counter"
    for (method, route, status), count in sorted(figures.requests.items()):
        labels = f'method="{method}",route="{route}",status="{status}"'
        yield f"forge_http_requests_total{{{labels}}} {count}"
    yield "# HELP forge_http_request_seconds How long requests took that are no streams."
    yield "# TYPE forge_http_request_seconds histogram"
    sofar = 0
    for bound in BOUNDS:
        sofar += figures.seconds[bound]
        yield f'forge_http_request_seconds_bucket{{le="{bound}"}} {sofar}'
    count = sofar + figures.seconds[float("inf")]
    yield f'forge_http_request_seconds_bucket{{le="+Inf"}} {count}'
    yield f"forge_http_request_seconds_sum {figures.sum:.6f}"
    yield f"forge_http_request_seconds_count {count}"
