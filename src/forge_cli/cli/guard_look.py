"""`forge guard once|status|history|rollback`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forge_cli.cli._guard_file import FILE, Config, read
from forge_cli.cli._options import Json, Quiet, Verbose
from forge_cli.cli._output import Output

if TYPE_CHECKING:
    from collections.abc import Callable

    from forge_cli.guard.config import GuardConfig, Repository

Place = Annotated[
    str, typer.Argument(help="One repository of it, by folder or name (default: each).")
]
_ACTED = ("deployed", "refused", "failed", "rolled back")


def once(
    place: Place = "",
    config: Config = FILE,
    force: Annotated[
        bool, typer.Option("--force", help="Retrain whatever the rules say; gates still hold.")
    ] = False,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Look once: measure the drift, and if the rules say so retrain, judge and deploy.

    Exits 3 if a gate refused the new model, 1 if it failed. Example: forge guard once
    """
    output = Output(json_lines=json_lines, quiet=quiet)
    from forge_cli.guard.cycle import look
    from forge_cli.guard.rules import in_words

    found, file, chosen = _read(config, place)

    def look_at(repository: Repository) -> int:
        cycle = look(found, file, repository, output, force=force)
        if json_lines:
            print(cycle.model_dump_json())
        elif cycle.outcome in _ACTED:
            output.note(
                f"{cycle.name}: {cycle.outcome}" + f" as {cycle.version}" * bool(cycle.version)
            )
        elif cycle.decision:
            output.note(f"{cycle.name}: {in_words(cycle.decision)}")
        return {"refused": 3, "failed": 1}.get(cycle.outcome, 0)

    code = _each(chosen, look_at, output)
    output.next("forge guard status")
    if code:
        raise typer.Exit(code)


def status(
    place: Place = "",
    config: Config = FILE,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show what is served, the drift now, and why it will or will not be retrained.

    Loads no model and changes nothing. Example: forge guard status
    """
    output = Output(json_lines=json_lines, quiet=quiet)
    from forge_cli.guard.status import lines
    from forge_cli.guard.status import status as look_at

    found, file, chosen = _read(config, place)

    def show(repository: Repository) -> int:
        told = look_at(found, file, repository, _Warnings(output))
        print(told.model_dump_json() if json_lines else "\n".join(lines(told)))
        return 0

    code = _each(chosen, show, output)
    output.next("forge guard once" if chosen else "forge guard init")
    if code:
        raise typer.Exit(code)


def history(
    place: Place = "",
    config: Config = FILE,
    every: Annotated[bool, typer.Option("--all", help="Also looks that came to nothing.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Write the drift as a picture: FILE.svg.")
    ] = None,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List what was retrained, deployed, refused and rolled back, the newest first.

    Example: forge guard history --plot drift.svg
    """
    output = Output(json_lines=json_lines, quiet=quiet)
    from forge_cli.core.errors import UsageError
    from forge_cli.core.jsonl import atomic_file
    from forge_cli.guard.config import folder_of
    from forge_cli.guard.state import Guarded

    found, file, chosen = _read(config, place)
    if plot and len(chosen) != 1:
        raise UsageError(
            "--plot: a picture is of one repository", "name it: forge guard history NAME"
        )
    for repository in chosen:
        guarded = Guarded(folder_of(repository, file), repository.name)
        cycles = [one for one in guarded.cycles() if every or one.outcome in _ACTED]
        for one in reversed(cycles):
            told = one.model_dump(mode="json")
            print(json.dumps(told, ensure_ascii=False) if json_lines else "\t".join(_row(told)))
        if plot:
            from forge_cli.guard.drift import drift_plot

            picture = drift_plot(guarded.drifts(), guarded.cycles(), found)
            if not picture:
                raise UsageError(
                    f"{guarded.repository}: nothing was measured yet", "forge guard once"
                )
            with atomic_file(plot) as stream:
                stream.write(picture)
            output.note(f"wrote {plot}")
    output.next("forge guard status")


def rollback(
    place: Place = "",
    config: Config = FILE,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Serve the version before; the code of the one that is left is not trained again.

    A new model is tried when the code has moved on. Example: forge guard rollback
    """
    output = Output(json_lines=json_lines, quiet=quiet)
    from forge_cli.core.errors import UsageError
    from forge_cli.guard.cycle import roll_back

    found, file, chosen = _read(config, place)
    if len(chosen) != 1:
        raise UsageError("a rollback is of one repository", "name it: forge guard rollback NAME")
    cycle = roll_back(found, file, chosen[0], output)
    if json_lines:
        print(cycle.model_dump_json())
    output.note(f"{cycle.name}: {cycle.version} is served again")
    output.next("forge guard status")


def _row(told: dict[str, Any]) -> list[str]:
    drift = told["drift"] or {}
    return [
        told["started"][:16].replace("T", " "),
        told["name"],
        (drift.get("commit") or "")[:7],
        f"drift {drift['share']:.3f}" if drift else "",
        told["mode"] or "",
        told["outcome"],
        told["version"],
        f"{told['seconds']:.0f}s" if told["seconds"] else "",
        told["error"].partition(";")[0],
    ]


def _each(chosen: list[Repository], work: Callable[[Repository], int], output: Output) -> int:
    """The highest exit code; a repository that fails keeps no other from being looked at."""
    from forge_cli.core.errors import ForgeError

    code = 0
    for repository in chosen:
        try:
            code = max(code, work(repository))
        except ForgeError as error:
            if len(chosen) == 1:
                raise
            output.warn(f"{repository.path}: {error.message}; {error.hint}")
            code = max(code, error.exit_code)
    return code


def _read(config: Path, place: str) -> tuple[GuardConfig, Path, list[Repository]]:
    """What the file says, its absolute path, and the repositories of it that are meant."""
    from forge_cli.core.errors import UsageError

    needed = config != FILE  # who names a file means that one
    if place and not needed and not config.exists() and Path(place).is_dir():
        config = Path(place) / FILE
    found, file, folders = read(config, needed=needed)
    if not place:
        return found, file, list(folders.values())
    chosen = [
        one for folder, one in folders.items()
        if place == (one.name or folder.name) or Path(place).resolve() == folder
    ]  # fmt: skip
    if not chosen:
        known = ", ".join(one.name or folder.name for folder, one in folders.items())
        raise UsageError(f"{place}: not guarded by {config}", f"it guards: {known}")
    return found, file, chosen


class _Warnings:
    """Only what a user should act on: a look at the state is no work to be told about."""

    def __init__(self, output: Output) -> None:
        self.warn, self.task = output.warn, output.task

    def note(self, message: str) -> None:
        """Not shown."""


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (once, status, history, rollback):
        app.command()(command)
