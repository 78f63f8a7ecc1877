"""One attempt at one job: its child process, its heartbeat, its log and its metrics."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge_cli.core.errors import ForgeError
from forge_cli.serve.jobs.child import GROUP
from forge_cli.serve.jobs.job import Conflict, Job
from forge_cli.serve.jobs.output import Output, Tail

if TYPE_CHECKING:
    from forge_cli.serve.jobs.worker import Worker

Begin = Callable[[Job, Path], tuple[list[list[str]], Mapping[str, str]]]
"""A job and its folder → its commands, and what is added to their environment."""
Around = Callable[[Job], AbstractContextManager[object]]
"""What is arranged for the length of an attempt, such as memory; it fails by no exception."""

_INSIST = 45.0  # seconds from the first signal to the last, beyond the child's own patience

_SECRET = {"FORGE_TOKEN", "FORGE_QUEUE"}  # what the service is told, which is no job's business


class Attempt:
    """Runs in a thread of the worker's."""

    def __init__(self, worker: Worker, job: Job) -> None:
        self.worker, self.store, self.job = worker, worker.store, job
        self.folder = worker.home / job.id
        self.output = Output()
        self.beats = 0
        self.why_stopped = ""
        self._at = {"l": 0, "m": 0}
        self._metrics = Tail(self.folder / "run" / "metrics.jsonl")
        self._told: dict[object, int] | None = None  # step → hash of its row, as it was last told

    def run(self) -> None:
        """To its end, whatever it is; nothing is raised."""
        with ExitStack() as around:
            try:
                with self._beating():
                    self.folder.mkdir(parents=True, exist_ok=True)
                    commands, more = self.worker.begin(self.job, self.folder)
                    around.enter_context(self.worker.around(self.job))
                process = self._spawn(commands, more)
            except ForgeError as error:
                self._end("failed", error=error.message, hint=error.hint)
                return
            except Exception as error:  # a thread that dies would leave the job running for ever
                self._end(
                    "failed", error=f"{type(error).__name__}: {error}", hint="see the worker's log"
                )
                return
            try:
                self._follow(process)
                if self.why_stopped != "taken":
                    self._conclude(process.returncode)
            except Exception as error:  # the queue is away: another worker will have the job
                what = f"{type(error).__name__}: {error}"
                self.worker.reporter.warn(f"{self.job.id}: given up, the queue fails: {what}")
            finally:
                self._end_child(process)

    def _end_child(self, process: subprocess.Popen[bytes]) -> None:
        """Let nothing run on for an attempt that is over, however it ended."""
        if process.stdin:
            with suppress(OSError):
                process.stdin.close()
        process.wait()
        if process.returncode < 0:  # it was killed itself, so what it began may run on
            with suppress(OSError, ValueError):
                os.killpg(int((self.folder / GROUP).read_text()), signal.SIGKILL)

    def beat(self) -> None:
        """Say that the attempt is alive."""
        self.beats += 1
        self.store.put(f"h:{self.job.id}", {"beat": f"{self.worker.name} {self.beats}"})

    @contextmanager
    def _beating(self) -> Iterator[None]:
        """Say so all along: a clone, or a model that is unloaded, may take longer than a lease."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(min(1.0, self.worker.lease / 6)):
                self.beat()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _spawn(self, commands: list[list[str]], more: Mapping[str, str]) -> subprocess.Popen[bytes]:
        child = [sys.executable, "-m", "forge_cli.serve.jobs.child", json.dumps(commands)]
        process = subprocess.Popen(
            child,
            stdin=subprocess.PIPE,  # its end is how the child knows that this process is gone
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env={k: v for k, v in os.environ.items() if k not in _SECRET} | dict(more),
            start_new_session=True,
        )
        for stream, take in (
            (process.stdout, self.output.take_stdout),
            (process.stderr, self.output.take_stderr),
        ):
            threading.Thread(target=_pump, args=(stream, take), daemon=True).start()
        return process

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        """Until the child ends: heartbeat, log, metrics, and what is wanted of it."""
        signalled = 0.0
        pause = min(1.0, self.worker.lease / 6)
        while True:
            with suppress(subprocess.TimeoutExpired):
                process.wait(pause)
            over = process.returncode is not None
            self.beat()
            self._publish(last=over)
            if over:
                return
            self.why_stopped = self.why_stopped or self._reason_to_stop()
            if self.why_stopped and not signalled:
                if self.why_stopped == "taken":
                    return  # at once: another has it
                signalled = time.monotonic()
                process.terminate()
            elif signalled and time.monotonic() - signalled > _INSIST and process.stdin:
                with suppress(OSError):
                    process.stdin.close()

    def _reason_to_stop(self) -> str:
        job = self.store.find(self.job.id)
        if job is None or job.attempt != self.job.attempt or job.state != "running":
            return "taken"
        self.job = job
        if job.wanted != "run":
            return job.wanted
        return "the worker stops" if self.worker.stopping.is_set() else ""

    def _publish(self, last: bool) -> None:
        rows = self._new_rows()
        progress = self.output.progress()
        if rows:
            self._at["m"] = self.store.append("m", self.job.id, "".join(rows), self._at["m"])
            progress |= _last_row(rows)
        if text := self.output.new_text(all_of_it=last):
            self._at["l"] = self.store.append("l", self.job.id, text, self._at["l"])
        if progress:
            key = f"p:{self.job.id}"
            before = self.store.get([key]).get(key, {})
            self.store.put(key, before | progress | {"attempt": self.job.attempt})

    def _new_rows(self) -> list[str]:
        """Those that no attempt has told of so: a run that goes on shows its past again."""
        if self._told is None:
            blocks = self.store.blocks("m", self.job.id)
            self._at["m"] = len(blocks)
            self._told = {_step(row): hash(row.strip()) for row in "".join(blocks).splitlines()}
        new = []
        for row in self._metrics.new_lines():
            step, told = _step(row), hash(row.strip())
            if step is not None and self._told.get(step) != told:
                self._told[step] = told
                new.append(row)
        return new

    def _conclude(self, code: int) -> None:
        if code == 0:
            self._end("succeeded", result=self.output.run_record())
        elif self.why_stopped:
            self.worker.give_back(self.job, self.why_stopped, lost=False, delay=0.0)
        elif code < 0 or code > 130 or self.output.transient:
            why = self.output.error or f"its process ended with {code}"
            self.worker.give_back(self.job, why, lost=True)
        else:
            error = self.output.error or f"ended with {code}"
            self._end("failed", error=error, hint=self.output.hint, exit_code=code)

    def _end(self, state: str, **data: Any) -> None:
        with suppress(Conflict):
            self.store.add(
                self.job.id, "ended", state=state, data=data,
                attempt=self.job.attempt, worker=self.worker.name,
            )  # fmt: skip
            why = f": {data['error']}" if "error" in data else ""
            self.worker.reporter.note(f"{self.job.id}: {state}{why}")


def _pump(stream: Any, take: Callable[[str], None]) -> None:
    for line in stream:
        take(line.decode(errors="replace"))


def _step(row: str) -> float | None:
    """The step of a row of metrics; None for what is none, such as one cut in two."""
    with suppress(ValueError, TypeError, KeyError):
        return float(json.loads(row)["step"])
    return None


def _last_row(rows: list[str]) -> dict[str, Any]:
    with suppress(ValueError):
        row = json.loads(rows[-1])
        wanted = ("step", "loss", "valid_loss", "learning_rate", "tokens", "peak_bytes")
        return {key: row[key] for key in wanted if row.get(key) is not None}
    return {}
