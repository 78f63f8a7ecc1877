"""A real server of the page for a test, which writes its jobs; only the model is a script."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

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
        handler = type("Model", (_Model,), {"served": self})
        self.model = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.model.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def job(self, job_id: str) -> Job:
        job = self.store.find(job_id)
        assert job
        return job

    def start(self, token: str = "") -> None:
        found = Services(
            self.store, self.home, Allowed([self.home]), token_sha256=token and hash_of(token),
            models_url=f"http://127.0.0.1:{self.model.server_port}",
        )  # fmt: skip
        self._listening = server.listen("127.0.0.1", self.port, with_token=bool(token))
        self.port = self._listening.getsockname()[1]
        self._server = server.make_server(found)
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
    served.model.shutdown()
    served.model.server_close()
    served.store.storage.close()


class _Model(BaseHTTPRequestHandler):
    """In the place of Ollama: says what the test wants, piece by piece."""

    served: Served

    def do_GET(self) -> None:
        told = {"models": [{"name": name} for name in self.served.models]}
        self._begin("application/json")
        self.wfile.write(json.dumps(told).encode())

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.served.asked.append(json.loads(self.rfile.read(length)))
        self._begin("text/event-stream")
        for text in self.served.says:
            said = {"choices": [{"delta": {"content": text}}]}
            self.wfile.write(f"data: {json.dumps(said)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def _begin(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass
