"""Git hooks that tell the guardian of a commit: one line in a marked block, first in its file.

First, as many a hook ends by `exit` or `exec`; and so what it returns is still its own. The line
is of the shell alone, starts no program and cannot fail: it writes a file of one byte, and only
in the repository that it is for, because a hooks folder may serve many (core.hooksPath).
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.guard.watch import NUDGE
from forge_cli.mine.history import git

NAMES = ("post-commit", "post-merge", "post-rewrite")
_SHEBANG = b"#!/bin/sh\n"
_BEGIN = b"# >>> forge guard >>> tells the guardian; forge guard uninstall removes these lines\n"
# The same of a file that was not there before: it goes when nothing else is in it.
_BEGIN_OWN = b"# >>> forge guard >>> tells the guardian; forge guard uninstall removes this file\n"
_END = b"# <<< forge guard <<<\n"
_BLOCK = re.compile(
    b"(?P<begin>" + re.escape(_BEGIN) + b"|" + re.escape(_BEGIN_OWN) + b")"
    b"(?P<lines>(?:.*\n)*?)" + re.escape(_END)
)
_SHELL = re.compile(
    rb"#![ \t]*(/usr/bin/env[ \t]+(-S[ \t]+)?)?(\S*/)?(ba|da|k|z|a)?sh([ \t\r\n]|$)"
)


def folder_of_hooks(repository: Path) -> Path | None:
    """Where git looks for this repository's hooks; None: no git there."""
    told = git(repository, "rev-parse", "--git-path", "hooks")
    return None if told is None else Path(os.path.normpath(repository / told.rstrip("\n")))


def line_for(repository: Path) -> bytes:
    """The line of shell that tells the guardian of this repository.

    Raises:
        UsageError: a line break is in the path.
    """
    top = (git(repository, "rev-parse", "--show-toplevel") or "").removesuffix("\n")
    nudge = repository / NUDGE
    if "\n" in f"{top}{nudge}":
        raise UsageError(f"{repository}: a line break is in the path", "rename the folder")
    quoted = [shlex.quote(str(one)) for one in (top, nudge.parent, nudge)]
    text = '{{ [ "$(pwd -P)" = {} ] && [ -d {} ] && echo >{}; }} 2>/dev/null || :\n'
    return os.fsencode(text.format(*quoted))


def with_line(file: Path, before: bytes | None, line: bytes) -> bytes:
    """What the hook, which is `before` now, is to be so that it has this line.

    Raises:
        ForgeError: it is there and no line of shell can be put into it.
    """
    if before is None:
        return _SHEBANG + _BEGIN_OWN + line + _END
    if line in before:
        return before
    _check(file, before, line)
    if found := _BLOCK.search(before):
        return before[: found.end("lines")] + line + before[found.end("lines") :]
    head, rest = before[: before.find(b"\n") + 1], before[before.find(b"\n") + 1 :]
    if not head.startswith(b"#!"):
        head, rest = b"", before
    return head + _BEGIN + line + _END + rest


def without_line(before: bytes | None, line: bytes) -> bytes | None:
    """What the hook is to be without that line; None: it goes, as nothing else is in it."""
    found = _BLOCK.search(before or b"")
    if before is None or found is None:
        return before
    lines = found["lines"].replace(line, b"")
    if lines:
        return before[: found.start("lines")] + lines + before[found.end("lines") :]
    rest = before[: found.start()] + before[found.end() :]
    return None if found["begin"] == _BEGIN_OWN and rest == _SHEBANG else rest


def check_folder(repository: Path, folder: Path) -> None:
    """Refuse a hooks folder that is part of the repository: others would get what is put there.

    And one that is none, such as /dev/null.

    Raises:
        ForgeError: it is one.
    """
    top = Path((git(repository, "rev-parse", "--show-toplevel") or "").removesuffix("\n"))
    common = (git(repository, "rev-parse", "--git-common-dir") or "").removesuffix("\n")
    kept = (repository / common).resolve()
    if folder.exists() and not folder.is_dir():
        raise ForgeError(
            f"{folder}: by core.hooksPath no hooks are run here; nothing was changed",
            "commits are noticed without hooks while forge guard run watches",
        )
    inside = folder.is_relative_to(top) and not folder.is_relative_to(kept)
    if inside and git(repository, "check-ignore", str(folder / "post-commit")) is None:
        raise ForgeError(
            f"{folder}: these hooks (core.hooksPath) belong to the repository; nothing was changed",
            "commits are noticed without hooks while forge guard run watches",
        )


def _check(file: Path, before: bytes, line: bytes) -> None:
    hint = f"put this line into it yourself: {os.fsdecode(line).rstrip()}"
    # A hook that this plan makes is not on the disk yet.
    if not file.exists():
        return
    if file.is_symlink():
        raise ForgeError(f"{file}: a link to {file.readlink()}; nothing was changed", hint)
    if before.startswith(b"#!") and not _SHELL.match(before):
        program = before.splitlines()[0].decode("utf-8", "replace")
        raise ForgeError(
            f"{file}: not of the shell ({program}); nothing was changed",
            "let it be called by a hook of sh, or do without: forge guard run sees commits itself",
        )
    if b"\0" in before:
        raise ForgeError(f"{file}: a program, not a script; nothing was changed", hint)
    if not os.access(file, os.X_OK):
        raise ForgeError(
            f"{file}: not executable, so git passes it by; nothing was changed",
            f"remove it, or let git use it: chmod +x {shlex.quote(str(file))}",
        )
