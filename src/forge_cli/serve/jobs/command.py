"""What a job runs: the ordinary commands, in a folder of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from math import isfinite
from pathlib import Path

import yaml

from forge_cli.core.accelerator import VARIABLE
from forge_cli.core.config import Settings
from forge_cli.core.errors import UsageError
from forge_cli.serve.jobs.attempt import Begin
from forge_cli.serve.jobs.job import Job
from forge_cli.serve.jobs.sources import Allowed, is_git, prepare
from forge_cli.serve.jobs.store import JobStore

FORGE = [sys.executable, "-m", "forge_cli"]
_CLONE = [sys.executable, "-m", "forge_cli.serve.jobs.clone"]


def commands_of(job: Job, source: str, folder: Path) -> list[list[str]]:
    """The commands of a job, one after the other; each resumes what it began before.

    Args:
        source: the folder or the file of examples, on this machine.
        folder: of the job; the run directory is `run` in it.
    """
    run = str(folder / "run")
    train = [*FORGE, "train", source, "--run", run, "--json"]
    commands = [[*_CLONE, job.spec.source, source]] if is_git(job.spec.source) else []
    if job.spec.deploy:
        return [*commands, [*train, "--deploy", job.spec.deploy]]
    if job.spec.export:
        return [*commands, train, [*FORGE, "export", run, "--json"]]
    return [*commands, train]


def environment_of(job: Job, *, execute: bool = False) -> dict[str, str]:
    """The job's options as `FORGE_*` variables: not in the list of processes, unlike flags."""
    told = {}
    for name, value in check_options(job.spec.options, execute=execute).items():
        told[f"FORGE_{name.upper()}"] = value if isinstance(value, str) else json.dumps(value)
    return told


def begin_with(home: Path, allowed: Allowed, store: JobStore) -> Begin:
    """What a worker begins a job with: the ordinary pipeline, in turns on the accelerator."""

    def begin(job: Job, folder: Path) -> tuple[list[list[str]], Mapping[str, str]]:
        validation, options = job.spec.validation, job.spec.options
        source = prepare(
            job.spec.source, folder, allowed, store, validation=validation, options=options
        )
        turns = {VARIABLE: str(home / "accelerator.lock")}
        # A user's own file may allow it to commands by hand, which is no word about jobs.
        told = {} if allowed.execute else {"FORGE_EXECUTE": "false"}
        told |= environment_of(job, execute=allowed.execute)
        return commands_of(job, source, folder), told | turns

    return begin


# Which would run code of the repository or reach other machines.
FORBIDDEN = {"execute", "test_command", "hosts", "host", "teacher_url"}
# Of these, what a worker that was started to allow it lets jobs have.
EXECUTING = {"execute", "test_command"}


def check_options(options: dict[str, object], *, execute: bool = False) -> dict[str, object]:
    """The options, if each is a setting that a job may have and the values are right.

    Args:
        execute: those that let generated code run are open, too.

    Raises:
        UsageError: one is unknown, forbidden, or of a wrong value; which is said.
    """
    from forge_cli.core.config import checked

    for name in options:
        if name in FORBIDDEN - (EXECUTING if execute else set()):
            raise UsageError(f"options.{name}: not open to jobs", "start forge train by hand")
        if name not in Settings.model_fields:
            raise UsageError(f"options.{name}: unknown setting", "see: forge config show")
    read = checked(options, dict.fromkeys(options, "options")).model_dump(include=set(options))
    for name, value in read.items():
        if any(isinstance(one, float) and not isfinite(one) for one in _each(value)):
            # "1e999" is a number that no record can hold.
            raise UsageError(f"options.{name}: not a finite number", "give a smaller one")
    for name, value in options.items():
        if isinstance(value, str) and not _reads_alike(value):
            options = options | {name: json.dumps(value)}
    return options


def _each(value: object) -> Iterable[object]:
    return value if isinstance(value, list) else [value]


def _reads_alike(text: str) -> bool:
    """Whether the environment reads it as it was sent."""
    try:
        return bool(yaml.safe_load(text) == text)
    except yaml.YAMLError:
        return False
