"""Runs at a glance: what is listed, shown and compared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.run_dir import RunDir
from forge_cli.runs import compare, find_runs, summary


def run(folder: Path, name: str, rank: int, f1: float, **metrics: object) -> RunDir:
    found = RunDir.open(folder / name, {"model": "tiny", "rank": rank}, source="repo")
    one = {"base": 0.1, "tuned": f1, "difference": f1 - 0.1, "low": 0.0, "high": 1.0, "n": 9}
    found.record(eval={"raft": {"answer_f1": one}}, **metrics)
    return found


def test_runs_side_by_side(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no runs here"):
        find_runs(tmp_path / "none")
    verdict = {"outcome": "better", "reasons": ["raft answer_f1"]}
    old = run(tmp_path, "old", 4, 0.5, verdict=verdict, deploy={"name": "n", "dry_run": True})
    new = run(tmp_path, "new", 8, 0.75, deploy={"name": "n", "version": "n:v2", "dry_run": False})
    new.record(eval={**new.state["metrics"]["eval"], "latency": {"token_seconds": {"tuned": 2.0}}})
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "run.json").write_text("[]")
    assert [one.path.name for one in find_runs(tmp_path)] == ["new", "old"]
    short = summary(old)
    assert (short["verdict"], short["reasons"]) == ("better", ["raft answer_f1"])
    assert short["deployed"] is None, "a dry run serves nothing"
    assert summary(new)["deployed"]["version"] == "n:v2"
    both = compare(old, new)
    assert both["settings"] == [{"name": "rank", "first": 4, "second": 8}]
    f1, latency = both["metrics"]
    assert f1 == {"name": "raft.answer_f1", "first": 0.5, "second": 0.75, "difference": 0.25}
    assert latency["first"] is None and latency["difference"] is None
    assert f"--side {new.path}" in both["notes"][0]


def test_the_command_lists_a_repository_or_a_folder(tmp_path: Path) -> None:
    run(tmp_path / ".forge" / "runs", "one", 4, 0.5)
    forge = [sys.executable, "-m", "forge_cli", "runs", "ls"]
    lines = subprocess.run([*forge, str(tmp_path)], capture_output=True, text=True, check=True)
    assert lines.stdout == "one\t-\t-\ttiny\n" and "next: forge runs show " in lines.stderr
    inside = [*forge, "--json", str(tmp_path / ".forge" / "runs")]
    rows = subprocess.run(inside, capture_output=True, text=True, check=True)
    assert [row["name"] for row in json.loads(rows.stdout)] == ["one"]


def test_a_broken_run_can_be_started_over(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for text in ("{", "[]", '{"settings": {}}'):
        (run / "run.json").write_text(text)
        with pytest.raises(ForgeError) as told:
            RunDir.load(run)
        assert told.value.hint == "start over with --fresh"
        assert RunDir.open(run, {"model": "m"}, fresh=True).state["settings"] == {"model": "m"}
