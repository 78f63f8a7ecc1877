"""A process between a worker and the pipeline, so that the pipeline never outlives its worker.

python -m forge_cli.serve.jobs.child COMMANDS(JSON)

Runs the commands one after the other in a process group of their own, and ends the group when its
own standard input ends: that is a pipe from the worker, which the system closes however the worker
dies. stdout and stderr are the pipeline's.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from forge_cli.serve.jobs.niceness import be_nice, lower_session

GROUP = "process-group"  # file in the job's folder, which is the current one
GRACE = 30.0  # seconds for the pipeline to write its checkpoint


def main() -> int:
    """Exit as the first command that fails does, else 0."""
    commands = json.loads(sys.argv[1])
    be_nice()
    runner = _Runner()
    signal.signal(signal.SIGTERM, lambda *_: runner.stop())
    # Of a terminal; the worker says when. Not SIG_IGN, which the pipeline would inherit.
    signal.signal(signal.SIGINT, lambda *_: None)
    threading.Thread(target=_watch, args=(runner,), daemon=True).start()
    for command in commands:
        if code := runner.run(command):
            return code
    return 0


class _Runner:
    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.stopped = False

    def run(self, command: list[str]) -> int:
        if self.stopped:
            return 130
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        # For the worker, should this process itself be killed; so before anything that may wait.
        Path(GROUP).write_text(str(self.process.pid), encoding="utf-8")
        lower_session(self.process.pid)
        if self.stopped:  # between the question and the answer
            self._signal(signal.SIGINT)
        code = self.process.wait()
        # What the pipeline itself had started, such as the processes that mine.
        self._signal(signal.SIGKILL)
        return code if code >= 0 else 128 - code

    def stop(self) -> None:
        """As Ctrl-C; after a while for good."""
        self.stopped = True
        self._signal(signal.SIGINT)
        threading.Thread(target=self._insist, daemon=True).start()

    def _insist(self) -> None:
        time.sleep(GRACE)
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.process:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)


def _watch(runner: _Runner) -> None:
    while os.read(0, 1):
        pass
    # The worker is gone: nobody will ask again, and another worker may already have the job.
    runner.stopped = True
    runner._signal(signal.SIGKILL)
    os._exit(137)


if __name__ == "__main__":
    sys.exit(main())
