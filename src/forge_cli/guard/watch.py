"""Waits until a repository is worth a look: it changed and is quiet again, or it is time.

What counts as a change: a file that git does not ignore, a commit, a branch, a tag, and the nudge
of git's hooks (`install`). What Forge writes in `.forge` does not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.mine.history import git

# A repository that never is quiet is looked at after so many times the quiet time.
PATIENCE = 10
NUDGE = Path(".forge") / "guard" / "nudge"
_MOVING = {"HEAD", "packed-refs", "refs/heads", "refs/tags", "reftable"}
_NEVER = {".git", ".forge"}
_NEVER_WITHOUT_GIT = _NEVER | {"node_modules", ".venv", "venv", "__pycache__"}
# Answers of git check-ignore that are kept.
_KEPT = 20_000


class Watcher:
    """Yields the repositories to look at: all at first, then those that changed or whose time is.

    Attributes:
        stop: set it, from a signal or another thread, and the iteration ends.
    """

    def __init__(
        self,
        repositories: Iterable[Path],
        *,
        debounce: float,
        every: float,
        files: bool = True,
        stop: threading.Event | None = None,
        reporter: Reporter = SILENT,
    ) -> None:
        """Watch these folders.

        Args:
            debounce: seconds without a change before one counts. every: seconds after which a
                look is due in any case. files: notice files too; else commits and nudges alone.

        Raises:
            ForgeError: files are to be noticed and watchfiles is not installed.
        """
        if files:
            _need_watchfiles()
        self.debounce, self.every, self.files = debounce, every, files
        self.stop = stop or threading.Event()
        self.reporter = reporter
        self._watched = {path: _Watched(path) for path in repositories}
        self._tick = min(1.0, debounce / 4)

    def look_at(self, repository: Path, moment: datetime) -> None:
        """Look at it then, if not before: a hold will have ended."""
        watched = self._watched[repository]
        watched.due = min(watched.due, moment.timestamp())

    def rest(self, repository: Path, seconds: float) -> None:
        """Look at it after that time and not before, whatever changes: it failed."""
        watched = self._watched[repository]
        watched.due = watched.rests_until = time.time() + seconds

    def __iter__(self) -> Iterator[set[Path]]:
        """Wait, and yield what to look at; ends when `stop` is set.

        Raises:
            KeyboardInterrupt: as elsewhere.
        """
        for changed in self._changes():
            for watched in self._watched.values():
                watched.note(changed)
            due = {path for path, one in self._watched.items() if one.is_due(self.debounce)}
            for path in due:
                self._watched[path].begin(self.every)
            if due:
                yield due
            if self.stop.is_set():
                return

    def _changes(self) -> Iterator[set[Path]]:
        """The paths that changed, at each tick; mostly none."""
        if self.files:
            try:
                yield from self._noticed()
                return
            except (OSError, RuntimeError) as error:  # of the system, and of watchfiles itself
                self.reporter.warn(
                    f"files cannot be watched ({error}): only commits and the schedule are noticed"
                )
        before = {path: one.marks() for path, one in self._watched.items()}
        while not self.stop.is_set():
            now = {path: one.marks() for path, one in self._watched.items()}
            yield {path / NUDGE for path in now if now[path] != before[path]}
            before = now
            self.stop.wait(self._tick)

    def _noticed(self) -> Iterator[set[Path]]:
        """The same, of files too; a folder that was made anew, as by a clone, is watched anew."""
        folders = {folder for one in self._watched.values() for folder in one.folders()}
        while not self.stop.is_set():
            yield from self._until_made_anew(folders)
            for one in self._watched.values():
                one.find_git()
            folders = {folder for one in self._watched.values() for folder in one.folders()}
            folders = {folder for folder in folders if folder.exists()}
            # What changed while nothing was watched.
            yield {path / NUDGE for path in self._watched if path.exists()}

    def _until_made_anew(self, folders: set[Path]) -> Iterator[set[Path]]:
        import watchfiles

        tick = max(1, round(self._tick * 1000))
        seen = {path: _identity(path) for path in (*folders, *self._watched)}
        for changes in watchfiles.watch(
            *sorted(folders), watch_filter=None, debounce=tick, step=max(1, tick // 4),
            rust_timeout=tick, yield_on_timeout=True, stop_event=self.stop,
        ):  # fmt: skip
            yield {Path(path) for _, path in changes}
            gone = {Path(path) for kind, path in changes if kind == watchfiles.Change.deleted}
            for path, before in seen.items():
                now = _identity(path)
                if now and now != before:
                    return
                if not now or path in gone:
                    seen[path] = None


@dataclass
class _Watched:
    """One repository: what changed since it was looked at, and when that is to be.

    Times of changes are of the monotonic clock; `due` and `rests_until` are of the wall clock,
    which goes on while a laptop sleeps; `clock` is its time when it was last read.
    """

    path: Path
    git_folders: list[Path] = field(default_factory=list)
    first: float | None = None
    last: float = 0.0
    due: float = 0.0
    rests_until: float = 0.0
    clock: float = 0.0
    _ignored: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.find_git()

    def find_git(self) -> None:
        """Find git's folders as they are now."""
        told = git(self.path, "rev-parse", "--absolute-git-dir", "--git-common-dir") or ""
        if git(self.path, "check-ignore", "-q", str(self.path)) is not None:
            told = ""  # a folder that its repository ignores goes by its own rules
        # The second one is told from the folder; a worktree has two of its own.
        found = [(self.path / line).resolve() for line in told.splitlines()]
        self.git_folders = list(dict.fromkeys(found))
        self._ignored.clear()

    def folders(self) -> list[Path]:
        """What to watch: the repository, and its git folders where they are elsewhere."""
        elsewhere = [one for one in self.git_folders if not one.is_relative_to(self.path)]
        return [self.path, *elsewhere]

    def note(self, paths: set[Path]) -> None:
        """Take note of those paths that are changes of this repository."""
        if paths and not self.git_folders and (self.path / ".git").exists():
            self.find_git()  # made since
        if self._counts(paths):
            self.last = time.monotonic()
            self.first = self.last if self.first is None else self.first

    def is_due(self, debounce: float) -> bool:
        """Whether it is to be looked at now."""
        wall = time.time()
        if wall < self.clock:  # it was set back
            self.due -= self.clock - wall
            self.rests_until -= self.clock - wall
        self.clock = wall
        if wall < self.rests_until:
            return False
        if wall >= self.due:
            return True
        now = time.monotonic()
        return self.first is not None and (
            now - self.last >= debounce or now - self.first >= PATIENCE * debounce
        )

    def begin(self, every: float) -> None:
        """It is looked at now; what changes from here on is for the next time."""
        self.first, self.due = None, time.time() + every

    def marks(self) -> list[tuple[int, int, int]]:
        """What differs after a commit, a switch of branches, a tag or a nudge."""
        files = [self.path / NUDGE, *([] if self.git_folders else [self.path / ".git"])]
        for folder in self.git_folders:
            head = folder / "HEAD"
            files += [head, folder / "packed-refs", folder / "refs" / "tags", folder / "reftable"]
            ref = head.read_text(encoding="utf-8", errors="replace") if head.exists() else ""
            files += [place / ref.removeprefix("ref: ").strip() for place in self.git_folders]
        return [_stat(file) for file in files]

    def _counts(self, paths: set[Path]) -> bool:
        inside: list[str] = []
        foreign: dict[Path, bool] = {}
        for path in paths:
            folder = next((one for one in self.git_folders if path.is_relative_to(one)), None)
            if folder is not None:
                if _moves(path.relative_to(folder)):
                    return True
            elif path.is_relative_to(self.path):
                relative = path.relative_to(self.path)
                if relative == NUDGE:
                    return True
                never = _NEVER if self.git_folders else _NEVER_WITHOUT_GIT
                if not never & set(relative.parts) and not self._is_foreign(path.parent, foreign):
                    inside.append(relative.as_posix())
        return bool(inside) and not all(self._is_ignored(inside))

    def _is_foreign(self, folder: Path, known: dict[Path, bool]) -> bool:
        """Whether a link or another repository lies in between: its files are not of this one.

        Asked for one, git would tell nothing of all others.
        """
        if not self.git_folders or self.path not in folder.parents:
            return False
        if folder not in known:
            own = folder.is_symlink() or (folder / ".git").exists()
            known[folder] = own or self._is_foreign(folder.parent, known)
        return known[folder]

    def _is_ignored(self, paths: list[str]) -> list[bool]:
        """Whether git ignores each; one process for all that are new."""
        if not self.git_folders:
            return [False] * len(paths)
        if len(self._ignored) > _KEPT or any(path.endswith(".gitignore") for path in paths):
            self._ignored.clear()
        new = [path for path in paths if path not in self._ignored]
        if new:
            asked = "".join(path + "\0" for path in new)
            told = git(self.path, "check-ignore", "-z", "--stdin", given=asked) or ""
            found = set(told.split("\0"))
            self._ignored |= {path: path in found for path in new}
        return [self._ignored[path] for path in paths]


def _moves(path: Path) -> bool:
    """Whether a file of git's folder tells of a commit, a branch or a tag."""
    name = path.as_posix()
    if name.endswith(".lock"):
        return False
    return any(name == one or name.startswith(one + "/") for one in _MOVING)


def _stat(file: Path) -> tuple[int, int, int]:
    try:
        found = file.stat()
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_size, found.st_ino


def _identity(folder: Path) -> tuple[int, int] | None:
    """Which folder it is, of all that may have had its path; None: there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _need_watchfiles() -> None:
    from importlib.util import find_spec

    if find_spec("watchfiles") is None:
        raise ForgeError(
            "watchfiles: not installed, so changes of files go unnoticed",
            "pip install '.[guard]' in a checkout of Forge, or set watch.files: false",
        )


__all__ = ["NUDGE", "PATIENCE", "Watcher"]
