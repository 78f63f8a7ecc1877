"""Which files of a repository are mined, and why the others are not."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.records import Verdict, content_id
from forge_cli.mine.generated import read_marks
from forge_cli.mine.history import git

_MAX_BYTES = 1_000_000
# A line this long, or this mean, is generated or minified code.
_MAX_LINE, _MAX_MEAN_LINE = 5_000, 300
_NEVER = {".git", ".forge"}
# Only where no git says what belongs to the repository.
_SKIPPED_DIRS = _NEVER | {"node_modules", ".venv", "venv", "__pycache__"}
_SECRETS = (
    ".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "*.keystore", "*.jks", "id_rsa*",
    "id_dsa*", "id_ecdsa*", "id_ed25519*", ".netrc", ".npmrc", ".pypirc", "credentials",
    "*.kdbx", "secrets.y*ml", "secrets.json", "secrets.toml", "secrets.env", "credentials.json",
    ".git-credentials", ".htpasswd",
)  # fmt: skip
# Settings of Forge's own, at the top; they say nothing of the repository.
_SETTINGS = {"forge.yaml", "guard.yaml"}
_EXAMPLES = ("*.example", "*.sample", "*.template", "*.dist", "*.pub")
_IS_SECRET, _IS_EXAMPLE = (
    re.compile("|".join(map(fnmatch.translate, patterns))) for patterns in (_SECRETS, _EXAMPLES)
)


@dataclass(frozen=True)
class Source:
    """A readable text file of the repository."""

    path: str  # relative to the repository's top, with /
    data: bytes


@dataclass(frozen=True)
class Tree:
    """Where a repository's top is, its name, its commit, and the files asked for."""

    top: Path
    name: str
    head: str  # git's commit; "" outside of git or before the first
    paths: list[str]
    marks: Mapping[str, bool]  # of .gitattributes: see generated.read_marks


def find_tree(path: Path) -> Tree:
    """List the files at `path`: what git tracks or would track, else all that is not ignored.

    Raises:
        UsageError: the path is not there. ForgeError: no file is left.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or directory", "give the path of a repository")
    path = path.resolve()
    folder = path if path.is_dir() else path.parent
    root, head = folder, ""
    top = git(folder, "rev-parse", "--show-toplevel")
    listed = _git_files(folder) if top else []
    # A folder that its repository ignores (a virtual environment) is mined by its own rules.
    if top and (listed or folder == Path(top.strip())):
        root = Path(top.strip())
        head = (git(root, "rev-parse", "--verify", "-q", "HEAD") or "").strip()
    else:
        listed = list(_walk(folder))
    names = [path.name] if path.is_file() else listed
    paths = sorted(Path(os.path.relpath(folder / name, root)).as_posix() for name in names)
    paths = [p for p in paths if not _NEVER & set(p.split("/"))]
    ignored = _ignore_spec(root / ".forgeignore")
    paths = [p for p in paths if not ignored.match_file(p)]
    if not paths:
        raise ForgeError(f"{path}: no files to mine", "is it empty, or is everything ignored?")
    marks = read_marks(root, paths) if top else {}
    return Tree(root, root.name or "root", head, paths, marks)


def read(top: Path, path: str) -> Source | Verdict:
    """The file's bytes, or the reason why it is left out. Secret files are not opened."""
    file = top / path
    if not path.isprintable():
        shown = path.encode("utf-8", "backslashreplace").decode()
        return verdict_of(shown, "name", "its name is not printable UTF-8")
    if path in _SETTINGS:
        return verdict_of(path, "settings", "Forge's own, not the repository's")
    if _is_secret(file.name):
        return verdict_of(path, "secret", "its name says that it holds secrets; not read")
    try:
        about = os.lstat(file)
        if stat.S_ISLNK(about.st_mode):
            return verdict_of(path, "symlink", "a link; its target is mined where it stands")
        if stat.S_ISDIR(about.st_mode):
            return verdict_of(path, "submodule", "a repository of its own; mine it by itself")
        if not stat.S_ISREG(about.st_mode):
            return verdict_of(path, "missing", "not a regular file")
        if (size := about.st_size) > _MAX_BYTES:
            return verdict_of(path, "size", f"{size} bytes, more than {_MAX_BYTES}", size=size)
        data = file.read_bytes()
    except FileNotFoundError:
        return verdict_of(path, "missing", "deleted, though git still lists it")
    except OSError as error:
        return verdict_of(path, "unreadable", error.strerror or str(error))
    if reason := _unfit(data, path.endswith(".ipynb")):
        return verdict_of(path, *reason, size=len(data))
    return Source(path, data)


def stat_of(file: Path) -> tuple[int, ...]:
    """Size, and the times (ns) of the last change of content and of inode; () for no file."""
    try:
        found = os.lstat(file)
    except OSError:
        return ()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _unfit(data: bytes, notebook: bool) -> tuple[str, str] | None:
    if b"\0" in data:
        return "binary", "holds NUL bytes"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return "encoding", f"not UTF-8 at byte {error.start}"
    if notebook:
        return None  # an image that a cell put out is one line
    lines = data.splitlines() or [b""]
    longest = max(map(len, lines))
    if longest > _MAX_LINE or (len(data) > 10_000 and len(data) / len(lines) > _MAX_MEAN_LINE):
        return "minified", f"a line of {longest} bytes"
    return None


def _is_secret(name: str) -> bool:
    return not _IS_EXAMPLE.match(name) and bool(_IS_SECRET.match(name.lower()))


def verdict_of(path: str, check: str, reason: str, size: int | None = None) -> Verdict:
    """Why a file is left out; `size` in bytes where it is known."""
    return Verdict(
        id=content_id(path, check),
        check=check,
        reason=reason,
        path=path,
        start_byte=None if size is None else 0,
        end_byte=size,
    )


def _git_files(folder: Path) -> list[str]:
    out = git(folder, "ls-files", "-co", "--exclude-standard", "--deduplicate", "-z")
    return [name.rstrip("/") for name in (out or "").split("\0") if name]


def _walk(folder: Path) -> Iterator[str]:
    """Files below a folder by the .gitignore of each level; links to folders count as files."""
    specs: dict[str, list[tuple[Path, Any]]] = {}
    for place, dirs, names in os.walk(folder):
        here = Path(place)
        rules = list(specs.get(str(here.parent), [])) if here != folder else []
        if ".gitignore" in names:
            rules.append((here, _ignore_spec(here / ".gitignore")))
        specs[place] = rules
        links = [d for d in dirs if (here / d).is_symlink()]
        kept = [d for d in dirs if d not in _SKIPPED_DIRS and d not in links]
        dirs[:] = sorted(d for d in kept if not _is_ignored(here / d, rules, "/"))
        for name in sorted(names + links):
            if not _is_ignored(here / name, rules):
                yield os.path.relpath(here / name, folder)


def _is_ignored(file: Path, rules: list[tuple[Path, Any]], ending: str = "") -> bool:
    """Whether the deepest .gitignore that speaks of a file leaves it out."""
    for base, spec in reversed(rules):
        verdict = spec.check_file(file.relative_to(base).as_posix() + ending).include
        if verdict is not None:
            return bool(verdict)
    return False


def _ignore_spec(file: Path) -> Any:
    import pathspec

    lines = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    return pathspec.GitIgnoreSpec.from_lines(lines.splitlines())
