"""A program that ends with the process that started it, however that one ends.

python lifeline.py VARIABLES(JSON) COMMAND…

Becomes the command, so that signals and exit codes are the program's own; a child of it waits on
what was its standard input, a pipe from whoever started it, which the system closes at the latest
when that process is gone, and then kills it; its process group, if it leads one. Run as a file,
without the package: it starts at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def tied(command: Sequence[str | Path], variables: Mapping[str, str]) -> list[str]:
    """What to start, with `stdin=PIPE`, in place of `command`.

    Args:
        variables: added to its environment alone.
    """
    # Nothing of the user's is imported, as it would be in the folder that one happens to be in.
    python = [sys.executable, "-I", "-S", __file__]
    return [*python, json.dumps(dict(variables)), *map(str, command)]


def main() -> None:
    """Become the command."""
    variables, command = json.loads(sys.argv[1]), sys.argv[2:]
    if not os.fork():
        _watch(os.getppid())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.execve(command[0], command, {**os.environ, **variables})


def _watch(program: int) -> None:
    # Its output is the program's, which others may read to its end.
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, for the program to answer
    while os.read(0, 1):
        pass
    if os.getppid() == program:  # else it has ended, and the number may be another's
        leads = os.getpgid(program) == program  # then also what it has started, as Ollama does
        (os.killpg if leads else os.kill)(program, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    main()
