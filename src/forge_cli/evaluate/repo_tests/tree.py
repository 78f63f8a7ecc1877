"""A repository's text files, as they are copied for every run of its tests."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from forge_cli.core.errors import ForgeError

_MOST_FILE, _MOST_BYTES = 1 << 20, 64 << 20
# Only where no git says what belongs to the repository.
_SKIPPED = {".git", ".forge", "node_modules", ".venv", "venv", "__pycache__"}
_PAGE = 4096


@dataclass(frozen=True)
class Tree:
    """What the tests see of a repository.

    Attributes:
        files: path in the folder that was mined, with / → text.
        prefix: the folder's own path in its repository, with / at its end; "" for the top.
        digest: hash of all paths and texts.
    """

    files: Mapping[str, str]
    prefix: str
    digest: str

    @property
    def disk_bytes(self) -> int:
        """Room that a copy takes, in whole pages."""
        return sum(_PAGE * (1 + len(text.encode()) // _PAGE) for text in self.files.values())

    def inside(self, path: str) -> str:
        """A chunk's path, which is from the repository's top, as it stands in `files`."""
        return path.removeprefix(self.prefix)


def read_tree(root: Path) -> Tree:
    """The files that git tracks or would track, else all but those of environments and caches.

    Left out are links, files above 1 MB and what is not UTF-8: tests that need them do not pass
    as they stand, and so calibration drops them.

    Raises:
        ForgeError: more than 64 MB, too much to copy for each run.
    """
    prefix = _git(root, "rev-parse", "--show-prefix")
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard") or ""
    names = [name for name in listed.split("\0") if name]
    # A folder that its repository ignores is mined by itself; its paths begin there.
    files = dict(_texts(root, names or list(_walk(root))))
    size = sum(map(len, files.values()))
    if size > _MOST_BYTES:
        raise ForgeError(
            f"{root}: {size >> 20} MB of text, more than {_MOST_BYTES >> 20}: too much to copy "
            "for each run of its tests",
            "leave repo-tests out, or train on a folder further in",
        )
    told = hashlib.sha256()
    for name, text in files.items():
        told.update(f"{name}\0{len(text)}\0{text}".encode())
    return Tree(files, (prefix or "").strip("\n") if names else "", told.hexdigest())


def _texts(root: Path, names: list[str]) -> Iterator[tuple[str, str]]:
    for name in sorted(set(names)):
        file = root / name
        if file.is_symlink() or not file.is_file() or not name.isprintable():
            continue
        with suppress(OSError, UnicodeDecodeError):
            if file.stat().st_size <= _MOST_FILE:
                yield name, file.read_bytes().decode()


def _walk(root: Path) -> Iterator[str]:
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name not in _SKIPPED]
        for name in names:
            yield (Path(folder) / name).relative_to(root).as_posix()


def _git(folder: Path, *args: str) -> str | None:
    """What git prints in a folder; None where it fails or is missing."""
    # In a git hook these name the hook's repository, not the folder's.
    environ = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *args], capture_output=True, check=False, env=environ
        )
    except OSError:
        return None
    return os.fsdecode(done.stdout) if done.returncode == 0 else None
