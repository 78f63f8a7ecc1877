"""Mining processes: one that hangs or dies loses its file, by name, and no other."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from forge_cli import mine
from forge_cli.core.errors import ForgeError
from forge_cli.mine import pool
from forge_cli.mine.pool import mine_files
from forge_cli.mine.worker import Config, Found, Task, mine_file


def awkward(config: Config, task: Task) -> Found:
    """Stands for a grammar with a fault: what it does depends on the file's name."""
    if "segfault" in task.path:
        os.abort()
    if "endless" in task.path:
        while True:
            time.sleep(60)
    if "bug" in task.path:
        raise KeyError("a defect")
    return mine_file(config, task)


def files(root: Path, *names: str) -> list[Task]:
    for name in names:
        (root / name).write_text(f"def {name.partition('.')[0]}():\n    return 1\n")
    return [Task(name) for name in names]


TARGET = f"{__name__}:awkward"


def test_a_crash_loses_its_file_and_no_other(tmp_path: Path) -> None:
    names = [f"f{n}.py" for n in range(4)] + ["segfault.py"] + [f"g{n}.py" for n in range(4)]
    tasks = files(tmp_path, *names)
    found = list(mine_files(Config(tmp_path, "r"), tasks, 1, target=TARGET))
    assert [f.path for f in found] == names
    assert [f.path for f in found if f.chunks == 0] == ["segfault.py"]
    verdict = found[4].verdict
    assert verdict is not None and verdict.check == "crash" and "signal 6" in verdict.reason
    assert verdict.end_byte == (tmp_path / "segfault.py").stat().st_size


def test_a_hang_loses_its_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_GRACE_SECONDS", 0.5)
    names = ["a.py", "endless.py", "b.py", "endless2.py"]
    tasks = files(tmp_path, *names)
    found = list(mine_files(Config(tmp_path, "r", parse_seconds=0.5), tasks, 1, target=TARGET))
    assert [(f.path, f.verdict.check if f.verdict else "") for f in found] == [
        ("a.py", ""), ("endless.py", "hang"), ("b.py", ""), ("endless2.py", "hang"),
    ]  # fmt: skip


def test_a_defect_of_forge_is_not_taken_for_the_file_s(tmp_path: Path) -> None:
    tasks = files(tmp_path, "a.py", "bug.py")
    with pytest.raises(RuntimeError, match=r"(?s)bug\.py.*KeyError: 'a defect'"):
        list(mine_files(Config(tmp_path, "r"), tasks, 1, target=TARGET))


def test_processes_that_do_not_start_are_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ForgeError, match="does not start"):
        list(mine_files(Config(tmp_path, "r"), files(tmp_path, "a.py"), 1, target="nowhere:x"))
    assert "nowhere" in capfd.readouterr().err


def test_a_process_is_used_again_and_one_that_died_meanwhile_is_not(tmp_path: Path) -> None:
    tasks = files(tmp_path, "a.py")

    def pid() -> int:
        (found,) = mine_files(Config(tmp_path, "r"), tasks, 1)
        assert found.chunks == 1
        return pool._idle[-1].popen.pid

    first = pid()
    assert pid() == first
    pool._idle[-1].popen.kill()
    pool._idle[-1].popen.wait()
    assert pid() != first


def test_a_run_that_is_left_half_way_leaves_no_process_at_work(tmp_path: Path) -> None:
    files(tmp_path, *(f"f{n}.py" for n in range(120)))
    lines = mine.run(tmp_path, jobs=2, links=False).lines()
    next(lines)
    lines.close()  # type: ignore[attr-defined]
    assert all(not process.tasks for process in pool._idle)
    assert len(list(mine.run(tmp_path, jobs=2))) == 120
