"""A real server in a thread, over a queue in SQLite, for the length of a `with` block."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from forge_cli.serve import server
from forge_cli.serve.jobs import JobStore
from forge_cli.serve.jobs.sources import Allowed
from forge_cli.serve.jobs.storage import open_storage
from forge_cli.serve.jobs.worker import Worker
from forge_cli.serve.services import Limits, Services


@dataclass
class Serving:
    """Attributes: allowed: a folder that jobs may read."""

    url: str
    port: int
    http: httpx.Client
    store: JobStore
    home: Path
    allowed: Path

    def start(self, **more: Any) -> dict[str, Any]:
        """A job that is queued."""
        body = {"source": str(self.allowed / "repo"), **more}
        answer = self.http.post("/fine-tune", json=body)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def until(self, job_id: str, *states: str, seconds: float = 60) -> dict[str, Any]:
        """The job when it is in one of the states."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            job = dict(self.http.get(f"/jobs/{job_id}").json())
            if job["state"] in states:
                return job
            time.sleep(0.05)
        raise AssertionError((job, "".join(self.store.blocks("l", job_id))))


@contextmanager
def serving(
    folder: Path, *, token_sha256: str = "", limits: Limits | None = None, begin: Any = None
) -> Iterator[Serving]:
    """A server, and a worker if there is what it begins a job with."""
    home, allowed = folder / "home", folder / "allowed"
    (allowed / "repo").mkdir(parents=True, exist_ok=True)
    store = JobStore(open_storage(f"sqlite:///{home}/jobs.db"))
    found = Services(
        store, home, Allowed([allowed], ["git.example"]), limits or Limits(per_minute=10_000),
        token_sha256,
    )  # fmt: skip
    listening = server.listen("127.0.0.1", 0, with_token=False)
    port = listening.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    running = server.make_server(found)
    threads: list[Callable[[], None]] = [lambda: running.run(sockets=[listening])]
    worker = Worker(store, home, begin, lease=1.5, back_off=0.05) if begin else None
    if worker:
        threads.append(lambda: worker.run(time.monotonic))
    started = [threading.Thread(target=target, daemon=True) for target in threads]
    for thread in started:
        thread.start()
    try:
        with httpx.Client(base_url=url, timeout=20, trust_env=False) as http:
            yield Serving(url, port, http, store, home, allowed)
    finally:
        if worker:
            worker.stop()
        running.should_exit = True
        for thread in started:
            thread.join(60)
        assert not any(thread.is_alive() for thread in started)
        listening.close()
