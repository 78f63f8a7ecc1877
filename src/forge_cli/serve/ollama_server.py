"""The Ollama beside the service: adopted or started, its health, and memory for training."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self
from urllib.parse import urlsplit

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.deploy.address import is_loopback
from forge_cli.deploy.ollama import Server
from forge_cli.models.lifeline import tied
from forge_cli.serve.jobs import Job

_ASK = 10.0  # seconds for what a server knows without thinking
_LOAD = 600.0  # seconds for a large model from a slow disk


@dataclass(frozen=True)
class Health:
    """A server that answers.

    Attributes:
        models: how many it has. loaded: names of those in its memory.
        ours: whether this process started it.
    """

    version: str
    models: int
    loaded: tuple[str, ...]
    ours: bool


class Ollama:
    """The server at `url`; a context manager that ends what it started, and nothing else.

    Args:
        program: what `start` runs. patience: seconds until a started one must answer.
    """

    def __init__(self, url: str, *, program: str = "ollama", patience: float = 30.0) -> None:
        self.url, self.program, self.patience = url, program, patience
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def health(self) -> Health:
        """How it is.

        Raises:
            ForgeError: nothing answers, or what answers is no Ollama.
        """
        with Server(self.url, timeout=_ASK) as server:
            return Health(
                version=server.version(),
                models=len(server.models()),
                loaded=tuple(server.loaded()),
                ours=self._process is not None and self._process.poll() is None,
            )

    def start(self) -> Health:
        """Adopt the server that runs, else run one as a child of this process.

        Raises:
            UsageError: the URL is another machine's. ForgeError: the program is missing, or ends.
        """
        with suppress(ForgeError):
            return self.health()
        if not is_loopback(self.url):
            raise UsageError(
                f"{self.url}: no Ollama answers there, and it is not this machine",
                "start it there, or give the URL of this machine",
            )
        command = shutil.which(self.program)
        if command is None:
            raise ForgeError(
                f"{self.program} is not installed, so no server was started",
                "get it from ollama.com, or start the service without it",
            )
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (`stop` closes it)
        self._process = subprocess.Popen(
            tied([command, "serve"], {"OLLAMA_HOST": urlsplit(self.url).netloc}),
            stdin=subprocess.PIPE,  # its end ends the server, also where this process is killed
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C is for the service, which says when
        )
        try:
            return self._wait(self._process)
        except BaseException:
            self.stop()
            raise

    def _wait(self, process: subprocess.Popen[bytes]) -> Health:
        deadline = time.monotonic() + self.patience
        while True:
            over = process.poll() is not None
            with suppress(ForgeError):
                return self.health()  # also where another came first, which is adopted
            if over:
                raise ForgeError(f"ollama serve ended: {self._reason()}", "run it by hand to see")
            if time.monotonic() > deadline:
                raise ForgeError(
                    f"ollama serve does not answer at {self.url} after {self.patience:.0f} s",
                    "run it by hand to see",
                )
            time.sleep(0.05)

    def _reason(self) -> str:
        assert self._log
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "no reason given"

    def stop(self) -> None:
        """End the server if this object started it; safe to call twice."""
        process, self._process = self._process, None
        if process:
            assert process.stdin
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdin.close()
        if self._log:
            self._log.close()
            self._log = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _answers(server: Server) -> bool:
    with suppress(ForgeError):
        return bool(server.version())
    return False


class HandOver:
    """Ollama's memory for training: its models go before a job, and come back after the last one.

    `Worker(around=HandOver(url).around)`. A server that does not answer costs a warning, no job.
    """

    def __init__(self, url: str, reporter: Reporter = SILENT) -> None:
        self.url, self.reporter = url, reporter
        self._lock = threading.Lock()  # never held while a server is asked
        self._jobs = 0
        self._names: list[str] = []  # to be loaded again
        self._warming: threading.Thread | None = None

    @contextmanager
    def around(self, job: Job) -> Iterator[None]:
        """For the length of one attempt."""
        with self._lock:
            self._jobs += 1
        self._unload(job)
        try:
            yield
        finally:
            with self._lock:
                self._jobs -= 1
                if not self._jobs and self._names:
                    names, self._names = self._names, []
                    # Loading takes its time, and the worker has other jobs.
                    self._warming = threading.Thread(target=self._warm_up, args=(names,))
                    self._warming.start()

    def wait(self) -> None:
        """Until what was to be loaded again is."""
        with self._lock:
            thread = self._warming
        if thread:
            thread.join()

    def _unload(self, job: Job) -> None:
        try:
            with Server(self.url, timeout=_ASK) as server:
                if not _answers(server):
                    return  # none runs here, so it holds no memory
                for name in server.loaded():
                    server.stop(name)
                    self._keep(name)
                    self.reporter.note(f"{job.id}: {name} was unloaded, for memory to train in")
        except ForgeError as error:
            self.reporter.warn(f"{job.id}: no memory from Ollama: {error.message}")

    def _keep(self, name: str) -> bool:
        """Whether a job is under way, after which the model is loaded again."""
        with self._lock:
            if self._jobs and name not in self._names:
                self._names.append(name)
            return bool(self._jobs)

    def _warm_up(self, names: list[str]) -> None:
        with Server(self.url, timeout=_LOAD) as server:
            for name in names:
                if self._keep(name):
                    continue
                try:
                    server.load(name)
                    if self._keep(name):  # a job began meanwhile
                        server.stop(name)
                except ForgeError as error:
                    self.reporter.warn(f"{name} is not loaded again: {error.message}")
