"""The rules of guard.yaml: what asks for a retraining, what holds it back, and until when."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from forge_cli.guard import machine as machine_
from forge_cli.guard.config import GuardConfig
from forge_cli.guard.machine import Machine
from forge_cli.guard.records import Decision, Drift
from forge_cli.guard.rules import ASK_AGAIN, decide, in_words, next_look, span
from forge_cli.guard.state import Deployed, Spent, State

# A Thursday, in a zone that is not the machine's.
NOW = datetime(2026, 11, 26, 14, 5, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
ON_POWER = Machine(on_battery=False, idle_seconds=3600.0, uncommitted=0)


def config(**sections: Any) -> GuardConfig:
    return GuardConfig.model_validate({"repositories": [{"path": "."}], **sections})


def drift(**values: Any) -> Drift:
    known = {"symbols": 120, "added": 9, "changed": 3, "gone": 2, "share": 14 / 120}
    return Drift(**{"time": "2026-11-26T08:00:00+00:00", "commit": "1a2b3c4d5e", **known, **values})


def decided(
    sections: dict[str, Any] | None = None,
    found: Drift | None = None,
    machine: Machine = ON_POWER,
    **state: Any,
) -> Decision:
    state.setdefault("deployed", Deployed(run="runs/one"))
    return decide(config(**sections or {}), found or drift(), State(**state), machine, NOW)


def said(decision: Decision) -> dict[str, tuple[bool, str]]:
    return {r.rule: (r.says, r.text) for r in [*decision.triggers, *decision.holds]}


def test_what_is_not_set_says_nothing() -> None:
    quiet = {
        "retrain_when": {"drift": None},
        "hold_while": {"on_battery": False},
    }
    decision = decided(quiet)
    assert set(said(decision)) == {"budget.retrainings", "budget.time"}
    assert not decision.wanted and not decision.held and not decision.go
    assert in_words(decision) == "no retraining: no rule asks for one"


@pytest.mark.parametrize(
    ("when", "values", "says", "text"),
    [
        ({}, {}, True, "drift 0.117 (14 of 120 symbols) is over 0.1"),
        ({"drift": 0.2}, {}, False, "drift 0.117 (14 of 120 symbols) is not over 0.2"),
        ({"loss": 0.3}, {"new_loss": 1.5, "old_loss": 1.0, "new_rows": 20, "old_rows": 30}, True,
         "loss 1.500 on new code (20 rows), 1.000 on old (30): worse by 0.5, over 0.3"),
        ({"loss": 0.3}, {"new_loss": 1.0, "old_loss": 1.5}, False,
         "loss 1.000 on new code (0 rows), 1.500 on old (0): worse by -0.5, not over 0.3"),
        ({"loss": 0.3}, {"new_loss": 1.5}, False, "loss on new and old code was not measured"),
        ({"score": 0.1}, {"new_score": 0.4, "old_score": 0.6, "new_rows": 9, "old_rows": 8}, True,
         "score 0.400 on new code (9 rows), 0.600 on old (8): worse by 0.2, over 0.1"),
        ({"tags": ["v*"]}, {"tags": ["nightly", "v2.0"]}, True, "new tag: v2.0"),
        ({"tags": ["v*"]}, {"tags": ["nightly"]}, False, "no new tag, by v*"),
        ({"paths": ["auth/", "*.sql"]}, {"paths": ["a.py", "db/x.sql", "src/auth/deep/b.py"]}, True,
         "critical path changed: db/x.sql, src/auth/deep/b.py"),
        ({"paths": ["/auth/"]}, {"paths": ["src/auth/b.py"]}, False,
         "no critical path changed, by /auth/"),
        ({"corrections": 3}, {"corrections": 3}, True,
         "3 answers were corrected, 3 ask for a retraining"),
    ],
)  # fmt: skip
def test_triggers(when: dict[str, Any], values: dict[str, Any], says: bool, text: str) -> None:
    rule = next(iter(when), "drift")
    if rule != "drift":
        when = {**when, "drift": None}
    decision = decided({"retrain_when": when}, drift(**values))
    assert said(decision)[f"retrain_when.{rule}"] == (says, text)
    assert decision.wanted is says and decision.go is says


def test_mode_follows_from_the_drift() -> None:
    first = decided(deployed=None, found=drift(share=1.0))
    assert [r.rule for r in first.triggers] == ["first"] and first.go and first.mode == "first"
    assert decided().mode == "incremental"
    assert decided(found=drift(share=0.5)).mode == "afresh"
    assert in_words(first) == "retraining (first): no model is deployed yet"


@pytest.mark.parametrize(
    ("hours", "says", "text", "end"),
    [
        (["mon-fri 09:00-18:00"], True,
         "quiet hours mon-fri 09:00-18:00: it is Thu 14:05, over at 18:00", (26, 18, 0)),
        # One that begins before another ends, past midnight.
        (["thu 09:00-18:00", "17:30-06:00"], True,
         "quiet hours thu 09:00-18:00: it is Thu 14:05, over at Fri 06:00", (27, 6, 0)),
        (["wed 20:00-14:06"], True,
         "quiet hours wed 20:00-14:06: it is Thu 14:05, over at 14:06", (26, 14, 6)),
        (["00:00-24:00"], True, "quiet hours 00:00-24:00: it is Thu 14:05, never over", None),
        (["sat-sun 00:00-24:00"], False,
         "not in quiet hours sat-sun 00:00-24:00: it is Thu 14:05", None),
    ],
)  # fmt: skip
def test_quiet_hours(
    hours: list[str], says: bool, text: str, end: tuple[int, int, int] | None
) -> None:
    decision = decided({"hold_while": {"hours": hours}})
    assert said(decision)["hold_while.hours"] == (says, text)
    assert decision.held is says and decision.go is not says
    look = next_look(decision, NOW)
    if end:
        day, hour, minute = end
        assert look == NOW.replace(day=day, hour=hour, minute=minute, second=0)
        assert "no retraining yet: quiet hours" in in_words(decision)
    else:
        assert look is None


def test_machine_and_user() -> None:
    hold = {"hold_while": {"active": "5m", "uncommitted": True}}
    busy = decided(hold, machine=Machine(on_battery=True, idle_seconds=130.0, uncommitted=2))
    assert said(busy)["hold_while.on_battery"] == (True, "on battery")
    assert said(busy)["hold_while.active"] == (True, "the user was active 2m ago, within 5m")
    assert said(busy)["hold_while.uncommitted"] == (True, "2 files are not committed")
    # It ends by a commit, which is noticed: no time to wake at.
    assert busy.held and next_look(busy, NOW) is None
    busy = decided(hold, machine=Machine(on_battery=True, idle_seconds=130.0, uncommitted=0))
    assert next_look(busy, NOW) == NOW + ASK_AGAIN
    active = decided(hold, machine=Machine(on_battery=False, idle_seconds=130.0, uncommitted=0))
    assert next_look(active, NOW) == NOW + timedelta(seconds=170)

    unknown = decided(hold, machine=Machine())
    assert unknown.go
    texts = [r.text for r in unknown.holds if r.rule.startswith("hold_while")]
    assert len(texts) == 3 and all(text.endswith("is not known") for text in texts)


def ago(hours: float, seconds: float = 0.0) -> Spent:
    # In UTC, as it is written down.
    return Spent(time=(NOW - timedelta(hours=hours)).astimezone(UTC).isoformat(), seconds=seconds)


def test_budget_of_24_hours() -> None:
    two = {"budget": {"retrainings": 2, "time": "1h"}}
    # Those of yesterday, and of a clock that was set back, do not count.
    free = decided(two, spent=[ago(25), ago(23), ago(-30)])
    assert said(free)["budget.retrainings"] == (
        False, "1 of 2 retrainings in 24 hours are spent",
    )  # fmt: skip
    full = decided(two, spent=[ago(20), ago(2), ago(23)])
    assert said(full)["budget.retrainings"] == (
        True, "3 of 2 retrainings in 24 hours are spent, more from Thu 18:05",
    )  # fmt: skip
    assert full.held and next_look(full, NOW) == NOW + timedelta(hours=4)

    slow = decided(two, spent=[ago(10, 3000.0)])
    assert said(slow)["budget.time"] == (False, "50m of 1h of retraining in 24 hours are spent")
    slow = decided(two, spent=[ago(10, 3700.0)])
    assert said(slow)["budget.time"] == (
        True, "1h 1m of 1h of retraining in 24 hours are spent, more from Fri 04:05",
    )  # fmt: skip
    assert next_look(slow, NOW) == NOW + timedelta(hours=14)
    never = decided({"budget": {"retrainings": 0}})
    assert never.held and next_look(never, NOW) is None


def test_a_refused_commit_waits_for_another() -> None:
    refused = decided(refused="1a2b3c4d5e")
    text = "the model of commit 1a2b3c4 was refused: a new commit is waited for, "
    text += "or forge guard once --force"
    assert said(refused)["refused"] == (True, text)
    assert refused.wanted and refused.held and next_look(refused, NOW) is None
    assert decided(refused="1a2b3c4d5e", found=drift(commit="2b")).go
    # Outside of git no commit is known, and none was refused.
    assert decided(refused="", found=drift(commit="")).go


def test_suspicious_files_are_named_and_hold_nothing() -> None:
    decision = decided(found=drift(suspicious=["a.py: 9 errors", "b.py: empty", "c", "d"]))
    assert decision.go
    assert said(decision)["suspicious"] == (
        False,
        "looks broken, which the gates judge: a.py: 9 errors; b.py: empty; c and 1 more",
    )


def test_spans_read_as_people_say_them() -> None:
    told = [span(seconds) for seconds in (0, 59, 60, 3599, 3600, 12_000, 172_800, 180_000)]
    assert told == ["0s", "59s", "1m", "59m", "1h", "3h 20m", "2d", "2d 2h"]


# As `man pmset` and Apple's IOKit print it; Forge has not run on a Mac.
PMSET_BATTERY = """Now drawing from 'Battery Power'
 -InternalBattery-0 (id=21430371)\t83%; discharging; 5:12 remaining present: true
"""
PMSET_POWER = """Now drawing from 'AC Power'
 -InternalBattery-0 (id=21430371)\t100%; charged; 0:00 remaining present: true
"""
IOREG = """+-o IOHIDSystem  <class IOHIDSystem, id 0x100000450, registered, matched, active, busy 0>
    {
      "HIDServiceSupport" = Yes
      "HIDIdleTime" = 7213456125
      "HIDScrollCountMap" = "1,4"
    }
"""


def test_output_of_a_mac() -> None:
    assert machine_.of_pmset(PMSET_BATTERY) is True
    assert machine_.of_pmset(PMSET_POWER) is False
    assert machine_.of_pmset("Now drawing from 'UPS Power'\n") is False
    assert machine_.of_pmset("") is None
    assert machine_.of_ioreg(IOREG) == pytest.approx(7.213, abs=1e-3)
    assert machine_.of_ioreg("") is None


def supply(folder: Path, name: str, **lines: str) -> None:
    (folder / name).mkdir()
    for key, value in lines.items():
        (folder / name / key).write_text(value + "\n")


def test_power_supplies_of_linux(tmp_path: Path) -> None:
    assert machine_.of_supplies(tmp_path / "none") is None
    assert machine_.of_supplies(tmp_path) is False
    supply(tmp_path, "mouse", type="Battery", scope="Device", status="Discharging")
    assert machine_.of_supplies(tmp_path) is False
    supply(tmp_path, "BAT0", type="Battery", status="Discharging", scope="System")
    assert machine_.of_supplies(tmp_path) is True
    supply(tmp_path, "AC", type="Mains", online="0")
    assert machine_.of_supplies(tmp_path) is True
    (tmp_path / "BAT0" / "status").write_text("Not charging\n")
    supply(tmp_path, "usbc", type="USB", online="1")
    assert machine_.of_supplies(tmp_path) is False


SESSIONS = """Type=wayland
IdleHint=yes
IdleSinceHint=1795694400000000

Type=tty
IdleHint=no
IdleSinceHint=1795694460000000
"""


def test_sessions_and_terminals_of_linux(tmp_path: Path) -> None:
    assert machine_.of_sessions(SESSIONS, 1795694700.0) == 300.0
    assert machine_.of_sessions(SESSIONS.replace("yes", "no"), 1795694700.0) == 0.0
    # A desktop that never spoke to logind.
    told = SESSIONS.replace("yes", "no").replace("1795694400000000", "0")
    assert machine_.of_sessions(told, 1795694700.0) is None
    typed = [tmp_path / "0", tmp_path / "1"]
    for file, when in zip(typed, (1000.0, 1600.0), strict=True):
        file.touch()
        os.utime(file, (when, when))
    assert machine_.of_terminals([*typed, tmp_path / "closed"], 1660.0) == 60.0
    assert machine_.of_terminals([], 1660.0) is None


def test_the_machine_here_is_looked_at(tmp_path: Path) -> None:
    found = machine_.look(tmp_path)
    assert found.on_battery in (True, False, None) and found.uncommitted is None
    assert found.idle_seconds is None or found.idle_seconds >= 0


@pytest.mark.parametrize("share, held", [(0.12, True), (0.169, True), (0.17, False), (0.4, False)])
def test_after_a_refusal_more_drift_is_waited_for(share: float, held: bool) -> None:
    decision = decided(found=drift(share=share), refused="another", refused_share=0.12)
    text = "a model was refused at drift 0.12: the next one is tried at 0.17"
    assert said(decision)["refused"] == (held, text) and decision.held == held


@pytest.mark.parametrize("refused, share", [(0.97, 0.985), (1.0, 1.0)])
def test_a_refusal_of_nearly_all_can_end(refused: float, share: float) -> None:
    waits = decided(found=drift(share=refused - 0.01), refused="another", refused_share=refused)
    tried = decided(found=drift(share=share), refused="another", refused_share=refused)
    assert waits.held and tried.go


def test_a_model_that_could_not_be_served_is_not_trained() -> None:
    told = "no Ollama server at http://127.0.0.1:1: start it, or deploy to: directory"
    decision = decide(
        config(), drift(), State(deployed=Deployed(run="runs/one")), ON_POWER, NOW, told
    )
    assert decision.wanted and decision.held and not decision.go
    assert said(decision)["deploy"] == (True, told)
    assert next_look(decision, NOW) == NOW + ASK_AGAIN
