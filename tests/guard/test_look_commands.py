"""`forge guard once|status|history`: what they print, and what they refuse."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import typer

from forge_cli.cli import guard_look as commands
from forge_cli.core.errors import Busy, UsageError
from forge_cli.guard.records import Cycle, Drift
from forge_cli.guard.state import Guarded
from forge_cli.models import llamacpp


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that is held back for ever, and the file that guards it."""
    repo = tmp_path / "repo"
    subprocess.run(["git", "init", "-q", str(repo)], check=True)
    (repo / "a.py").write_text('def f(x):\n    """Doubles."""\n    return 2 * x\n')
    (tmp_path / "guard.yaml").write_text(
        'repositories: [{path: repo, name: mine}]\nhold_while: {hours: ["00:00-24:00"]}\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORGE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("FORGE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_status_says_why(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands.status()
    out = capsys.readouterr().out
    assert out.startswith(f"mine: {place.resolve() / 'repo'}\n  served: nothing is deployed yet\n")
    assert "asks  first: no model is deployed yet" in out
    assert "holds  hold_while.hours: quiet hours 00:00-24:00" in out
    assert not (place / "repo" / ".forge").exists(), "it only looks"
    commands.status(place="mine", json_lines=True)
    told = json.loads(capsys.readouterr().out)
    assert told["drift"]["share"] == 1.0 and told["decision"]["held"] and told["guardian"] is None


def test_a_name_that_could_not_be_deployed_is_told_before_training(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = place / "guard.yaml"
    file.write_text(file.read_text().replace("name: mine", "name: my repo"))
    commands.status()
    assert "holds  deploy: --name my repo: the model 'my repo' is not" in capsys.readouterr().out


def test_without_llama_cpp_nothing_is_trained_that_must_be_checked_by_it(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llamacpp, "wheel_root", lambda: None)
    commands.status()
    assert "holds  deploy: llama.cpp is not installed" in capsys.readouterr().out
    file = place / "guard.yaml"
    file.write_text(file.read_text() + "quality_gates: {parity: false}\n")
    commands.status()
    assert "llama.cpp is not installed" not in capsys.readouterr().out


def test_a_folder_without_a_file_is_guarded_by_the_defaults(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "guard.yaml").unlink()
    commands.status(place="repo")
    assert capsys.readouterr().out.startswith(f"repo: {place.resolve() / 'repo'}\n")
    with pytest.raises(UsageError, match="no such file"):
        commands.status(config=Path("other.yaml"))


def test_once_that_is_held_back_trains_nothing(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.once(json_lines=True)
    cycle = json.loads(capsys.readouterr().out)
    assert cycle["outcome"] == "held" and cycle["name"] == "mine"
    guarded = Guarded(place.resolve() / "repo", "mine")
    assert not guarded.runs.exists() and [one.outcome for one in guarded.cycles()] == ["held"]
    with guarded.locked(), pytest.raises(Busy, match="another guardian works on it"):
        commands.once()


def test_one_that_fails_keeps_no_other_from_being_looked_at(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "empty").mkdir()
    file = place / "guard.yaml"
    file.write_text(file.read_text().replace("[{path", "[{path: empty}, {path"))
    with pytest.raises(typer.Exit) as ended:
        commands.once()
    assert ended.value.exit_code == 1
    assert [one.outcome for one in Guarded(place.resolve() / "repo", "").cycles()] == ["held"]
    with pytest.raises(typer.Exit):
        commands.status()
    told = capsys.readouterr()
    assert told.out.startswith("mine: ") and told.err.count("warning: empty: ") == 2


def test_history(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="nothing was measured yet"):
        commands.history(plot=place / "drift.svg")
    guarded = Guarded(place.resolve() / "repo", "mine")
    drift = Drift(
        time="2026-03-02T12:00:00+00:00", commit="1a2b3c4d5e", symbols=10, added=2, changed=0,
        gone=0, share=0.2,
    )  # fmt: skip
    told = {"repository": "repo", "name": "mine", "started": drift.time, "drift": drift}
    for number, outcome in enumerate(("deployed", "nothing to do", "refused")):
        guarded.add(
            Cycle(
                id=str(number), outcome=outcome, error="2 of 5 gates; more" * (number == 2), **told
            )
        )
    guarded.add(drift)
    commands.history(plot=place / "drift.svg")
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [(row[2], row[3], row[5], row[8]) for row in rows] == [
        ("1a2b3c4", "drift 0.200", "refused", "2 of 5 gates"),
        ("1a2b3c4", "drift 0.200", "deployed", ""),
    ]
    assert "<svg" in (place / "drift.svg").read_text()
    commands.history(every=True, json_lines=True)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_what_is_refused(place: Path) -> None:
    with pytest.raises(UsageError, match="other: not guarded by") as error:
        commands.status(place="other")
    assert error.value.hint == "it guards: mine"
    with pytest.raises(UsageError, match="no such file"):
        commands.once(config=Path("missing.yaml"))


@pytest.mark.parametrize("outcome, code", [("refused", 3), ("failed", 1), ("deployed", 0)])
def test_exit_codes(place: Path, monkeypatch: pytest.MonkeyPatch, outcome: str, code: int) -> None:
    from forge_cli.guard import cycle

    made = Cycle.model_validate(
        {"id": "1", "repository": "r", "name": "mine", "started": "", "outcome": outcome}
    )
    monkeypatch.setattr(cycle, "look", lambda *_, **__: made)
    if not code:
        commands.once()
        return
    with pytest.raises(typer.Exit) as left:
        commands.once()
    assert left.value.exit_code == code
