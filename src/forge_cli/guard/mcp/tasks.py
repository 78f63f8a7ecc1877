"""Commands that run while the client does something else."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal

from forge_cli.core.accelerator import VARIABLE
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.places import data_dir
from forge_cli.guard.mcp.results import result_of
from forge_cli.guard.mcp.told import Told
from forge_cli.guard.skills import Skill
from forge_cli.guard.skills.command import fill

State = Literal["running", "done", "failed", "cancelled"]
AT_ONCE = 4  # tasks
KEPT = 50  # tasks, of which those that are over are forgotten, the oldest first
MOST_OUTPUT = 16 << 20  # bytes of stdout that are read
INTERRUPTED = 130  # exit code


class Command:
    """A command under way: a process between (`child.py`), and two threads that read its pipes."""

    def __init__(self, words: list[str], *, folder: Path, nice: int) -> None:
        self.words = words
        self.told = Told()
        self._stdout = bytearray()
        child = [sys.executable, "-m", "forge_cli.guard.mcp.child", str(nice)]
        self._process = subprocess.Popen(
            [*child, json.dumps([sys.executable, "-m", "forge_cli", *words])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            cwd=folder, env=_environment(), start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout and self._process.stderr
        self._readers = [
            threading.Thread(target=self._read_stdout, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_stderr, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_stdout(self, stream: IO[bytes]) -> None:
        while block := os.read(stream.fileno(), 1 << 16):
            self._stdout += block[: max(0, MOST_OUTPUT - len(self._stdout))]

    def _read_stderr(self, stream: IO[bytes]) -> None:
        for line in stream:
            self.told.take(line.decode(errors="replace").rstrip("\n"))

    def exit_code(self) -> int | None:
        """None while it runs or something of it is still to be read."""
        code = self._process.poll()
        if code is not None and code < 0 and self.told.group:
            # The process between was killed: nobody else ends the command.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.told.group, signal.SIGKILL)
        if code is None or any(reader.is_alive() for reader in self._readers):
            return None
        return code

    def interrupt(self) -> None:
        """As Ctrl-C: it writes its checkpoint and ends."""
        if self._process.poll() is None:
            self._process.terminate()

    def leave(self) -> None:
        """Let go of it: it ends by itself then, also when this process is gone before it."""
        if self._process.stdin:
            self._process.stdin.close()

    def stdout(self) -> str:
        """What it printed."""
        return self._stdout.decode(errors="replace")

    def failure(self, code: int) -> ForgeError:
        """What went wrong, as it said itself."""
        line = shlex.join(["forge", *self.words])
        if self.told.error:
            return ForgeError(self.told.error, self.told.hint or f"the command was: {line}")
        told = [text for text in self.told.log(40) if not text.startswith("next: ")]
        last = [text for text in told if text.strip(" │╭╰─╮╯")]
        said = f": {last[-1].strip(' │')}" if last else ""
        return ForgeError(f"exit code {code}{said}", f"the command was: {line}")


def _environment() -> dict[str, str]:
    turns = data_dir() / "serve" / "accelerator.lock"
    if VARIABLE not in os.environ:
        turns.parent.mkdir(parents=True, exist_ok=True)
    return {
        # The lock of `forge serve`: its jobs and these tasks take turns.
        VARIABLE: str(turns),
        **os.environ,
        # A user's own file may allow it to commands by hand, which is no word about agents.
        "FORGE_EXECUTE": "false",
        "NO_COLOR": "1",
    }


class Task:
    """A skill that was started: its command, and what became of it."""

    def __init__(self, name: str, skill: Skill, arguments: dict[str, Any], folder: Path) -> None:
        self.name, self.skill, self.arguments = name, skill, arguments
        self.command = Command(
            fill(skill.command, arguments), folder=folder, nice=10 if skill.long else 0
        )
        self._started, self._ended = time.monotonic(), 0.0
        self._outcome: dict[str, Any] | ForgeError | None = None
        self._asked_to_end = False

    def state(self) -> State:
        """Where it is; a task that is over has its result or its error from then on."""
        if self._outcome is None:
            code = self.command.exit_code()
            if code is None:
                return "running"
            self._ended = time.monotonic()
            self._outcome = self._finish(code)
        if isinstance(self._outcome, dict):
            return "done"
        return "cancelled" if self._asked_to_end else "failed"

    def _finish(self, code: int) -> dict[str, Any] | ForgeError:
        if code:
            return self.command.failure(code)
        try:
            told = self.command.told.notes()
            return result_of(self.skill, self.arguments, self.command.stdout(), told)
        except (ForgeError, OSError) as error:
            return error if isinstance(error, ForgeError) else ForgeError(str(error))

    def cancel(self) -> None:
        """Interrupt it; what it wrote stays."""
        if self.state() == "running":
            self._asked_to_end = True
            self.command.interrupt()

    def result(self) -> dict[str, Any]:
        """What it left behind.

        Raises:
            ForgeError: why there is nothing.
        """
        if self.state() == "running":
            raise UsageError(f"{self.name}: still running", "wait for it with task_status")
        if isinstance(self._outcome, dict):
            return self._outcome
        assert self._outcome is not None
        if self._asked_to_end:
            raise ForgeError(f"{self.name}: was cancelled", _resume(self.skill))
        raise self._outcome

    def status(self, lines: int) -> dict[str, Any]:
        """In the form of `schemas.TASK`."""
        state = self.state()
        found: dict[str, Any] = {
            "state": state,
            "task": self.name,
            "tool": self.skill.name,
            "command": shlex.join(["forge", *self.command.words]),
            "seconds": round((self._ended or time.monotonic()) - self._started, 1),
            "progress": self.command.told.progress(),
            "log": self.command.told.log(lines),
            "process_group": self.command.told.group if state == "running" else None,
            "next": {
                "running": f"task_status with task {self.name} and wait_seconds",
                "done": f"task_result with task {self.name}",
                "failed": "do what the error's hint says",
                "cancelled": _resume(self.skill),
            }[state],
        }
        if state == "done":
            found["result"] = self._outcome
        elif state in ("failed", "cancelled") and isinstance(self._outcome, ForgeError):
            found["error"] = {"message": self._outcome.message, "hint": self._outcome.hint}
        return found


def _resume(skill: Skill) -> str:
    if skill.idempotent:
        return "the same call again goes on where it was"
    return "nothing was lost that was there before; call it again if it is still wanted"


class Tasks:
    """The tasks of one client, by name; all end with the server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tasks: dict[str, Task] = {}
        self._made = 0

    def check_room(self, skill: Skill) -> None:
        """Refuse to start a skill while too many run; what is short is always let in.

        Raises:
            ForgeError: too many run already.
        """
        running = [name for name, one in self._tasks.items() if one.state() == "running"]
        if skill.long and len(running) >= AT_ONCE:
            raise ForgeError(
                f"{len(running)} tasks run already: {', '.join(running)}",
                "wait for one with task_status, or end one with task_cancel",
            )

    def start(self, skill: Skill, arguments: Mapping[str, Any]) -> Task:
        """Start a skill's command.

        Raises:
            ForgeError: too many run already.
        """
        self.check_room(skill)
        self._made += 1
        task = Task(f"{skill.name}-{self._made}", skill, dict(arguments), self._folder)
        over = [name for name, one in self._tasks.items() if one.state() != "running"]
        for name in over[: max(0, len(self._tasks) + 1 - KEPT)]:
            del self._tasks[name]
        self._tasks[task.name] = task
        return task

    def find(self, name: str) -> Task:
        """The task of that name.

        Raises:
            UsageError: there is none.
        """
        if name not in self._tasks:
            known = ", ".join(self._tasks) or "none was started"
            raise UsageError(f"task {name}: no such task of this session", f"known: {known}")
        return self._tasks[name]

    def all(self) -> list[Task]:
        """Every task that was started for longer, the oldest first."""
        return [task for task in self._tasks.values() if task.skill.long]

    def leave(self) -> None:
        """The client is gone: what runs is interrupted, and stays resumable."""
        for task in self._tasks.values():
            task.command.leave()
