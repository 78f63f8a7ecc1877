"""Mining: each file's last commit and what its commits said."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from forge_cli import mine
from forge_cli.core.records import Chunk
from forge_cli.mine.history import read_history


def commit(root: Path, message: bytes, day: int) -> str:
    when = f"2024-01-{day:02}T12:00:00+00:00"
    env = os.environ | {"GIT_COMMITTER_DATE": when, "GIT_AUTHOR_DATE": when}
    args = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*args, "add", "-A"], check=True, env=env)
    subprocess.run([*args, "commit", "-qF", "-"], input=message, check=True, env=env)
    done = subprocess.run([*args, "rev-parse", "HEAD"], capture_output=True, check=True)
    return done.stdout.decode().strip()


def repository(root: Path) -> Path:
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    return root


def test_a_file_knows_its_own_commits(tmp_path: Path) -> None:
    root = repository(tmp_path)
    (root / "d").mkdir()
    (root / "d" / "ä b.py").write_text("x = 1\n")
    (root / "other.py").write_text("y = 1\n")
    first = commit(root, b"Start\n\nA body.", 1)
    (root / "d" / "ä b.py").write_text("x = 2\n")
    second = commit(root, "Größer, for \xff bytes".encode("latin-1"), 2)
    (root / "new.py").write_text("z = 1\n")

    def chunk(path: Path) -> Chunk:
        (found,) = mine.run(path)
        return found

    own, other, new = (chunk(root / p) for p in ("d/ä b.py", "other.py", "new.py"))
    assert (own.commit, own.committed) == (second, "2024-01-02T12:00:00+00:00")
    assert len(own.history) == 2 and own.history[1] == "Start"
    assert own.history[0].startswith("Gr") and own.model_dump_json()
    assert (other.commit, other.history) == (first, ["Start"])
    assert (new.commit, new.committed, new.history) == (None, None, [])


def test_a_bulk_commit_and_old_ones_say_nothing_of_a_file(tmp_path: Path) -> None:
    root = repository(tmp_path)
    for number in range(101):
        (root / f"f{number}.py").write_text("x = 1\n")
    bulk = commit(root, b"Import all", 1)
    for day in range(2, 9):
        (root / "f0.py").write_text(f"x = {day}\n")
        commit(root, f"Day {day}".encode(), day)
    past = read_history(root)
    assert past["f0.py"].subjects == ("Day 8", "Day 7", "Day 6", "Day 5", "Day 4")
    assert (past["f1.py"].commit, past["f1.py"].subjects) == (bulk, ())


def test_no_git_no_history(tmp_path: Path) -> None:
    assert read_history(tmp_path) == {}
