"""A budget of time: as many steps as fit, chosen once, and kept by a run that resumes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from forge_cli import pipeline
from forge_cli.core.config import parse_duration, resolve
from forge_cli.core.errors import UsageError
from forge_cli.core.events import Silent, Task
from forge_cli.train.budget import MEASURED, Budget
from forge_cli.train.callbacks.metrics import Metrics, read_rows
from forge_cli.train.callbacks.protocol import Callback, Run, Validation
from forge_cli.train.schedules import Schedule
from forge_cli.train.step import Step
from tiny_loop import batch, same_arrays, train_tiny

PLAN = [[batch(2, context=context)] for context in range(24)]
TOKENS = PLAN[0][0].tokens


class Clock(Callback):
    """Time by decree: each step a second, or more from `slow` on, the first five, each
    validation two."""

    def __init__(self, slow: int = 1000) -> None:
        self.now, self.slow = 0.0, slow

    def __call__(self) -> float:
        return self.now

    def on_step(self, run: Run, step: Step) -> None:
        seconds = 5.0 if step.step == 1 else 1.0 if step.step < self.slow else 2.0
        self.now += seconds
        object.__setattr__(step, "seconds", seconds)

    def on_validation(self, run: Run, validation: Validation) -> None:
        self.now += 2.0
        object.__setattr__(validation, "seconds", 2.0)


class Told:
    def __init__(self, details: list[str]) -> None:
        self.details = details

    def advance(self, amount: float = 1.0, detail: str = "") -> None:
        self.details.append(detail)

    def resize(self, total: float) -> None:
        pass


class Words(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.details: list[str] = []

    @contextmanager
    def task(self, name: str, total: float | None = None) -> Iterator[Task]:
        yield Told(self.details)

    def note(self, message: str) -> None:
        self.said.append(message)

    def warn(self, message: str) -> None:
        self.said.append(message)


def train_for(
    out: Path, seconds: float, *more: Callback, clock: Clock | None = None, **changes: Any
) -> Any:
    clock, words = clock or Clock(), Words()
    budget = Budget(seconds, PLAN, 8, clock=clock)
    schedule = Schedule(3e-3, len(PLAN), MEASURED / len(PLAN))
    settings = {"valid_every": 8, "schedule": schedule, "reporter": words} | changes
    progress, arrays = train_tiny(out, PLAN, Metrics(), clock, budget, *more, **settings)
    return progress, arrays, words.said


def test_as_many_steps_as_fit(tmp_path: Path) -> None:
    """2 s for the first validation, 8 for four steps; of 30.5 s left after a margin of 5 % a
    last validation takes 2, two on the way 2 each, and 18 steps the rest but 0.5."""
    progress, _, said = train_for(tmp_path, 10 + 24.5 / 0.95)
    assert progress.step == progress.planned == 4 + 18
    assert said[0].startswith("budget: 22 of 24 steps fit (1.0 s each); 4 of 48 rows are left out")


def test_no_time_is_told_before_it_is_known(tmp_path: Path) -> None:
    words = Words()
    train_for(tmp_path, 10 + 24.5 / 0.95, reporter=words, budgeted=True)
    told = [detail for detail in words.details if detail]
    known = [detail.endswith(" left") for detail in told]
    assert known == [False] * (MEASURED - 1) + [True] * 19
    assert all(detail.endswith("measuring") for detail in told[: MEASURED - 1])


def test_what_fits_whole_is_trained_whole(tmp_path: Path) -> None:
    progress, _, said = train_for(tmp_path, 1000)
    assert progress.step == len(PLAN)
    assert said[0] == "budget: 24 of 24 steps fit (1.0 s each)"


def test_a_machine_that_becomes_slower_takes_fewer_steps(tmp_path: Path) -> None:
    """At 1 s a step 22 would fit, as above. After 8 steps 17 s are gone, and the last seven took
    10/7 s each: into 18.8 s go two validations and 10 steps. After 16 steps 35 s are gone."""
    clock = Clock(slow=6)
    seconds = 10 + 24.5 / 0.95
    progress, _, said = train_for(tmp_path, seconds, clock=clock)
    assert said[0].startswith("budget: 22 of 24 steps fit (1.0 s each)")
    assert said[1] == "steps take longer than the first ones did"
    assert said[2].startswith("budget: 18 of 24 steps fit (1.4 s each); 12 of 48 rows are left out")
    assert progress.step == progress.planned == 16
    assert clock.now == 37, "one validation too long; 22 steps would have taken 51"


def test_too_little_time_ends_after_the_measured_steps(tmp_path: Path) -> None:
    progress, _, said = train_for(tmp_path, 5)
    assert progress.step == MEASURED
    assert "give more time" in said[0]


def test_the_learning_rate_does_not_jump(tmp_path: Path) -> None:
    train_for(tmp_path, 10 + 12.5 / 0.95)
    rates = [row["learning_rate"] for row in read_rows(tmp_path) if "learning_rate" in row]
    assert rates[:MEASURED] == pytest.approx([3e-3 * (i + 1) / MEASURED for i in range(MEASURED)])
    falls = [b - a for a, b in zip(rates[MEASURED - 1 :], rates[MEASURED:], strict=False)]
    assert all(fall <= 0 for fall in falls)
    assert rates[-1] < 0.1 * 3e-3
    assert min(falls) > -0.6e-3


class Stop(Callback):
    """Ctrl-C before step `at`."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_step(self, run: Run, step: Step) -> None:
        if step.step == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("at", [2, 11])
def test_a_resumed_run_keeps_what_was_chosen(tmp_path: Path, at: int) -> None:
    seconds = 10 + 24.5 / 0.95
    whole, arrays, _ = train_for(tmp_path / "whole", seconds)
    with pytest.raises(KeyboardInterrupt):
        train_for(tmp_path / "cut", seconds, Stop(at), save_every=1)
    # The second session has less on its clock, and its first step is slow no more.
    again, found, said = train_for(tmp_path / "cut", seconds if at < MEASURED else 1.0)
    if at > MEASURED:
        assert again.planned == whole.planned
        assert same_arrays(arrays, found)
        assert not any(words.startswith("budget") for words in said)
    else:
        assert again.planned > 0


@pytest.mark.parametrize(
    "text,seconds", [("90s", 90), ("45m", 2700), ("2h", 7200), ("1h30m", 5400), ("1h1m1s", 3661)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert resolve({"budget": text}, environ={}).settings.budget == text


@pytest.mark.parametrize("text", ["", "m", "45", "1.5h", "0m", "30m2h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_duration(text)


def test_it_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for flags in ({"budget": "0m"}, {"budget": "45m", "steps": 10}):
        with pytest.raises(UsageError, match="budget"):
            pipeline.train(str(tmp_path), resolve(flags, environ={}))
    with pytest.raises(UsageError, match="budget"):
        resolve({"budget": "45 minutes"}, environ={})
    assert not (tmp_path / ".forge").exists()
