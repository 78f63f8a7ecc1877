"""`forge guard rollback`: the version before, by a user's word."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from forge_cli.cli import guard_look as commands
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.run_dir import RunDir
from forge_cli.guard.records import Cycle, Drift
from forge_cli.guard.rollback import rollback_command
from forge_cli.guard.state import Deployed, Guarded, State
from tiny_served import tiny_gguf


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guarded:
    """A folder that serves `two`, of a run that went on from that of `one`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORGE_DATA", str(tmp_path / "data"))
    subprocess.run(["git", "init", "-q", "repo"], check=True)
    (tmp_path / "guard.yaml").write_text("repositories: [{path: repo}]\ndeploy: {to: directory}\n")
    kept = Guarded(tmp_path / "repo", "repo")
    before = ""
    for name, share in (("one", 1.0), ("two", 0.2)):
        run = RunDir.open(kept.runs / name, {}, {}, source="repo")
        (kept.folder / "served" / name).mkdir(parents=True)
        drift = Drift(time="", commit=name, symbols=5, added=1, changed=0, gone=0, share=share)
        cycle = Cycle(
            id=name, repository=str(kept.repository), name="repo", started="2026-03-02T12:00:00",
            outcome="deployed", run=str(run.path), before=before, version=name, drift=drift,
        )  # fmt: skip
        kept.add(cycle)
        before = str(run.path)
    (kept.folder / "served" / "current").symlink_to("two")
    kept.save(State(deployed=Deployed(run=before, version="two", commit="two")))
    return kept


def test_the_version_before_is_served_and_what_was_left_is_not_trained_again(
    guarded: Guarded, capsys: pytest.CaptureFixture[str]
) -> None:
    served = guarded.folder / "served"
    tiny_gguf(served / "one")
    commands.rollback(json_lines=True)
    cycle = json.loads(capsys.readouterr().out)
    assert (cycle["outcome"], cycle["version"]) == ("rolled back", "one")
    assert str((served / "current").readlink()) == "one" and not (served / "two").exists()
    state = guarded.load()
    assert state.deployed and state.deployed.run == str(guarded.runs / "one")
    assert (state.refused, state.refused_share) == ("two", 0.2)
    assert guarded.cycles("rolled back")[0].id == cycle["id"]
    assert "by forge guard rollback" in Path(cycle["report"]).with_suffix(".md").read_text()


def test_where_nothing_before_it_answers_nothing_is_changed(guarded: Guarded) -> None:
    before = guarded.load()
    with pytest.raises(ForgeError, match="no version before two that answers"):
        commands.rollback()
    assert guarded.load() == before and not guarded.cycles("rolled back")


def test_what_cannot_be_gone_back_from(guarded: Guarded) -> None:
    state = guarded.load()
    guarded.save(state.model_copy(update={"cycle": guarded.cycles()[0]}))
    with pytest.raises(UsageError, match="one: a retraining is under way"):
        commands.rollback()
    guarded.save(State())
    with pytest.raises(UsageError, match="nothing is deployed"):
        commands.rollback()


def test_the_command_that_reports_name() -> None:
    assert rollback_command(Path("/a/guard.yaml"), "mine") == "forge guard rollback mine"
    assert (
        rollback_command(Path("/a/b.yaml"), "my own") == "forge guard rollback 'my own' -c b.yaml"
    )
