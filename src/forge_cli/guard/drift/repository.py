"""What git and the users say of a repository, beside its code."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from forge_cli.mine.history import git

CORRECTIONS = Path(".forge") / "corrections.jsonl"


def head(repository: Path) -> str:
    """The commit that is checked out; "" outside of git and before the first commit."""
    return (git(repository, "rev-parse", "--verify", "-q", "HEAD^{commit}") or "").strip()


def tags_in(repository: Path, commit: str = "HEAD") -> list[str]:
    """The tags on a commit and on all before it, sorted; none where git does not know it."""
    found = git(repository, "tag", "--merged", commit, "--format=%(refname:strip=2)")
    return sorted((found or "").splitlines())


def tags_since(repository: Path, since: str, known: Collection[str]) -> list[str]:
    """The tags on commits that came after `since`, sorted, but for those that are known.

    Where git does not know that commit (any more), all tags up to the one checked out count.
    """
    form = "--format=%(refname:strip=2)"
    after = since and git(repository, "tag", "--merged", "HEAD", "--no-merged", since, form)
    found = after.splitlines() if since and after is not None else tags_in(repository)
    return sorted(set(found).difference(known))


def corrections_in(repository: Path) -> int:
    """How many answers users corrected, ever: the whole lines of `.forge/corrections.jsonl`."""
    try:
        lines = (repository / CORRECTIONS).read_bytes().split(b"\n")
    except OSError:
        return 0
    return sum(bool(line.strip()) for line in lines[:-1])
