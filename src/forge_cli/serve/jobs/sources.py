"""What a job may train on: folders of an allow-list, git from allowed places, uploaded rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from forge_cli.core.errors import UsageError
from forge_cli.serve.jobs.clone import folder_of
from forge_cli.serve.jobs.files import NAME, rows_to_train
from forge_cli.serve.jobs.store import JobStore

_REF = re.compile(r"\w[\w./-]{0,200}")  # of git; nothing that could be taken for a flag


@dataclass(frozen=True)
class Allowed:
    """Where jobs may read.

    Attributes:
        folders: and all below them. hosts: of git URLs, such as github.com.
        execute: jobs may run generated code and a repository's tests.
    """

    folders: Sequence[Path] = ()
    hosts: Sequence[str] = ()
    execute: bool = False


def check_source(source: str, allowed: Allowed) -> None:
    """Raise UsageError unless a job may read `source`; nothing is opened."""
    if is_file(source):
        return
    if is_git(source):
        _check_git(source, allowed)
        return
    if "\0" in source:
        raise UsageError("source: not a path", "give a folder, a git URL or the id of a file")
    # Resolved, so that neither .. nor a link leads out of what is allowed.
    path = Path(source)
    if not path.is_absolute() or not is_within(path, allowed):
        raise UsageError(
            f"source {source}: not in a folder that this server may read",
            "start it with --allow FOLDER",
        )
    if not path.is_dir():
        raise UsageError(f"source {source}: no such folder", "give a repository")


def prepare(
    source: str,
    folder: Path,
    allowed: Allowed,
    store: JobStore,
    *,
    validation: str = "",
    options: Mapping[str, Any] | None = None,
) -> str:
    """The path that the pipeline gets; a file is written, a git URL is cloned by the job itself.

    Args:
        validation: the id of a file to validate on, beside a file. options: the job's.

    Raises:
        UsageError: not allowed. ForgeError: the file is gone.
    """
    check_source(source, allowed)
    if is_file(source):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "examples.jsonl"
        path.write_bytes(rows_to_train(source, validation, options or {}, store))
        return str(path)
    if is_git(source):
        return str(folder_of(source, folder))
    return str(Path(source).resolve())


def is_within(path: Path, allowed: Allowed) -> bool:
    """Whether a path, with its links followed, is in a folder that jobs may read."""
    try:
        found = path.resolve()
    except (OSError, RuntimeError, ValueError):
        return False
    return any(found.is_relative_to(folder.resolve()) for folder in allowed.folders)


def is_file(source: str) -> bool:
    """Whether it is the id of an uploaded file."""
    return bool(NAME.fullmatch(source))


def is_git(source: str) -> bool:
    """Whether it is meant as a git URL; `user@host:path` is one."""
    return "://" in source or bool(re.match(r"[\w.-]+@[\w.-]+:", source))


def _check_git(source: str, allowed: Allowed) -> None:
    if not re.fullmatch(r"[!-\[\]-~]+", source):
        # urlsplit drops a newline and git does not, so they would see different hosts.
        raise UsageError("source: a git URL is ASCII without spaces", "write others as %XX")
    try:
        split = urlsplit(source)
        _ = split.port  # read only when it is asked for
    except ValueError as error:
        raise UsageError(
            f"source: not a URL: {error}", "such as https://HOST/PATH, or https://HOST/PATH#BRANCH"
        ) from None
    if split.scheme not in ("https", "ssh") or split.password or source.startswith("-"):
        raise UsageError(
            "source: a git URL must be https://… or ssh://… and hold no password",
            "let git's own credential store know it",
        )
    if (split.hostname or "") not in allowed.hosts:
        raise UsageError(
            f"source: {split.hostname} is not a host that this server may read",
            "start it with --allow-git HOST",
        )
    if "#" in source and not _REF.fullmatch(split.fragment):
        raise UsageError("source: not a branch or tag behind the #", "such as …/shop#v1.2")
