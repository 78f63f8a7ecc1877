"""A server and a worker in threads of the test, on a real port."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from forge_cli.serve.app import create_app
from forge_cli.serve.jobs import JobStore
from forge_cli.serve.jobs.command import begin_with
from forge_cli.serve.jobs.sources import Allowed
from forge_cli.serve.jobs.storage import open_storage
from forge_cli.serve.jobs.worker import Worker
from forge_cli.serve.services import Limits, Services


@contextmanager
def serving(folder: Path, **changes: Any) -> Iterator[tuple[str, Services]]:
    """The URL of a server whose jobs are in `folder`, and what it shares with its routes."""
    storage = open_storage(f"sqlite:///{folder}/jobs.db")
    changes.setdefault("models_url", "http://127.0.0.1:9")
    may = {"allowed": Allowed([folder.parent])}  # a model is a folder there
    found = Services(store=JobStore(storage), home=folder / "jobs", **may | changes)
    sock = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(found), log_level="warning", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}", found
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
        sock.close()
        storage.close()


@contextmanager
def working(found: Services, **options: Any) -> Iterator[Worker]:
    """A worker on the server's jobs."""
    begin = begin_with(found.home, found.allowed, found.store)
    worker = Worker(found.store, found.home, begin, lease=3.0, back_off=0.1, **options)
    thread = threading.Thread(target=worker.run, args=(time.monotonic,))
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(60)
        assert not thread.is_alive()


SMALL = Limits(upload=2 << 20, rows=50, stored=3 << 20)
