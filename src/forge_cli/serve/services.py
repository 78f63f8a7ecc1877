"""What the routes share: the jobs, what may be read, and the limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fastapi import Request

from forge_cli.serve.jobs import JobStore
from forge_cli.serve.jobs.sources import Allowed


@dataclass(frozen=True)
class Limits:
    """What one request may bring, and how many there may be.

    Attributes:
        body: bytes of a JSON body. upload: bytes of a file. rows: lines of a file.
        stored: bytes of all uploaded files together.
        per_minute: requests of one client that change something.
        streams: event streams that are open at once.
    """

    body: int = 1 << 20
    upload: int = 64 << 20
    rows: int = 200_000
    stored: int = 2 << 30
    per_minute: int = 120
    streams: int = 2000


@dataclass(frozen=True)
class Services:
    """One server's.

    Attributes:
        home: folder of the jobs' folders, shared with the workers of this machine.
        token_sha256: of the bearer token; empty: none is asked for, on loopback alone.
        models_url: of the Ollama that answers chats.
    """

    store: JobStore
    home: Path
    allowed: Allowed = field(default_factory=Allowed)
    limits: Limits = field(default_factory=Limits)
    token_sha256: str = ""
    models_url: str = "http://127.0.0.1:11434"


async def services(request: Request) -> Services:
    """The server's, for a route: `Annotated[Services, Depends(services)]`."""
    found = request.app.state.services
    assert isinstance(found, Services)
    return found
