"""One look at a repository: measure, decide, and if need be retrain, judge, export and deploy.

What is done is written down before the next step begins, so that a guardian that is killed goes on
where it was, with the old model served until the new one has passed everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from forge_cli import pipeline
from forge_cli.core.config import Resolved, parse_duration, resolve
from forge_cli.core.errors import ForgeError, GateFailed
from forge_cli.core.events import Reporter
from forge_cli.core.run_dir import RunDir
from forge_cli.guard.adopt import adopt
from forge_cli.guard.config import GuardConfig, Repository, folder_of
from forge_cli.guard.drift import drift_plot, measure, remember
from forge_cli.guard.gates import advice, hold, parity, sound
from forge_cli.guard.machine import Machine
from forge_cli.guard.machine import look as look_at_machine
from forge_cli.guard.records import Cycle, Decision, Drift, Gate, Outcome
from forge_cli.guard.reports import write_reports
from forge_cli.guard.rollback import Rollback, rollback_command
from forge_cli.guard.rules import decide
from forge_cli.guard.service import fit_there
from forge_cli.guard.serving import Served, Target, hindrance, target_of
from forge_cli.guard.state import Deployed, Guarded, Phase, Spent, State
from forge_cli.pipeline.update import NothingNew, judge_update, learn_corrections, update

_ATTEMPTS = 3  # of one cycle, before it counts as failed


def look(
    config: GuardConfig,
    file: Path,
    repository: Repository,
    reporter: Reporter,
    *,
    machine: Machine | None = None,
    now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    force: bool = False,
) -> Cycle:
    """Look at a repository once; returns what came of it, which is in the history too.

    Args:
        file: guard.yaml, from whose folder the paths are.
        machine: its power and its user, which rules may ask about (None: it is looked at).
        force: retrain whatever the rules say; gates hold nevertheless.

    Raises:
        Busy: another guardian works on it.
        UsageError: the settings are wrong. ForgeError: it cannot be measured; or retraining is
            forced, and what came of it could not be served.
    """
    guarded = Guarded(folder_of(repository, file), repository.name)
    with guarded.locked():
        found = machine or look_at_machine(guarded.repository)
        return Look(config, file, repository, guarded, reporter, found, now).run(force)


def roll_back(config: GuardConfig, file: Path, repository: Repository, reporter: Reporter) -> Cycle:
    """Serve the version before the deployed one; returns the cycle, which is in the history too.

    Raises:
        Busy: another guardian works on it.
        UsageError: nothing is deployed, or a retraining is under way.
        ForgeError: there is no version before.
    """
    guarded = Guarded(folder_of(repository, file), repository.name)
    with guarded.locked():
        machine, now = look_at_machine(guarded.repository), lambda: datetime.now().astimezone()
        return Look(config, file, repository, guarded, reporter, machine, now).roll_back()


class Look:
    """A look that is under way, in a repository that is locked."""

    def __init__(
        self, config: GuardConfig, file: Path, repository: Repository, guarded: Guarded,
        reporter: Reporter, machine: Machine, now: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self.config, self.file, self.guarded = config, file, guarded
        self.reporter, self.machine, self.now = reporter, machine, now
        self.resolved: Resolved = resolve(repository.settings, project=guarded.repository)
        self.state: State = guarded.load()
        self.target: Target = target_of(config, guarded, self.resolved.settings)

    def run(self, force: bool) -> Cycle:
        """See `look`."""
        if self.state.deployed is None:
            self.state.deployed = adopt(self.guarded, self.resolved.settings, self.reporter)
        if self.state.cycle:
            self.reporter.note(f"{self.state.cycle.id}: goes on after {self.state.phase!r}")
            return self._go_on()
        if rolled := self._smoke():
            return rolled
        drift = self._measure()
        hindered = hindrance(self.config, self.target)
        decision = decide(self.config, drift, self.state, self.machine, self.now(), hindered)
        if force and hindered:
            raise ForgeError(hindered, "nothing was trained, as it could not be served")
        cycle = self._begin(drift, decision)
        if not (decision.go or force):
            return self._end(cycle, "held" if decision.wanted else "nothing to do")
        self.state.cycle, self.state.phase, self.state.attempts = cycle, "begun", 0
        sources = sound(self.config.quality_gates, drift)
        if sources and not sources.passed:
            # Before an hour is spent on it.
            self._note(gates=[sources])
            return self._refuse(GateFailed(sources.text, "mend it, or switch that gate off"))
        self.state.spent.append(Spent(time=self._time()))
        self.guarded.save(self.state)
        return self._go_on()

    def roll_back(self) -> Cycle:
        """See `roll_back`."""
        return self._rolled(self._back.asked_for())

    def _measure(self) -> Drift:
        drift = measure(
            self.guarded, self.state.deployed, self.config.retrain_when, self.resolved.settings,
            reporter=self.reporter,
        ).model_copy(update={"time": self._time()})  # fmt: skip
        remember(self.guarded, drift)
        return drift

    def _begin(self, drift: Drift, decision: Decision) -> Cycle:
        deployed = self.state.deployed
        name = f"{self.now():%Y%m%d-%H%M%S}" + f"-{drift.commit[:7]}" * bool(drift.commit)
        return Cycle(
            id=name, repository=str(self.guarded.repository), name=self.guarded.name,
            started=self._time(), outcome="nothing to do", drift=drift, decision=decision,
            mode=decision.mode, before=deployed.run if deployed else "",
        )  # fmt: skip

    def _go_on(self) -> Cycle:
        """The steps that are not done yet of the cycle in the state."""
        self.state.attempts += 1
        self.guarded.save(self.state)
        if self.state.attempts > _ATTEMPTS:
            return self._fail(f"was begun {_ATTEMPTS} times and never ended: see its log")
        error = self._tried()
        if isinstance(error, NothingNew):
            self.state.refused = self._cycle.drift.commit if self._cycle.drift else ""
            self.reporter.note(error.message)
            return self._end(
                self._cycle.model_copy(update={"error": error.message}), "nothing to do"
            )
        if error is None:
            return self._end(self._cycle, "deployed")
        if isinstance(error, GateFailed):
            return self._refuse(error)
        if error.transient and self.state.attempts < _ATTEMPTS:
            self.reporter.warn(f"{error.message}; tried again at the next look")
            return self._cycle.model_copy(update={"outcome": "failed", "error": error.message})
        return self._fail(f"{error.message}; {error.hint}")

    def _tried(self) -> ForgeError | None:
        """Take the steps; what went wrong, with the time spent however it ended."""
        began = time.monotonic()
        try:
            self._steps()
        except ForgeError as error:
            return error
        except (KeyboardInterrupt, SystemExit):
            self.state.attempts -= 1
            raise
        finally:
            self._spend(time.monotonic() - began)
        return None

    def _steps(self) -> None:
        steps: list[tuple[Phase, Callable[[], None]]] = [
            ("trained", self._train), ("judged", self._judge), ("passed", self._hold),
            ("exported", self._export), ("deployed", self._deploy),
        ]  # fmt: skip
        names = [name for name, _ in steps]
        done = names.index(self.state.phase) + 1 if self.state.phase in names else 0
        for name, step in steps[done:]:
            step()
            # It gets on: what is counted is how often one step was begun.
            self.state.phase, self.state.attempts = name, 1
            self.guarded.save(self.state)

    @property
    def _cycle(self) -> Cycle:
        assert self.state.cycle, "one is under way"
        return self.state.cycle

    @property
    def _run(self) -> RunDir:
        return RunDir.load(self.guarded.runs / self._cycle.id)

    @property
    def _before(self) -> RunDir | None:
        return RunDir.load(Path(self._cycle.before)) if self._cycle.before else None

    def _train(self) -> None:
        path, before = self.guarded.runs / self._cycle.id, self._before
        url = self.config.service
        fit = partial(fit_there, url, reporter=self.reporter) if url else None
        if before is None:
            pipeline.train(
                str(self.guarded.repository), self.resolved, run=path, reporter=self.reporter,
                fit=fit,
            )  # fmt: skip
        else:
            how = self.config.retraining
            update(
                before, self.guarded.repository, path, resolved=self.resolved, replay=how.replay,
                least_share=how.least_share, hold_share=how.hold_share, fit=fit,
                afresh=self._cycle.mode == "afresh", reporter=self.reporter,
            )  # fmt: skip
            # After a first training nobody can have been answered by the model yet.
            learn_corrections(
                RunDir.load(path), self.guarded.repository, self.resolved.settings, self.reporter
            )
        self._note(run=str(path))

    def _judge(self) -> None:
        run, before = self._run, self._before
        if before is None:
            own = run.state["metrics"]["eval"].get("raft", {})
            self._note(comparison={"new": own})
        else:
            found = judge_update(run, before, self.resolved.settings, self.reporter)
            self._note(comparison=found)

    def _hold(self) -> None:
        gates = self.config.quality_gates
        found = hold(gates, self._run, self._cycle.comparison)
        if self._cycle.drift and (sources := sound(gates, self._cycle.drift)):
            found.insert(0, sources)
        self._note(gates=found)
        for gate in found:
            self.reporter.note(
                f"gate {gate.name}: {'passed' if gate.passed else 'FAILED'}: {gate.text}"
            )
        if lost := [gate.name for gate in found if not gate.passed]:
            raise GateFailed(
                f"{self._cycle.id}: {len(lost)} of {len(found)} gates: {', '.join(lost)}",
                "the old model is served as before; see: forge guard status",
            )

    def _export(self) -> None:
        s = self.resolved.settings.model_copy(update={"parity": self.config.quality_gates.parity})
        gates = [gate for gate in self._cycle.gates if gate.name != "parity"]
        try:
            pipeline.export(self._run, s, self.reporter)
        except GateFailed as error:
            self._note(gates=[*gates, Gate(name="parity", passed=False, text=error.message)])
            raise
        if s.parity:
            self._note(gates=[*gates, parity(self._run)])

    def _deploy(self) -> None:
        run = self._run
        served: Served = self.target.deploy(run, self.reporter)
        self._note(
            version=served.version, previous=served.previous or self._cycle.previous,
            smoke={"asked": served.asked, "passed": served.passed},
        )  # fmt: skip
        drift = self._cycle.drift
        known = self.state.deployed.tags if self.state.deployed else []
        taught = self.state.deployed.corrections if self.state.deployed else 0
        self.state.deployed = Deployed(
            run=str(run.path), version=served.version, time=self._time(),
            commit=str(run.state["stages"].get("mine", {}).get("commit", "")),
            tags=sorted({*known, *(drift.tags if drift else [])}),
            corrections=taught + (drift.corrections if drift else 0),
        )  # fmt: skip
        self.state.smoke, self.state.refused, self.state.refused_share = self._time(), "", 0.0

    def _smoke(self) -> Cycle | None:
        """Ask the served model again when it is time; one that fails is rolled back."""
        deployed = self.state.deployed
        if deployed is None or not self._due(self.state.smoke, self.config.deploy.smoke_every):
            return None
        try:
            run = RunDir.load(Path(deployed.run))
        except ForgeError:
            return None  # gone or broken, which measuring tells of
        try:
            self.target.check(run, self.reporter)
        except GateFailed as error:
            return self._rolled(self._back.of_failing(run, error))
        except ForgeError as error:
            self.reporter.warn(f"the served model was not asked: {error.message}")
            return None
        self.state.smoke = self._time()
        self.guarded.save(self.state)
        return None

    @property
    def _back(self) -> Rollback:
        return Rollback(self.guarded, self.state, self.target, self.now, self.reporter)

    def _rolled(self, cycle: Cycle) -> Cycle:
        return self._end(cycle, cycle.outcome)

    def _refuse(self, error: GateFailed) -> Cycle:
        self.reporter.warn(f"not deployed: {error.message}")
        if not self._cycle.before and (hint := advice(self._cycle.gates)):
            self.reporter.note(hint)
        if drift := self._cycle.drift:
            self.state.refused = drift.commit
            # What looked broken may be mended by the next commit, and a first model drifts from
            # nothing: then it is not more that counts.
            judged = self._cycle.run and self._cycle.before
            self.state.refused_share = drift.share if judged else 0.0
        return self._end(self._cycle.model_copy(update={"error": error.message}), "refused")

    def _fail(self, text: str) -> Cycle:
        self.reporter.warn(f"{self._cycle.id}: {text}; the old model is served as before")
        return self._end(self._cycle.model_copy(update={"error": text}), "failed")

    def _end(self, cycle: Cycle, outcome: Outcome) -> Cycle:
        """Into the history with it, and a report where something was done."""
        done = cycle.model_copy(update={"outcome": outcome, "ended": self._time()})
        acted = outcome not in ("nothing to do", "held")
        if acted:
            done = done.model_copy(update={"report": self._report(done)})
        if acted or not self._is_known(done):
            self.guarded.add(done)
        self.state.cycle, self.state.phase, self.state.attempts = None, "begun", 0
        self._prune(done)
        self.guarded.save(self.state)
        return done

    def _is_known(self, cycle: Cycle) -> bool:
        """Whether the last look came to the same over the same files."""
        last = next(reversed(self.guarded.cycles()), None)
        if last is None or last.drift is None or cycle.drift is None:
            return False
        return (last.outcome, last.drift.contents, last.before) == (
            cycle.outcome, cycle.drift.contents, cycle.before
        )  # fmt: skip

    def _report(self, cycle: Cycle) -> str:
        """Its folder; a report that cannot be written undoes nothing of what was done."""
        drifts, own = self.guarded.drifts(), self.config.templates
        try:
            folder = write_reports(
                self.guarded, cycle, drifts=drifts, reporter=self.reporter,
                drift_picture=drift_plot(drifts, [*self.guarded.cycles(), cycle], self.config),
                templates=self.file.parent / own if own else None,
                rollback=rollback_command(self.file, cycle.name),
            )  # fmt: skip
        except Exception as error:
            self.reporter.warn(f"{cycle.id}: no report: {type(error).__name__}: {error}")
            return ""
        return str(folder / "report.html")

    def _prune(self, done: Cycle) -> None:
        """Runs that nothing goes back to are removed; the last one that was refused stays."""
        import shutil

        deployed, made = self.state.deployed, self.guarded.cycles("deployed")
        kept = {Path(done.run).name, Path(done.before).name}
        kept |= {Path(one.run).name for one in self.guarded.cycles("refused")[-1:]}
        if deployed:
            before = [one.before for one in made if one.run == deployed.run][-1:]
            kept |= {Path(one).name for one in (deployed.run, *before)}
        for run in self.guarded.runs.iterdir() if self.guarded.runs.is_dir() else ():
            if run.name not in kept:
                shutil.rmtree(run, ignore_errors=True)

    def _note(self, **facts: object) -> None:
        self.state.cycle = self._cycle.model_copy(update=facts)
        self.guarded.save(self.state)

    def _spend(self, seconds: float) -> None:
        """Onto the last of what was spent; what is older than the budget looks at is forgotten."""
        # Of a cycle that goes on a day later nothing is left there.
        last = self.state.spent.pop() if self.state.spent else Spent(time=self._time())
        self.state.spent.append(last.model_copy(update={"seconds": last.seconds + seconds}))
        day = self.now() - timedelta(hours=24)
        self.state.spent = [
            one for one in self.state.spent if datetime.fromisoformat(one.time) > day
        ]
        if self.state.cycle:
            self._note(seconds=round(self._cycle.seconds + seconds, 1))

    def _due(self, last: str, every: str) -> bool:
        if not last:
            return True
        gone = self.now() - datetime.fromisoformat(last)
        # Less than none: by a clock that was set back since.
        return not timedelta(0) <= gone < timedelta(seconds=parse_duration(every))

    def _time(self) -> str:
        return self.now().isoformat(timespec="seconds")
