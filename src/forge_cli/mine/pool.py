"""Processes that mine files: one that hangs or dies loses its file, and is replaced."""

from __future__ import annotations

import atexit
import contextlib
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

from forge_cli.core.errors import ForgeError
from forge_cli.mine.files import verdict_of
from forge_cli.mine.worker import Config, Found, Task, receive, send

MINE_FILE = "forge_cli.mine.worker:mine_file"
# Below this many files another process costs more than it saves.
_FILES_EACH = 50
# Tasks that a process has at once: the one it works on, and the next.
_AT_ONCE = 2
# Answers that wait for an earlier, slower file.
_WINDOW = 256
_START_SECONDS = 60.0
_GRACE_SECONDS = 10.0  # after the time that the parser itself keeps to

_idle: list[_Process] = []


@dataclass
class _Process:
    """A worker process, and the tasks that it has not answered yet."""

    popen: subprocess.Popen[bytes]
    tasks: deque[int] = field(default_factory=deque)
    ready: bool = False
    since: float = 0.0  # when it began its first task

    @classmethod
    def start(cls, target: str) -> _Process:
        # Not -m: that would put the current folder, which may be anything, on the path.
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from forge_cli.mine.worker import main; main({target!r})"
        )
        pipe = subprocess.PIPE
        popen = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, bufsize=0)
        return cls(popen, since=time.monotonic())

    @property
    def answers(self) -> IO[bytes]:
        assert self.popen.stdout is not None
        return self.popen.stdout

    def give(self, number: int, config: Config, task: Task) -> None:
        assert self.popen.stdin is not None
        if not self.tasks:
            self.since = time.monotonic()
        self.tasks.append(number)
        with contextlib.suppress(OSError):  # it died: reading from it will tell
            send(self.popen.stdin.fileno(), (config, task))

    def answer(self) -> object:
        self.since = time.monotonic()
        try:
            return receive(self.answers.fileno())
        except OSError:
            return None

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream is not None:
                stream.close()


def mine_files(
    config: Config, files: Sequence[Task], jobs: int, *, target: str = MINE_FILE
) -> Generator[Found]:
    """The result of each file, in their order.

    A file whose process dies, or does not answer for `config.parse_seconds` and ten seconds
    more, becomes a verdict "crash" or "hang".

    Args:
        jobs: processes at the most. target: the function that mines, as `module:function`.

    Raises:
        ForgeError: the processes do not start.
    """
    jobs = min(jobs, -(-len(files) // _FILES_EACH))
    run = _Run(config, files, target)
    try:
        for _ in range(jobs):
            run.hire()
        yield from run.results()
    finally:
        run.dismiss()


class _Run:
    """The state of one call of `mine_files`."""

    def __init__(self, config: Config, files: Sequence[Task], target: str) -> None:
        self.config, self.files, self.target = config, files, target
        self.waiting = deque(range(len(files)))
        self.done: dict[int, Found] = {}
        self.given_out = 0  # results that were yielded
        self.selector = selectors.DefaultSelector()
        self.staff: list[_Process] = []

    def hire(self) -> None:
        process = self._idle_one() or _Process.start(self.target)
        self.staff.append(process)
        self.selector.register(process.answers, selectors.EVENT_READ, process)

    def _idle_one(self) -> _Process | None:
        while self.target == MINE_FILE and _idle:
            process = _idle.pop()
            if process.popen.poll() is None:
                return process
            process.close()
        return None

    def dismiss(self) -> None:
        for process in self.staff:
            if self.target == MINE_FILE and process.ready and not process.tasks:
                _idle.append(process)
            else:
                process.close()
        self.selector.close()

    def results(self) -> Iterator[Found]:
        while self.given_out < len(self.files):
            for process in self.staff:
                self.feed(process)
            for key, _ in self.selector.select(self.patience()):
                self.hear(key.data)
            for process in [p for p in self.staff if time.monotonic() > self.deadline(p)]:
                self.lose(process, "hang", "its parse came to no end")
            while self.given_out in self.done:
                yield self.done.pop(self.given_out)
                self.given_out += 1

    def feed(self, process: _Process) -> None:
        while (
            process.ready
            and len(process.tasks) < _AT_ONCE
            and self.waiting
            and self.waiting[0] < self.given_out + _WINDOW
        ):
            number = self.waiting.popleft()
            process.give(number, self.config, self.files[number])

    def hear(self, process: _Process) -> None:
        answer = process.answer()
        if answer is None:
            code = process.popen.wait()
            why = f"signal {-code}" if code < 0 else f"exit code {code}"
            self.lose(process, "crash", f"its grammar crashed, or memory ran out ({why})")
        elif not process.ready:
            process.ready = True
        elif isinstance(answer, Found):
            self.done[process.tasks.popleft()] = answer
        else:
            raise RuntimeError(f"{self.files[process.tasks[0]].path}: {answer}")

    def deadline(self, process: _Process) -> float:
        if not process.ready:
            return process.since + _START_SECONDS
        limit = self.config.parse_seconds + _GRACE_SECONDS
        return process.since + limit if process.tasks else float("inf")

    def patience(self) -> float | None:
        nearest = min(map(self.deadline, self.staff))
        return None if nearest == float("inf") else max(0.0, nearest - time.monotonic())

    def lose(self, process: _Process, check: str, reason: str) -> None:
        """Let a process go with the file that it was at; its other tasks go to the next."""
        if not process.ready:
            raise ForgeError(
                "the process that mines does not start",
                "its message is above; is Forge installed whole? see: forge doctor",
            )
        self.selector.unregister(process.answers)
        self.staff.remove(process)
        process.close()
        if process.tasks:
            number = process.tasks.popleft()
            self.done[number] = _lost(self.config, self.files[number].path, check, reason)
        self.waiting.extendleft(reversed(process.tasks))
        self.hire()


def _lost(config: Config, path: str, check: str, reason: str) -> Found:
    try:
        size = (config.top / path).stat().st_size
    except OSError:
        size = 0
    return Found(path, verdict_of(path, check, reason, size))


@atexit.register
def _close_idle() -> None:
    while _idle:
        _idle.pop().close()
