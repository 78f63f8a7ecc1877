"""What `forge guard install` puts where, and how `uninstall` takes just that away again.

A plan is made first: nothing is written where one of its parts is refused.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.jsonl import atomic_file
from forge_cli.guard import hooks, services
from forge_cli.guard.services import Service
from forge_cli.guard.state import Guarded

Kind = Literal["hook", "launchd", "systemd"]


@dataclass(frozen=True)
class Change:
    """A file that becomes another, is made (before is None) or goes (after is None)."""

    file: Path
    before: bytes | None
    after: bytes | None
    executable: bool = False

    @property
    def action(self) -> str:
        """What happens to it."""
        if self.before == self.after:
            return "unchanged"
        return "remove" if self.after is None else "write" if self.before is None else "change"


@dataclass
class Plan:
    """What to do: files, folders of the guardian to make, and commands that load or unload.

    Attributes:
        may_fail: commands that come before those, and may fail.
        left_out: what cannot be done though nothing is wrong, in words.
    """

    changes: list[Change] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    commands: list[tuple[str, ...]] = field(default_factory=list)
    may_fail: list[tuple[str, ...]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def content(self, file: Path) -> bytes | None:
        """What is in the file by this plan, or else now."""
        planned = [change.after for change in self.changes if change.file == file]
        return planned[-1] if planned else _read(file)

    def set(self, file: Path, after: bytes | None, *, executable: bool = False) -> None:
        """Have the file hold this; one that two repositories share changes once, by both."""
        before = next((one.before for one in self.changes if one.file == file), _read(file))
        self.changes = [one for one in self.changes if one.file != file]
        self.changes.append(Change(file, before, after, executable))


def kinds_of_this_machine() -> list[Kind]:
    """What is installed where nothing else is asked for."""
    return ["hook", "launchd" if sys.platform == "darwin" else "systemd"]


def plan_install(
    settings: Path,
    repositories: Iterable[Path],
    kinds: Sequence[Kind],
    environ: Mapping[str, str] | None = None,
) -> Plan:
    """What installing means here; the same again where it is done already.

    Args:
        settings: guard.yaml, absolute. repositories: their folders, absolute.
        environ: of the user (default: this process's).

    Raises:
        ForgeError: a hook is there that no line can be put into.
    """
    plan = Plan()
    for repository in repositories if "hook" in kinds else ():
        plan.folders.append(repository)
        for file, line in _hooks(repository, plan):
            hooks.check_folder(repository, file.parent)
            after = hooks.with_line(file, plan.content(file), line)
            plan.set(file, after, executable=True)
    for service in _services(settings, kinds, environ):
        if plan.content(service.file) is not None:
            plan.may_fail += service.before
        plan.set(service.file, service.text)
        plan.commands += service.load
    return plan


def plan_uninstall(
    settings: Path,
    repositories: Iterable[Path],
    kinds: Sequence[Kind],
    environ: Mapping[str, str] | None = None,
) -> Plan:
    """What takes away what `plan_install` of the same arguments put there."""
    plan = Plan()
    for repository in repositories if "hook" in kinds else ():
        for file, line in _hooks(repository, plan):
            after = hooks.without_line(plan.content(file), line)
            if after != plan.content(file):
                plan.set(file, after, executable=True)
    for service in _services(settings, kinds, environ):
        if plan.content(service.file) is None:
            continue
        plan.set(service.file, None)
        plan.changes += [Change(file, b"", None) for file in service.also if file.is_symlink()]
        plan.commands += service.unload
    return plan


def apply(plan: Plan) -> None:
    """Do it, all but the commands. Files appear and go whole.

    Raises:
        ForgeError: a folder cannot be written.
    """
    for repository in plan.folders:
        Guarded(repository, "").prepare()
    for change in plan.changes:
        if change.before == change.after:
            continue
        if change.after is None:
            change.file.unlink(missing_ok=True)
            continue
        mode = change.file.stat().st_mode & 0o777 if change.before is not None else None
        with atomic_file(change.file) as stream:
            stream.write(change.after)
        if mode is not None or change.executable:
            change.file.chmod(0o755 if mode is None else mode)


def run_commands(plan: Plan) -> None:
    """Load, or unload.

    Raises:
        ForgeError: one fails; what it says is in the message.
    """
    for command in plan.may_fail + plan.commands:
        shown = " ".join(command)
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise ForgeError(f"{shown}: {error.strerror}", "is it of this system?") from None
        if done.returncode and command not in plan.may_fail:
            said = (done.stderr or done.stdout).strip().replace("\n", "; ")
            raise ForgeError(f"{shown}: {said}", "the files are written; run it by hand")


def _hooks(repository: Path, plan: Plan) -> list[tuple[Path, bytes]]:
    """The repository's hooks, and the line that they are to have."""
    folder = hooks.folder_of_hooks(repository)
    if folder is None:
        plan.left_out.append(f"{repository}: no git there, so no hooks")
        return []
    line = hooks.line_for(repository)
    return [(folder / name, line) for name in hooks.NAMES]


def _services(
    settings: Path, kinds: Sequence[Kind], environ: Mapping[str, str] | None
) -> Iterator[Service]:
    if "\n" in str(settings):
        raise UsageError(f"{settings}: a line break is in the path", "rename the folder")
    command = [sys.executable, "-m", "forge_cli", "guard", "run", "-c", str(settings)]
    told = os.environ if environ is None else environ
    home = Path(told.get("HOME") or Path.home())
    if "launchd" in kinds:
        yield services.launchd(settings, command, told, home, os.getuid())
    if "systemd" in kinds:
        yield services.systemd(settings, command, told, home)


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
