"""The files of a job's run directory, and nothing outside of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

MOST = 10_000  # files that are listed


def list_files(home: Path, job_id: str) -> list[tuple[str, int]]:
    """Path below the run directory and size of each file, by path."""
    root = home / job_id / "run"
    found = []
    for path in _walk(root):
        name = path.relative_to(root).as_posix()
        if is_plain(name):
            found.append((name, path.lstat().st_size))
        if len(found) == MOST:
            break
    return sorted(found)


def find_file(home: Path, job_id: str, name: str) -> Path | None:
    """The file of that name; None for what is none, leads outside, or is a link or hidden."""
    if not is_plain(name):
        return None
    root = (home / job_id / "run").absolute()
    path = root / name
    try:
        inside = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    # Equal but for links above the run directory: none below it is followed.
    return inside if inside == root.resolve() / name and inside.is_file() else None


def is_plain(name: str) -> bool:
    """Whether it is a path in its shortest form, without hidden parts and control characters."""
    parts = name.split("/")
    plain = not re.search(r"[\x00-\x1f\x7f\\\ud800-\udfff]", name)
    return plain and len(name) < 1000 and all(p and not p.startswith(".") for p in parts)


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            if path.is_file() and not path.is_symlink():
                yield path
