"""Which paths can be given to contained code."""

from __future__ import annotations

import os
import pwd
from contextlib import suppress
from pathlib import Path, PurePosixPath

from forge_cli.core.errors import ForgeError

# They show, or change, what the machine is doing.
_NEVER = ("/", "/dev", "/proc", "/sys", "/run", "/etc", "/boot", "/home", "/Users")


def check_name(name: str) -> None:
    """See that a file's name leads to a place inside the working directory.

    Raises:
        ForgeError: it does not.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise ForgeError(f"{name!r}: not a path inside the directory", "give relative paths")


def check_shown(path: Path) -> None:
    """See that a directory may be read by contained code.

    Raises:
        ForgeError: it is no directory, or it shows the home directory or the machine's state.
    """
    if not path.is_dir():
        raise ForgeError(f"{path}: not a directory", "give directories that the code may read")
    homes = _homes()
    for form in (path.absolute(), path.resolve()):
        if str(form) in _NEVER or any(home.is_relative_to(form) for home in homes):
            raise ForgeError(f"{path}: not shown to contained code", "give a directory further in")


def _homes() -> list[Path]:
    """The user's home, as HOME says and as the system does; there may be neither."""
    found = []
    with suppress(RuntimeError):
        found.append(Path.home().resolve())
    with suppress(KeyError):
        found.append(Path(pwd.getpwuid(os.getuid()).pw_dir).resolve())
    return found
