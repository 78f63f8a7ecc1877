"""Code that nobody here wrote: generated files and copies of other projects.

The rules follow GitHub's linguist; `.gitattributes` overrules them
(`path linguist-generated`, `path -linguist-vendored`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from forge_cli.mine.history import git

_VENDORED = re.compile(
    r"(^|/)(vendor|vendored|_vendor|_vendored|third[_-]?party|node_modules|bower_components"
    r"|site-packages|Pods|Carthage|Godeps|\.yarn)/"
)
_NAMES = re.compile(
    r"(^|/)(package-lock\.json|npm-shrinkwrap\.json|yarn\.lock|pnpm-lock\.yaml|Cargo\.lock"
    r"|poetry\.lock|uv\.lock|Pipfile\.lock|composer\.lock|Gemfile\.lock|go\.sum|Package\.resolved"
    r"|zz_generated[^/]*)$"
    r"|\.min\.(js|css)$|\.bundle\.js$|\.pb\.(go|cc|h|swift)$|_pb2(_grpc)?\.pyi?$|\.g\.(dart|cs)$"
    r"|\.designer\.cs$|\.(js|css)\.map$|[._]generated\.\w+$"
)
# The words that generators write at the head of a line of their own, after a comment's mark.
_HEADS = re.compile(
    r"^\W*("
    r"@generated\b"
    r"|Code generated\b.*\bDO NOT EDIT"
    r"|Generated (by|from|with|using)\b.*\b(DO NOT|don't) (EDIT|MODIFY)"
    r"|Auto-?generated (by|from|with)\b"
    r"|(This|The following) (file|code|module|source|class)( file)? (is|was|has been) "
    r"(auto[- ]?|automatically |machine[- ])?generated\b(?!.{0,40}\b(only )?(if|when|unless)\b)"
    r"|(DO NOT|don't) (EDIT|MODIFY)\b.*\b(auto[- ]?|automatically )?generated\b"
    r")",
    re.IGNORECASE,
)
_HEAD_LINES, _HEAD_BYTES = 12, 2_000
_ATTRIBUTES = ("linguist-generated", "linguist-vendored")


def foreign(path: str, data: bytes) -> tuple[str, str] | None:
    """(check, reason) for a file that is vendored or generated, by its path and first lines."""
    if found := _VENDORED.search(path):
        return "vendored", f"in {found[2]}/: another project's code"
    if _NAMES.search(path):
        return "generated", "its name is one that tools write"
    head = data[:_HEAD_BYTES].decode("utf-8", "replace").splitlines()[:_HEAD_LINES]
    if line := next((line.strip() for line in head if _HEADS.match(line)), None):
        return "generated", f"it says so: {line[:80]}"
    return None


def read_marks(top: Path, paths: Sequence[str]) -> Mapping[str, bool]:
    """What .gitattributes says of linguist-generated and -vendored.

    Returns:
        path → True (set: leave it out) or False (unset: it counts as written here).
    """
    files = {p for p in paths if p.endswith("/.gitattributes")} | {".gitattributes"}
    if not any(b"linguist-" in _bytes(top / file) for file in files):
        return {}
    out = git(top, "check-attr", "-z", "--stdin", *_ATTRIBUTES, given="\0".join(paths))
    fields = (out or "").split("\0")
    marks: dict[str, bool] = {}
    for path, _, value in zip(fields[0::3], fields[1::3], fields[2::3], strict=False):
        if value in ("set", "true"):
            marks[path] = True
        elif value in ("unset", "false"):
            marks.setdefault(path, False)
    return marks


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
