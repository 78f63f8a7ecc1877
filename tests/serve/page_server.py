"""A real server of the page for a test, which writes its jobs; only the model is a script."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from forge_cli.serve import server
from forge_cli.serve.jobs import JobStore
from forge_cli.serve.jobs.job import Job
from forge_cli.serve.jobs.sources import Allowed
from forge_cli.serve.jobs.storage import open_storage
from forge_cli.serve.services import Services
from forge_cli.serve.tokens import hash_of


class Served:
    """A server that can be stopped and started again at the same place.

    Attributes:
        says: what the model answers, piece by piece. asked: the bodies of its requests.
    """

    def __init__(self, home: Path) -> None:
        self.home, self.store = home, JobStore(open_storage(f"sqlite:///{home}/jobs.db"))
        self.says: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.models = ["shop"]
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def job(self, job_id: str) -> Job:
        job = self.store.find(job_id)
        assert job
        return job

    def start(self, token: str = "") -> None:
        found = Services(
            self.store, self.home, Allowed([self.home]), token_sha256=token and hash_of(token)
        )
        self._listening = server.listen("127.0.0.1", self.port, with_token=bool(token))
        self.port = self._listening.getsockname()[1]
        self._server = server.make_server(found)
        _scripted(self._server.config.app, self)  # type: ignore[arg-type]
        sockets = [self._listening]
        self._thread = threading.Thread(target=lambda: self._server.run(sockets=sockets))
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self._listening.close()


@contextmanager
def serve(home: Path) -> Iterator[Served]:
    served = Served(home)
    served.start()
    yield served
    served.stop()
    served.store.storage.close()


def _scripted(app: FastAPI, served: Served) -> None:
    """A model that answers what the test wants, before any that the server may have."""

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": name} for name in served.models]}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        served.asked.append(await request.json())

        async def words() -> AsyncIterator[str]:
            for text in served.says:
                yield f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n"
                await asyncio.sleep(0.001)
            yield "data: [DONE]\n\n"

        return StreamingResponse(words(), media_type="text/event-stream")

    routes = app.router.routes
    routes[:] = [*routes[-2:], *routes[:-2]]
