"""A guardian over a real repository: tiny models trained, judged and served by llama.cpp."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from forge_cli.core.run_dir import RunDir
from forge_cli.guard.records import Cycle
from forge_cli.guard.state import Deployed, Guarded, State
from guarding import Guarding
from tiny_train import save_model

ASKED = {"to": "directory", "smoke_every": "1s"}


class Killed(BaseException):
    """As SIGKILL ends a process: nothing that was not saved is kept."""


def test_a_repository_is_kept_up_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guarding = Guarding(tmp_path, save_model(tmp_path / "model", max_position_embeddings=8192))
    first = guarding.look({"parity": True})
    assert (first.outcome, first.mode) == ("deployed", "first"), first.error
    assert [gate.name for gate in first.gates] == ["sources", "examples", "parity"]
    assert "f16: the likeliest token is that of the trained model" in first.gates[-1].text
    assert guarding.served == first.version == first.id
    for _ in range(2):  # of which one is worth a line
        assert guarding.look().outcome == "nothing to do"
    a_little(guarding)
    second = a_lot(guarding, first)
    refused(guarding, second)
    third = killed(guarding, second, monkeypatch)
    rolled_back(guarding, second, third)
    nothing_older(guarding, first, second)


def a_little(guarding: Guarding) -> None:
    with open(guarding.repository / "part0.py", "a") as stream:
        stream.write("\n\ndef more(limit: int) -> int:\n    return limit\n")
    guarding.commit("a little")
    small = guarding.look()
    assert small.outcome == "nothing to do" and small.drift and 0 < small.drift.share < 0.1
    assert small.decision and "not over 0.1" in small.decision.triggers[0].text


def a_lot(guarding: Guarding, first: Cycle) -> Cycle:
    guarding.add("more", 5)
    second = guarding.look()
    assert (second.outcome, second.mode) == ("deployed", "incremental"), second.error
    assert guarding.served == second.id and second.previous == first.id
    assert second.before == first.run and set(second.comparison) == {"new", "old"}
    run = RunDir.load(Path(second.run))
    assert run.state["settings"]["adapters"] == first.run
    assert guarding.look().outcome == "nothing to do"
    told = [one.outcome for one in guarding.guarded.cycles()]
    assert told == ["deployed", "nothing to do", "nothing to do", "deployed", "nothing to do"]
    assert guarding.told.warnings == []
    report = Path(second.report).read_text()
    assert second.id in report and "forge guard rollback mine" in report and second.seconds > 0
    return second


def refused(guarding: Guarding, second: Cycle) -> None:
    """By what needs no model, by a gate, and not again until something changes."""
    broken = guarding.repository / "part3.py"
    sound = broken.read_text()
    broken.write_text(sound[: len(sound) // 2] + "((((\n")
    guarding.add("extra", 5)
    cycle = guarding.look()
    assert cycle.outcome == "refused" and [g.name for g in cycle.gates] == ["sources"]
    assert "part3.py" in cycle.error and not cycle.run, "nothing was trained"
    broken.write_text(sound)
    guarding.commit("mended")
    cycle = guarding.look({"quotes": 1.0})
    assert cycle.outcome == "refused" and "quotes" in cycle.error and cycle.run
    assert guarding.served == second.id
    held = guarding.look()
    assert held.outcome == "held" and held.decision
    assert guarding.guarded.load().refused_share > 0.1
    assert "was refused" in next(one.text for one in held.decision.holds if one.says)
    assert sum("not deployed" in text for text in guarding.told.warnings) == 2


def killed(guarding: Guarding, second: Cycle, monkeypatch: pytest.MonkeyPatch) -> Cycle:
    """After each step; the old model is served until the new one is, and nothing is done twice."""
    assert guarding.look().outcome == "held"
    guarding.add("further", 3)
    save, seen = Guarded.save, set[str]()

    def stops_after_each(guarded: Guarded, state: State) -> None:
        save(guarded, state)
        if state.cycle and state.phase not in seen and state.phase != "deployed":
            seen.add(state.phase)
            raise Killed

    monkeypatch.setattr(Guarded, "save", stops_after_each)
    times = 0
    while True:
        try:
            cycle = guarding.look()
            break
        except Killed:
            times += 1
            assert guarding.served == second.id
            cut_off = guarding.guarded.load()
            assert cut_off.cycle
            if cut_off.phase == "exported":  # and while its file was being copied
                half = guarding.guarded.folder / "served" / cut_off.cycle.id
                half.mkdir()
                (half / "half.gguf").write_bytes(b"GGUF")
    monkeypatch.undo()
    assert cycle.outcome == "deployed", cycle.error
    assert seen == {"begun", "trained", "judged", "passed", "exported"} and times == len(seen)
    assert guarding.served == cycle.id and cycle.previous == second.id
    return cycle


def rolled_back(guarding: Guarding, second: Cycle, third: Cycle) -> None:
    """A served file that fails its questions; the version before answers them."""
    # A look that does nothing takes nothing away that could be gone back to.
    assert guarding.look().outcome == "nothing to do" and guarding.served == third.id
    spoil(guarding, third.id)
    state = guarding.guarded.load()
    state.smoke = "2036-01-01T00:00:00+00:00"  # by a clock that was wrong
    guarding.guarded.save(state)
    cycle = guarding.look(deploy=ASKED)
    assert cycle.outcome == "rolled back" and cycle.version == second.id
    assert guarding.served == second.id
    state = guarding.guarded.load()
    assert state.deployed and state.deployed.run == second.run
    still = guarding.look(retrain_when={"drift": 0.99})
    assert still.outcome == "nothing to do" and still.drift and still.drift.share > 0.1


def nothing_older(guarding: Guarding, first: Cycle, second: Cycle) -> None:
    """What failed is not gone back to; its own file is served anew, as long as there is one."""
    for version in (first.id, second.id):
        spoil(guarding, version)
    cycle = guarding.look(deploy=ASKED)
    assert cycle.outcome == "rolled back" and cycle.version == second.id, cycle.error
    assert guarding.served == second.id
    shutil.rmtree(guarding.guarded.folder / "served")
    shutil.rmtree(Path(second.run) / "export")
    cycle = guarding.look(deploy=ASKED)
    assert cycle.outcome == "failed" and "nothing is exported" in cycle.error
    # And it is guarded on.
    assert guarding.look(retrain_when={"drift": 0.99}).outcome == "nothing to do"


def spoil(guarding: Guarding, version: str) -> None:
    file = next((guarding.guarded.folder / "served" / version).glob("*.gguf"))
    file.unlink()  # it is the run's file too
    file.write_bytes(b"GGUF, or what is left of it")


def test_a_cycle_that_goes_on_after_a_day_may_fail(tmp_path: Path) -> None:
    guarding = Guarding(tmp_path, tmp_path / "no model")
    cycle = Cycle(
        id="1", repository="", name="mine", started="", outcome="nothing to do",
        before=str(tmp_path / "gone"),
    )  # fmt: skip
    # When it was begun counts no longer.
    guarding.guarded.save(State(cycle=cycle, deployed=Deployed(run=cycle.before)))
    ended = guarding.look()
    assert ended.outcome == "failed" and "not a run directory" in ended.error
    assert guarding.guarded.load().cycle is None
