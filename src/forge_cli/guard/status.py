"""What `forge guard status` tells: what is served, how far it is from the code, what comes next."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from forge_cli.core.config import resolve
from forge_cli.core.events import Reporter
from forge_cli.guard.adopt import adopt
from forge_cli.guard.config import GuardConfig, Repository, folder_of
from forge_cli.guard.drift import measure
from forge_cli.guard.machine import look as look_at_machine
from forge_cli.guard.records import Cycle, Decision, Drift, Kept
from forge_cli.guard.rules import decide, in_words
from forge_cli.guard.serving import hindrance, target_of
from forge_cli.guard.state import Deployed, Guarded


class Status(Kept):
    """A repository under guard, as it is now.

    Attributes:
        guardian: process that guards it; None: none does. deployed: what is served.
        under_way: a cycle that has not ended, and the last step of it that is done.
        drift, decision: measured now, without loading a model, and what the rules make of it.
        last: the last cycle that did something. says: the decision in one line.
    """

    repository: str
    name: str
    guardian: int | None
    deployed: Deployed | None
    under_way: str = ""
    phase: str = ""
    drift: Drift
    decision: Decision
    says: str
    last: Cycle | None = None


def status(config: GuardConfig, file: Path, repository: Repository, reporter: Reporter) -> Status:
    """Look at a repository without changing anything.

    Raises:
        UsageError: the settings are wrong. ForgeError: it cannot be measured.
    """
    guarded = Guarded(folder_of(repository, file), repository.name)
    state, settings = (
        guarded.load(),
        resolve(repository.settings, project=guarded.repository).settings,
    )
    if state.deployed is None:
        state.deployed = adopt(guarded, settings, reporter)
    drift = measure(
        guarded, state.deployed, config.retrain_when, settings, ask=False, reporter=reporter
    )
    machine, now = look_at_machine(guarded.repository), datetime.now().astimezone()
    hindered = hindrance(config, target_of(config, guarded, settings))
    decision = decide(config, drift, state, machine, now, hindered)
    acted = [one for one in guarded.cycles() if one.outcome not in ("nothing to do", "held")]
    return Status(
        repository=str(guarded.repository), name=guarded.name, guardian=guarded.guardian(),
        deployed=state.deployed, drift=drift, decision=decision, says=in_words(decision),
        under_way=state.cycle.id if state.cycle else "",
        phase=state.phase if state.cycle else "", last=acted[-1] if acted else None,
    )  # fmt: skip


def lines(found: Status) -> list[str]:
    """The status for people."""
    deployed, drift, last = found.deployed, found.drift, found.last
    served = "nothing is deployed yet"
    if deployed:
        served = (
            f"{deployed.version or deployed.run}, of commit {deployed.commit[:7] or '(no git)'}"
        )
        served += f", since {deployed.time[:16].replace('T', ' ')}"
    told = [
        f"{found.name}: {found.repository}",
        f"  served: {served}",
        f"  guardian: {f'process {found.guardian}' if found.guardian else 'none is running'}",
        f"  drift: {drift.share:.3f} ({drift.added} added, {drift.changed} changed, "
        f"{drift.gone} gone of {drift.symbols} symbols)",
    ]
    if drift.new_loss is not None and drift.old_loss is not None:
        told.append(f"  loss: {drift.new_loss:.3f} on new code, {drift.old_loss:.3f} on old")
    if found.under_way:
        told.append(f"  under way: {found.under_way}, after {found.phase!r}; it goes on by itself")
    told.append(f"  {found.says}")
    told += [_reason(one, "asks") for one in found.decision.triggers]
    told += [_reason(one, "holds") for one in found.decision.holds]
    if last:
        told.append(f"  last: {last.id} {last.outcome}" + f": {last.error}" * bool(last.error))
        told += [
            f"    gate {g.name}: {'passed' if g.passed else 'FAILED'}: {g.text}" for g in last.gates
        ]
        if last.report:
            told.append(f"    {last.report}")
    return told


def _reason(reason: Any, verb: str) -> str:
    return f"    {verb if reason.says else '–':>5}  {reason.rule}: {reason.text}"
