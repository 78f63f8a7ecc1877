"""Whether the server lives, and whether it can take jobs."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from forge_cli import __version__
from forge_cli.serve.openapi import problems
from forge_cli.serve.problems import Refused
from forge_cli.serve.routes.jobs import Watching

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The server's version."""

    version: str


@router.get("/healthz")
async def healthz() -> Health:
    """The process answers."""
    return Health(version=__version__)


@router.get("/readyz", responses=problems(503))
async def readyz(watching: Watching) -> Health:
    """The queue answered the last time it was looked at, a moment ago."""
    if watching.error:
        raise Refused(503, "The queue does not answer", hint="see the server's log")
    return Health(version=__version__)
