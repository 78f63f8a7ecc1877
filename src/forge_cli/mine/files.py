"""Which files of a repository are mined, and why the others are not."""

from __future__ import annotations

import fnmatch
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.records import Verdict, content_id

_MAX_BYTES = 1_000_000
# A line this long, or this mean, is generated or minified code.
_MAX_LINE, _MAX_MEAN_LINE = 5_000, 300
_SKIPPED_DIRS = {".git", ".forge", "node_modules", ".venv", "venv", "__pycache__"}
_SECRETS = (
    ".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "*.keystore", "*.jks", "id_rsa*",
    "id_dsa*", "id_ecdsa*", "id_ed25519*", ".netrc", ".npmrc", ".pypirc", "credentials",
    "*.kdbx", "secrets.*",
)  # fmt: skip
_EXAMPLES = ("*.example", "*.sample", "*.template", "*.dist")


@dataclass(frozen=True)
class Source:
    """A readable text file of the repository."""

    path: str  # relative to the repository's top, with /
    data: bytes


@dataclass(frozen=True)
class Tree:
    """Where a repository's top is, its name and commit, and the files asked for."""

    top: Path
    name: str
    commit: str | None
    paths: list[str]


def find_tree(path: Path) -> Tree:
    """List the files at `path`: what git tracks or would track, else all that is not ignored.

    Raises:
        UsageError: the path is not there. ForgeError: no file is left.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or directory", "give the path of a repository")
    path = path.resolve()
    folder = path if path.is_dir() else path.parent
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top and (listed := _git_files(folder)):
        root = Path(top.strip())
        commit = (_git(folder, "rev-parse", "HEAD") or "").strip() or None
        paths = [os.path.relpath(folder / name, root) for name in listed]
    else:
        root, commit = folder, None
        paths = list(_walk(folder))
    if path.is_file():
        paths = [os.path.relpath(path, root)]
    paths = sorted(Path(p).as_posix() for p in paths)
    paths = [p for p in paths if not _SKIPPED_DIRS & set(p.split("/")[:-1])]
    ignored = _ignore_spec([root / ".forgeignore"])
    paths = [p for p in paths if not ignored.match_file(p)]
    if not paths:
        raise ForgeError(f"{path}: no files to mine", "is it empty, or is everything ignored?")
    return Tree(root, root.name, commit, paths)


def read(tree: Tree, path: str) -> Source | Verdict:
    """The file's bytes, or the reason why it is left out. Secret files are not opened."""
    name = path.rsplit("/", 1)[-1]
    file = tree.top / path
    if _is_secret(name):
        return _verdict(path, "secret", "its name says that it holds secrets; not read")
    if file.is_symlink():
        return _verdict(path, "symlink", "a link; its target is mined where it stands")
    if not file.is_file():
        return _verdict(path, "missing", "not a file (a submodule, or deleted)")
    try:
        data = file.read_bytes()
    except OSError as error:
        return _verdict(path, "unreadable", str(error.strerror))
    if reason := _unfit(data):
        return _verdict(path, *reason, size=len(data))
    return Source(path, data)


def _unfit(data: bytes) -> tuple[str, str] | None:
    if len(data) > _MAX_BYTES:
        return "size", f"{len(data)} bytes, more than {_MAX_BYTES}"
    if b"\0" in data:
        return "binary", "holds NUL bytes"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return "encoding", f"not UTF-8 at byte {error.start}"
    lines = data.splitlines() or [b""]
    longest = max(map(len, lines))
    if longest > _MAX_LINE or (len(data) > 10_000 and len(data) / len(lines) > _MAX_MEAN_LINE):
        return "minified", f"a line of {longest} bytes"
    return None


def _is_secret(name: str) -> bool:
    if any(fnmatch.fnmatch(name, pattern) for pattern in _EXAMPLES):
        return False
    return any(fnmatch.fnmatch(name.lower(), pattern) for pattern in _SECRETS)


def _verdict(path: str, check: str, reason: str, size: int | None = None) -> Verdict:
    return Verdict(
        id=content_id(path, check),
        check=check,
        reason=reason,
        path=path,
        start_byte=None if size is None else 0,
        end_byte=size,
    )


def _git(folder: Path, *args: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *args], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def _git_files(folder: Path) -> list[str]:
    out = _git(folder, "ls-files", "-co", "--exclude-standard", "--deduplicate", "-z")
    return [name for name in (out or "").split("\0") if name and not name.endswith("/")]


def _walk(folder: Path) -> Iterator[str]:
    ignored = _ignore_spec([folder / ".gitignore"])
    for place, dirs, names in os.walk(folder):
        dirs[:] = sorted(d for d in dirs if d not in _SKIPPED_DIRS)
        for name in sorted(names):
            relative = os.path.relpath(Path(place) / name, folder)
            if not ignored.match_file(relative):
                yield relative


def _ignore_spec(files: list[Path]):  # type: ignore[no-untyped-def]
    import pathspec

    lines = [line for f in files if f.is_file() for line in f.read_text().splitlines()]
    return pathspec.GitIgnoreSpec.from_lines(lines)
