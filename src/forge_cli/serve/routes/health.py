"""Whether the server lives, and whether it can take jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from forge_cli import __version__
from forge_cli.serve.services import Services, services

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The server's version."""

    version: str


@router.get("/healthz")
async def healthz() -> Health:
    """The process answers."""
    return Health(version=__version__)


@router.get("/readyz")
def readyz(found: Annotated[Services, Depends(services)]) -> Health:
    """The queue answers, too."""
    found.store.count()
    return Health(version=__version__)
