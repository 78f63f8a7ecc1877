"""Run code that nobody has read, such as a model's, contained: `run_contained(...)`.

No network, no file of the machine but those that are named, no process but its own, no variable
of the environment, and never more than `Limits`; all of it is gone when the call returns.
There is no way to run it uncontained: ask `why_not()` first.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from forge_cli.core.errors import ForgeError
from forge_cli.evaluate.sandbox import linux, seatbelt
from forge_cli.evaluate.sandbox.limits import Limits, Outcome
from forge_cli.evaluate.sandbox.paths import check_name, check_shown

__all__ = ["Limits", "Outcome", "run_contained", "why_not"]

_SYSTEMS = {"linux": linux, "darwin": seatbelt}


def run_contained(
    command: Sequence[str],
    *,
    files: Mapping[str, str],
    read_only: Sequence[Path] = (),
    limits: Limits | None = None,
    stdin: str = "",
) -> Outcome:
    """Run a command in a directory of its own, which it may write in, and which is thrown away.

    It sees the system's programs and libraries, and this Python with its packages
    (`sys.executable`).

    Args:
        files: relative path → text, put into the directory.
        read_only: directories that it may read too, at the paths that they have here. It is the
            user nobody where root runs it: their files have to be readable by all.
        stdin: its standard input.

    Raises:
        ForgeError: this machine cannot contain it, or there is no such command, or a path is
            not one that can be given.
    """
    for name in files:
        check_name(name)
    for path in read_only:
        check_shown(path)
    if sys.platform not in _SYSTEMS:
        raise ForgeError(why_not(), "run it on Linux or macOS")
    return _SYSTEMS[sys.platform].run(command, files, read_only, limits or Limits(), stdin)


@cache
def why_not() -> str:
    """Why this machine cannot contain code; "" if it can."""
    if sys.platform not in _SYSTEMS:
        return f"there is no sandbox for {sys.platform}"
    return _SYSTEMS[sys.platform].why_not()
