"""What git knows of each file: its last commit, and what the last ones say."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Older commits say little of today's code, and a long history takes long to read.
_COMMITS = 5_000
_SUBJECTS = 5
# A commit of so many files (a move, a formatter, an import) says nothing of one of them.
_BULK = 100
# In a git hook these name the hook's repository, not the folder's.
_PLACES = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"}


@dataclass(frozen=True)
class Past:
    """A file's last commit, when it was (ISO 8601), and subjects, newest first."""

    commit: str
    committed: str
    subjects: tuple[str, ...] = ()


def read_history(top: Path) -> dict[str, Past]:
    """The past of each file of the repository at `top`, by its path, in one pass of git log.

    Merges are left out, and so are the subjects of commits of more than 100 files. Files
    that the last 5,000 commits did not touch are not in it.
    """
    log = git(
        top, "log", f"-n{_COMMITS}", "--no-merges", "--no-renames", "--name-only", "-z",
        "--format=%x01%H%x02%cI%x02%s",
    )  # fmt: skip
    found: dict[str, Past] = {}
    for entry in (log or "").split("\x01")[1:]:
        head, _, listed = entry.partition("\0")
        commit, committed, subject = head.split("\x02", 2)
        # Paths keep odd bytes as os.fsdecode does; a subject goes into JSON.
        subject = subject.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        names = [name for name in listed.lstrip("\n").split("\0") if name]
        subjects = (subject,) if len(names) <= _BULK and subject else ()
        for name in names:
            past = found.setdefault(name, Past(commit, committed))
            if len(past.subjects) < _SUBJECTS and subjects:
                found[name] = Past(past.commit, past.committed, past.subjects + subjects)
    return found


def git(folder: Path, *args: str, given: str = "") -> str | None:
    """What git prints in `folder`, `given` on its stdin; None where it fails or is missing."""
    environ = {k: v for k, v in os.environ.items() if k not in _PLACES}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *args],
            capture_output=True,
            check=False,
            env=environ,
            input=os.fsencode(given),
        )
    except OSError:
        return None
    return os.fsdecode(done.stdout) if done.returncode == 0 else None
