"""The Ollama beside the service: adopted, started, left alone; memory for training."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import Silent
from forge_cli.deploy.ollama import Server
from forge_cli.serve.jobs import Job, JobStore, Spec
from forge_cli.serve.jobs.storage import open_storage
from forge_cli.serve.jobs.worker import Worker
from forge_cli.serve.ollama_server import HandOver, Ollama
from ollama_server import OllamaServer
from tiny_served import ollama_with, tiny_gguf

TESTS = Path(__file__).parents[1]


class Recorder(Silent):
    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, message: str) -> None:
        self.told.append(message)

    warn = note


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def running(gguf: Path) -> Iterator[OllamaServer]:
    """With the models one and two, of which `one` is in memory."""
    with ollama_with(gguf, "one", "two") as server, Server(server.url) as client:
        client.load("one")
        yield server


@pytest.fixture
def free() -> str:
    with closing(socket.create_server(("127.0.0.1", 0))) as found:
        return f"http://127.0.0.1:{found.getsockname()[1]}"


@pytest.fixture
def program(tmp_path: Path) -> str:
    """An `ollama` to run."""
    file = tmp_path / "ollama"
    file.write_text(f'#!/bin/sh\nexec {sys.executable} {TESTS / "ollama_program.py"} "$@"\n')
    file.chmod(0o755)
    return str(file)


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    )


def test_a_server_that_runs_is_adopted_and_never_stopped(running: OllamaServer) -> None:
    with Ollama(running.url, program="no-such-program") as ollama:
        health = ollama.start()
        # Two names of one file are one model in memory.
        assert (health.models, health.ours) == (2, False) and "one:latest" in health.loaded
    assert Ollama(running.url).health().models == 2


def test_a_server_that_was_started_is_stopped(free: str, program: str) -> None:
    with Ollama(free, program=program) as ollama:
        assert ollama.start().ours and ollama.start().ours
        with Ollama(free, program=program) as other:
            assert not other.start().ours
        assert ollama.health().ours, "who adopts does not stop"
    with pytest.raises(ForgeError, match="no Ollama server"):
        ollama.health()


def test_a_server_that_was_started_ends_with_a_service_that_is_killed(
    free: str, program: str
) -> None:
    code = (
        "import os; from forge_cli.serve.ollama_server import Ollama; "
        f"assert Ollama({free!r}, program={program!r}).start().ours; os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    deadline = time.monotonic() + 20
    while True:
        try:
            Ollama(free).health()
        except ForgeError:
            break
        assert time.monotonic() < deadline, "it runs on"
        time.sleep(0.05)


def test_what_cannot_be_started_says_why(free: str, program: str, tmp_path: Path) -> None:
    with pytest.raises(ForgeError, match="is not installed"):
        Ollama(free, program="no-such-program").start()
    with pytest.raises(UsageError, match="it is not this machine"):
        Ollama("http://192.0.2.1:9", program=program).start()
    taken = socket.create_server(("127.0.0.1", 0))  # listens, and is no Ollama
    with closing(taken):
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        threading.Thread(target=_hang_up, args=(taken,), daemon=True).start()
        with pytest.raises(ForgeError, match="ollama serve ended: Error: listen tcp"):
            Ollama(url, program=program).start()


def _hang_up(listener: socket.socket) -> None:
    while True:
        try:
            listener.accept()[0].close()
        except OSError:
            return


ASKS = """
import json, sys, urllib.request
told = json.load(urllib.request.urlopen(sys.argv[1] + "/api/ps"))
print(json.dumps({"record": "run", "loaded": [one["name"] for one in told["models"]]}))
"""


@pytest.mark.parametrize("alive", [True, False])
def test_memory_is_handed_over(
    running: OllamaServer, free: str, tmp_path: Path, alive: bool
) -> None:
    recorder = Recorder()
    over = HandOver(running.url if alive else free, recorder)

    def begin(job: Job, folder: Path) -> tuple[list[list[str]], Mapping[str, str]]:
        return [[sys.executable, "-S", "-c", ASKS, running.url]], {}

    store = JobStore(open_storage(f"sqlite:///{tmp_path}/jobs.db"))
    jobs = [store.create(Spec(source="/a", priority=0))[0].id for _ in range(3)]
    worker = Worker(store, tmp_path, begin, lease=1.5, slots=2, around=over.around)
    thread = threading.Thread(target=worker.run, args=(time.monotonic,))
    thread.start()
    deadline = time.monotonic() + 30
    while not all(job and job.is_over for job in store.find_many(jobs)):
        assert time.monotonic() < deadline, "a server that is gone fails no job"
        time.sleep(0.05)
    worker.stop()
    thread.join(30)
    over.wait()
    ended = [job for job in store.find_many(jobs) if job]
    assert [job.state for job in ended] == ["succeeded"] * 3
    seen = [job.result["loaded"] for job in ended]
    assert (seen == [[]] * 3) is alive
    assert "one:latest" in Ollama(running.url).health().loaded, "as before the jobs"
    unloaded = [line for line in recorder.told if "one:latest was unloaded" in line]
    assert bool(unloaded) is alive
    assert not any("no memory from Ollama" in line for line in recorder.told)
    store.storage.close()


def test_a_beginning_that_takes_long_keeps_its_lease(tmp_path: Path) -> None:
    """A clone, or a model to unload: another worker must not take the job for lost."""

    def begin(job: Job, folder: Path) -> tuple[list[list[str]], Mapping[str, str]]:
        time.sleep(1.5)
        return [[sys.executable, "-S", "-c", "print()"]], {}

    store = JobStore(open_storage(f"sqlite:///{tmp_path}/jobs.db"))
    job = store.create(Spec(source="/a", priority=0))[0].id
    workers = [Worker(store, tmp_path, begin, lease=0.5, slots=1) for _ in range(2)]
    threads = [threading.Thread(target=one.run, args=(time.monotonic,)) for one in workers]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while not (found := store.find(job)) or not found.is_over:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for one in workers:
        one.stop()
    for thread in threads:
        thread.join(30)
    assert (found.state, found.attempt, found.lost) == ("succeeded", 1, 0)
    assert json.dumps([event.kind for event in store.events(job)]) == (
        '["created", "claimed", "ended"]'
    )
    store.storage.close()
