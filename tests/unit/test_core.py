"""Streams that tell a whole one from a broken one, settings with origins, run directories."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from forge_cli.core.config import RUNTIME, Settings, resolve
from forge_cli.core.errors import BadRecord, ForgeError, UsageError
from forge_cli.core.jsonl import atomic_file, read_records, write_records
from forge_cli.core.records import Chunk, End, Example
from forge_cli.core.run_dir import RunDir


def chunk(number: int) -> Chunk:
    return Chunk(
        id=str(number), repo="r", path="a.py", language="python", start_byte=0, end_byte=1,
        start_line=1, end_line=1, kind="text", text="x",
    )  # fmt: skip


def read_pipe(data: bytes, *, need_end: bool = True) -> str:
    code = (
        "from forge_cli.core.jsonl import read_records\n"
        "from forge_cli.core.records import Chunk\n"
        "from forge_cli.core.errors import ForgeError\n"
        f"try: print(len(list(read_records('-', Chunk, need_end={need_end}))))\n"
        "except ForgeError as error: print('refused:', error.message)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    return done.stdout.decode().strip()


def write_pipe(count: int) -> bytes:
    code = (
        "from forge_cli.core.jsonl import write_records\n"
        "from test_core import chunk\n"
        f"write_records([chunk(i) for i in range({count})], '-')\n"
    )
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env=env
    ).stdout


def test_a_pipe_ends_with_its_end_record_and_is_read_back() -> None:
    data = write_pipe(3)
    end = End.model_validate_json(data.splitlines()[-1])
    assert end.count == 3
    assert read_pipe(data) == "3"


def test_a_pipe_that_was_cut_or_changed_is_refused() -> None:
    lines = write_pipe(3).splitlines(keepends=True)
    assert "without its end record" in read_pipe(b"".join(lines[:-1]))
    assert "end record says" in read_pipe(b"".join(lines[1:]))
    changed = lines[0].replace(b'"text":"x"', b'"text":"y"')
    assert "end record says" in read_pipe(b"".join([changed, *lines[1:]]))
    assert "after the end record" in read_pipe(b"".join([*lines, lines[0]]))
    assert read_pipe(b"".join(lines[:-1]), need_end=False) == "3"


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    write_records([chunk(1)], file)
    assert b'"end"' not in file.read_bytes()
    good = file.read_text()
    for bad, what in (
        ("{broken", ":2"),
        (good.replace('"kind"', '"kindd"').strip(), ":2: kind"),
        ('{"record":"end","count":9,"sha256":""}', "end record says 9"),
    ):
        file.write_text(good + bad + "\n")
        with pytest.raises(BadRecord, match=what):
            list(read_records(file, Chunk))
    file.write_text(good)
    with pytest.raises(BadRecord, match=r":1: expected a example record, found chunk"):
        list(read_records(file, Example))


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("before")
    with pytest.raises(RuntimeError), atomic_file(target) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert target.read_text() == "before" and list(tmp_path.iterdir()) == [target]
    with pytest.raises(BrokenPipeError), atomic_file(target):
        raise BrokenPipeError


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from forge_cli.core.errors import ForgeError\n"
        "from forge_cli.core.jsonl import atomic_file\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    with atomic_file(Path(sys.argv[1])) as stream: stream.write(b'x' * 5000)\n"
        "except ForgeError as error: print(error.message)\n"
    )
    target = tmp_path / "out.bin"
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)], capture_output=True, text=True, check=True
    )
    assert "cannot write" in done.stdout and str(target) in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_each_layer_beats_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    (tmp_path / "user" / "forge").mkdir(parents=True)
    user = tmp_path / "user" / "forge" / "forge.yaml"
    user.write_text("rank: 3\nseed: 3\nalpha: 3\nclip: 3\n")
    (tmp_path / "forge.yaml").write_text("# mine\nrank: 4\nseed: 4\nalpha: 4\n")
    environ = {"FORGE_RANK": "5", "FORGE_SEED": "5", "HOME": "/"}
    recipe = {"rank": 2, "clip": 2, "warmup": 0.2}
    found = resolve(
        {"rank": 6, "steps": None},
        project=tmp_path,
        recipe=recipe,
        recipe_name="r",
        environ=environ,
    )
    s = found.settings
    assert (s.rank, s.seed, s.alpha, s.clip, s.warmup) == (6, 5, 4.0, 3.0, 0.2)
    assert found.origins["rank"] == "flag"
    assert found.origins["seed"] == "environment FORGE_SEED"
    assert found.origins["alpha"] == f"{tmp_path / 'forge.yaml'}:4"
    assert found.origins["warmup"] == "recipe r"
    assert found.origins["steps"] == "default"
    assert not RUNTIME & set(found.identity())


def test_unknown_and_bad_settings_are_named(tmp_path: Path) -> None:
    (tmp_path / "forge.yaml").write_text("seed: 1\nrnak: 4\n")
    with pytest.raises(UsageError, match=r"forge.yaml:2: unknown setting rnak") as caught:
        resolve({}, project=tmp_path, environ={})
    assert caught.value.hint == "did you mean rank?"
    (tmp_path / "forge.yaml").write_text("rank: none\n")
    with pytest.raises(UsageError, match=r"forge.yaml:1: rank: .* not 'none'"):
        resolve({}, project=tmp_path, environ={})
    (tmp_path / "forge.yaml").write_text("rank: [1\n")
    with pytest.raises(UsageError, match="not YAML"):
        resolve({}, project=tmp_path, environ={})
    with pytest.raises(UsageError, match="flag: init"):
        resolve({"init": "svd"}, project=tmp_path / "none", environ={})


def test_every_setting_is_documented() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_a_run_directory_is_taken_up_only_with_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "run"
    run = RunDir.open(path, {"rank": 8, "seed": 0}, source="repo")
    run.finish("mine", chunks=3)
    again = RunDir.open(path, {"rank": 8, "seed": 0}, source="repo")
    assert again.is_done("mine") and not again.is_done("raft")
    with pytest.raises(UsageError, match="rank 8 → 16"):
        RunDir.open(path, {"rank": 16, "seed": 0}, source="repo")
    with pytest.raises(UsageError, match="source repo → other"):
        RunDir.open(path, {"rank": 8, "seed": 0}, source="other")
    fresh = RunDir.open(path, {"rank": 16, "seed": 0}, source="repo", fresh=True)
    assert not fresh.is_done("mine")


def test_only_runs_are_cleared_and_broken_ones_named(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(UsageError, match="not a run directory"):
        RunDir.open(tmp_path, {}, fresh=True)
    with pytest.raises(UsageError, match="not a run directory"):
        RunDir.open(tmp_path, {})
    assert (tmp_path / "precious.txt").exists()
    (tmp_path / "run.json").write_text(json.dumps({})[:-1])
    with pytest.raises(ForgeError, match=r"run.json:1"):
        RunDir.load(tmp_path)


def test_one_process_at_a_time_works_in_a_run(tmp_path: Path) -> None:
    run = RunDir.open(tmp_path / "run", {}, source="repo")
    other = (
        "import sys; from pathlib import Path; from forge_cli.core.run_dir import RunDir\n"
        "with RunDir.load(Path(sys.argv[1])).locked(): print('in')"
    )
    args = [sys.executable, "-c", other, str(run.path)]
    with run.locked():
        busy = subprocess.run(args, capture_output=True, text=True, check=False)
        with pytest.raises(ForgeError, match="another forge works"):
            RunDir.open(run.path, {"rank": 1}, fresh=True)
    assert busy.returncode == 1 and "another forge works in this run" in busy.stderr
    free = subprocess.run(args, capture_output=True, text=True, check=False)
    assert free.stdout == "in\n"


def test_a_named_pipe_is_written_to_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    with atomic_file(pipe) as stream:
        stream.write(b"whole")
    assert reader.communicate(timeout=60)[0] == b"whole"
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


def test_a_folder_is_not_written_over(tmp_path: Path) -> None:
    with pytest.raises(ForgeError, match="cannot write"), atomic_file(tmp_path) as stream:
        stream.write(b"x")


def test_a_run_in_which_nothing_is_done_takes_other_settings(tmp_path: Path) -> None:
    RunDir.open(tmp_path / "run", {"rank": 8}, source="repo")
    again = RunDir.open(tmp_path / "run", {"rank": 16}, source="other")
    assert again.state["settings"] == {"rank": 16} and again.state["source"] == "other"
