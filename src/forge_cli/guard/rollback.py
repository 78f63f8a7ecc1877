"""Back to the version before: because the served model fails its questions, or by a user's word."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from forge_cli.core.errors import ForgeError, GateFailed, UsageError
from forge_cli.core.events import Reporter
from forge_cli.core.run_dir import RunDir
from forge_cli.guard.records import Cycle, Outcome
from forge_cli.guard.serving import Target
from forge_cli.guard.state import Deployed, Guarded, State


def rollback_command(file: Path, name: str) -> str:
    """What a user types in the folder of `file` to go back."""
    other = "" if file.name == "guard.yaml" else f" -c {shlex.quote(file.name)}"
    return f"forge guard rollback {shlex.quote(name)}{other}"


@dataclass(frozen=True)
class Rollback:
    """What a rollback needs; it changes `state`, which the caller saves."""

    guarded: Guarded
    state: State
    target: Target
    now: Callable[[], datetime]
    reporter: Reporter

    def of_failing(self, run: RunDir, why: GateFailed) -> Cycle:
        """The served model failed: the version before, or else the run's own file, is served."""
        self.reporter.warn(f"the served model fails: {why.message}")
        version, told = "", why.message
        try:
            version = self.target.roll_back(self.reporter)
        except ForgeError as error:
            # There is nothing before it; its own file is still what passed the gates.
            self.reporter.note(f"{error.message}; the deployed run's own file is served anew")
            try:
                version = self.target.deploy(run, self.reporter).version
            except ForgeError as worse:
                told = f"{told}; nor can its run's own file be served: {worse.message}"
                self.reporter.warn(f"{told}; train anew: forge guard once --force")
        else:
            self.state.deployed = self._deployed_as(version, str(run.path))
        return self._cycle("rolled back" if version else "failed", str(run.path), version, told)

    def asked_for(self) -> Cycle:
        """A user wants the version before; the code of the one that is left is not trained again.

        Raises:
            UsageError: nothing is deployed, or a retraining is under way.
            ForgeError: there is no version before.
        """
        left = self.state.deployed
        if left is None:
            raise UsageError(f"{self.guarded.repository}: nothing is deployed", "forge guard once")
        if self.state.cycle:
            raise UsageError(
                f"{self.state.cycle.id}: a retraining is under way", "end it: forge guard once"
            )
        version = self.target.roll_back(self.reporter)
        self.state.deployed = self._deployed_as(version, left.run)
        made = [one for one in self.guarded.cycles("deployed") if one.run == left.run]
        drift = made[-1].drift if made else None
        self.state.refused = left.commit
        self.state.refused_share = drift.share if drift and made[-1].before else 0.0
        return self._cycle("rolled back", left.run, version, "by forge guard rollback")

    def _cycle(self, outcome: Outcome, run: str, version: str, told: str) -> Cycle:
        time = self.now().isoformat(timespec="seconds")
        self.state.smoke = time
        return Cycle(
            id=f"{self.now():%Y%m%d-%H%M%S}-back", repository=str(self.guarded.repository),
            name=self.guarded.name, started=time, outcome=outcome, run=run, version=version,
            error=told,
        )  # fmt: skip

    def _deployed_as(self, version: str, failed: str) -> Deployed | None:
        """What is known of a version that is served again; None: its run is gone.

        The one before the first retraining was not deployed by the guardian.
        """
        made = self.guarded.cycles("deployed")
        own = next((one.run for one in reversed(made) if one.version == version), "")
        after = next((one for one in reversed(made) if one.run == failed), None)
        path = own or (after.before if after and after.previous == version else "")
        if not path or not (Path(path) / "run.json").exists():
            self.reporter.warn(f"{version}: its run is gone, so the next one begins afresh")
            return None
        commit = RunDir.load(Path(path)).state["stages"].get("mine", {}).get("commit", "")
        time = self.now().isoformat(timespec="seconds")
        return Deployed(run=path, version=version, time=time, commit=str(commit))
