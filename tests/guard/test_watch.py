"""What wakes the guardian, on real files and commits, and what does not."""

from __future__ import annotations

import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Silent
from forge_cli.guard.machine import uncommitted
from forge_cli.guard.watch import NUDGE, PATIENCE, Watcher

# Long enough for a busy machine; no test waits for it but one that fails.
PATIENT = 30.0
NEVER = 3600.0


def git(folder: Path, *args: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *who, *args], check=True, capture_output=True)


def repository(folder: Path) -> Path:
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "a.py").write_text("a = 1\n")
    (folder / ".gitignore").write_text("build/\n*.log\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    (folder / "build").mkdir()
    (folder / NUDGE).parent.mkdir(parents=True)
    return folder.resolve()


class Watching:
    """A watcher in a thread; `looked` is called there for each look."""

    def __init__(self, *repositories: Path, **options: object) -> None:
        values = {"debounce": 0.1, "every": NEVER} | options
        self.looked: Callable[[set[Path]], None] = lambda _: None
        self.watcher = Watcher(repositories, **values)  # type: ignore[arg-type]
        self._seen: queue.Queue[set[Path]] = queue.Queue()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watching:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.watcher.stop.set()
        self.thread.join(PATIENT)
        assert not self.thread.is_alive()

    def next(self) -> set[Path]:
        return self._seen.get(timeout=PATIENT)

    def _run(self) -> None:
        for due in self.watcher:
            self.looked(due)
            self._seen.put(due)


@pytest.fixture
def a(tmp_path: Path) -> Path:
    return repository(tmp_path / "a")


@pytest.fixture
def b(tmp_path: Path) -> Path:
    return repository(tmp_path / "b")


@pytest.mark.parametrize("files", [True, False])
def test_commits_and_nudges_are_noticed(a: Path, b: Path, files: bool) -> None:
    with Watching(a, b, files=files) as watching:
        assert watching.next() == {a, b}
        git(a, "commit", "-q", "--allow-empty", "-m", "second")
        assert watching.next() == {a}
        git(b, "tag", "v1")
        assert watching.next() == {b}
        (a / NUDGE).touch()
        assert watching.next() == {a}


def test_files_are_noticed_unless_git_ignores_them(a: Path, b: Path) -> None:
    with Watching(a, b) as watching:
        assert watching.next() == {a, b}
        (a / "new").mkdir()
        assert watching.next() == {a}
        (a / "new" / "deep.py").write_text("b = 1\n")
        assert watching.next() == {a}
        # None of these; were one noticed, `a` would be looked at before `b` or with it.
        (a / "build" / "out.py").write_text("x")
        (a / "some.log").write_text("x")
        (a / ".forge" / "guard" / "state.json").write_text("{}")
        git(a, "update-ref", "refs/remotes/origin/main", "HEAD")
        git(a, "status")
        (b / "a.py").write_text("a = 2\n")
        assert watching.next() == {b}
        # What is ignored is asked for anew when the rules change.
        (a / ".gitignore").write_text("build/\n")
        assert watching.next() == {a}
        (a / "some.log").write_text("y")
        assert watching.next() == {a}


def test_files_go_unnoticed_where_only_commits_count(a: Path, b: Path) -> None:
    with Watching(a, b, files=False) as watching:
        assert watching.next() == {a, b}
        (a / "a.py").write_text("a = 2\n")
        git(b, "commit", "-q", "--allow-empty", "-m", "second")
        assert watching.next() == {b}


def test_a_worktree_and_a_folder_without_git(a: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    (plain / "node_modules").mkdir(parents=True)
    git(a, "worktree", "add", "-q", str(tmp_path / "tree"))
    tree = (tmp_path / "tree").resolve()
    with Watching(tree, plain.resolve()) as watching:
        assert watching.next() == {tree, plain.resolve()}
        git(tree, "commit", "-q", "--allow-empty", "-m", "second")
        assert watching.next() == {tree}
        (plain / "node_modules" / "x.js").write_text("x")
        git(tree, "commit", "-q", "--allow-empty", "-m", "third")
        assert watching.next() == {tree}
        (plain / "x.txt").write_text("x")
        assert watching.next() == {plain.resolve()}


def test_a_repository_that_is_never_quiet_is_looked_at_nevertheless(a: Path) -> None:
    with Watching(a, debounce=0.4) as watching:
        assert watching.next() == {a}
        began, gaps = time.monotonic(), []
        while watching._seen.empty():
            assert time.monotonic() - began < PATIENT
            before = time.monotonic()
            (a / "a.py").write_text(f"a = {before}\n")
            time.sleep(0.02)
            gaps.append(time.monotonic() - before)
        assert watching.next() == {a}
    # By its patience, unless this machine was too busy to keep the file changing.
    assert max(gaps) > 0.2 or time.monotonic() - began >= 0.9 * PATIENCE * 0.4


def test_changes_while_it_is_looked_at_count_for_the_next_time(a: Path) -> None:
    with Watching(a) as watching:

        def look(_: set[Path]) -> None:
            if not (a / "during.py").exists():
                (a / "during.py").write_text("x = 1\n")

        watching.looked = look
        assert watching.next() == {a}
        assert watching.next() == {a}


def test_schedule_holds_and_rest(a: Path, b: Path) -> None:
    with Watching(a, every=0.2) as watching:
        assert [watching.next() for _ in range(3)] == [{a}] * 3

    with Watching(a, b) as watching:
        soon = datetime.now().astimezone() + timedelta(seconds=0.3)

        def first(due: set[Path]) -> None:
            if due == {a, b}:
                watching.watcher.look_at(b, soon)
                watching.watcher.rest(a, NEVER)

        watching.looked = first
        assert watching.next() == {a, b}
        assert watching.next() == {b}
        assert datetime.now().astimezone() >= soon
        (a / "a.py").write_text("a = 2\n")
        git(a, "commit", "-q", "-a", "-m", "second")
        (b / "a.py").write_text("a = 2\n")
        assert watching.next() == {b}


def test_a_repository_that_is_made_anew_is_noticed_again(a: Path, b: Path) -> None:
    with Watching(a, b) as watching:
        assert watching.next() == {a, b}
        shutil.rmtree(a)
        assert watching.next() == {a}
        repository(a)
        while a not in watching.next():
            pass
        time.sleep(0.5)
        while not watching._seen.empty():
            watching.next()
        git(a, "commit", "-q", "--allow-empty", "-m", "second")
        assert watching.next() == {a}


def test_what_lies_beyond_a_link_or_in_another_repository_is_not_of_it(
    a: Path, b: Path, tmp_path: Path
) -> None:
    (tmp_path / "big").mkdir()
    (a / "data").symlink_to(tmp_path / "big")
    repository(a / "inner")
    with Watching(a, b) as watching:
        assert watching.next() == {a, b}
        (tmp_path / "big" / "x").write_text("1")
        (a / "inner" / "a.py").write_text("a = 2\n")
        (a / "build" / "out.py").write_text("x")
        time.sleep(0.5)
        (b / "a.py").write_text("a = 2\n")
        assert watching.next() == {b}


def test_a_clock_that_is_set_back_delays_no_look(a: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watcher([a], debounce=1.0, every=NEVER, files=False)._watched[a]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    assert watched.is_due(1.0)
    watched.begin(600.0)
    now -= 7200.0
    assert not watched.is_due(1.0)
    now += 599.0
    assert not watched.is_due(1.0)
    now += 1.0
    assert watched.is_due(1.0)


class Heard(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def test_where_files_cannot_be_watched_commits_are(a: Path, tmp_path: Path) -> None:
    """A folder that is gone stands for one that the system will not watch: both are OSErrors."""
    heard = Heard()
    with Watching(a, tmp_path / "gone", reporter=heard) as watching:
        assert watching.next() == {a, tmp_path / "gone"}
        git(a, "commit", "-q", "--allow-empty", "-m", "second")
        assert watching.next() == {a}
    assert "only commits and the schedule are noticed" in heard.warnings[0]


WATCH = """
import sys
from pathlib import Path
from forge_cli.guard.watch import Watcher
try:
    for due in Watcher([Path(sys.argv[1])], debounce=1.0, every=3600.0):
        print("looks", flush=True)
except KeyboardInterrupt:
    print("ends", flush=True)
"""


@pytest.fixture
def process(a: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WATCH, str(a)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        yield running
        running.kill()


def test_ctrl_c_ends_the_wait(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "looks\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "ends\n"
    assert process.wait(PATIENT) == 0


def test_without_watchfiles_one_line_says_what_to_do(
    a: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(ForgeError, match="watchfiles: not installed") as error:
        Watcher([a], debounce=1.0, every=NEVER)
    assert "pip install '.[guard]'" in error.value.hint and "watch.files" in error.value.hint
    assert Watcher([a], debounce=1.0, every=NEVER, files=False)


def test_what_is_uncommitted_is_counted(a: Path, tmp_path: Path) -> None:
    assert uncommitted(a) == 0 and uncommitted(tmp_path) is None
    (a / "a.py").write_text("a = 3\n")
    (a / "new name.py").write_text("a = 3\n")
    (a / "some.log").write_text("ignored")
    git(a, "mv", ".gitignore", "moved")
    git(a, "mv", "moved", ".gitignore")
    assert uncommitted(a) == 2


def test_a_change_of_the_folder_itself_is_one_of_it(a: Path) -> None:
    watched = Watcher([a], debounce=1.0, every=NEVER, files=False)._watched[a]
    watched.begin(1e9)
    watched.note({a})  # it was removed, or its rights were changed
    assert watched.is_due(0.0)
