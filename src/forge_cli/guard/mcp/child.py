"""A process between the MCP server and a command, so that no command outlives its client.

python -m forge_cli.guard.mcp.child NICE COMMAND(JSON)

Runs the command in a process group of its own. When this process is told to end, or its own
standard input ends (a pipe from the server, which the system closes however the server dies), the
command is interrupted as by Ctrl-C, writes its checkpoint, and after a while is ended for good.

stdout and stderr are the command's; they are passed on by this process, which goes on reading when
nobody listens any more: a command that is writing its checkpoint must not fail at a note.
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
from typing import IO

GRACE = 30.0  # seconds for the command to write its checkpoint


def main() -> int:
    """Exit as the command does."""
    os.nice(int(sys.argv[1]))
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    signal.signal(signal.SIGINT, lambda *_: None)  # of a terminal; the server says when
    process = subprocess.Popen(
        json.loads(sys.argv[2]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    # For the server, should this process itself be killed.
    print(json.dumps({"process_group": process.pid}), file=sys.stderr, flush=True)
    for work, given in ((_watch, (stopped,)), (_end, (stopped, process.pid))):
        threading.Thread(target=work, args=given, daemon=True).start()
    passing = [
        threading.Thread(target=_pass_on, args=pair, daemon=True)
        for pair in ((process.stdout, 1), (process.stderr, 2))
    ]
    for thread in passing:
        thread.start()
    code = process.wait()
    _signal(process.pid, signal.SIGKILL)  # what the command itself had started
    for thread in passing:
        thread.join()
    return code if code >= 0 else 128 - code


def _watch(stopped: threading.Event) -> None:
    while os.read(0, 1):
        pass
    stopped.set()


def _end(stopped: threading.Event, group: int) -> None:
    stopped.wait()
    _signal(group, signal.SIGINT)
    time.sleep(GRACE)
    _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _pass_on(source: IO[bytes], target: int) -> None:
    heard = True
    while block := os.read(source.fileno(), 1 << 16):
        while heard and block:
            try:
                block = block[os.write(target, block) :]
            except OSError:
                heard = False


if __name__ == "__main__":
    sys.exit(main())
