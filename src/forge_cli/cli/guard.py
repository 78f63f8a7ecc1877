"""`forge guard`: keeps models up with their repositories."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forge_cli.cli._guard_file import FILE, Config, read
from forge_cli.cli._options import Json, Quiet, Verbose
from forge_cli.cli._output import Output
from forge_cli.cli.guard_look import add_to as add_looks
from forge_cli.cli.guard_templates import templates

if TYPE_CHECKING:
    from forge_cli.guard.install import Kind, Plan

app = typer.Typer(no_args_is_help=True, help="Keep a model up with its repository.")

Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--schedule", metavar="hook|launchd|systemd",
        help="Git hooks, or a service that runs it (default: hooks and this system's service).",
    ),
]  # fmt: skip
Load = Annotated[
    bool, typer.Option("--load", help="Also run the commands that start or end the service.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be written; write nothing.")
]


add_looks(app)
app.command()(templates)


@app.command()
def init(
    config: Config = FILE,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a guard.yaml with every setting, its default and what it means.

    Example: forge guard init
    """
    from forge_cli.core.errors import UsageError
    from forge_cli.core.jsonl import atomic_file
    from forge_cli.guard.template import commented

    if config.exists():
        raise UsageError(f"{config}: is there already", "edit it, or name another with -c")
    with atomic_file(config) as stream:
        stream.write(commented().encode())
    output = Output(json_lines=json_lines, quiet=quiet)
    output.note(f"wrote {config}")
    output.next(f"forge guard run{_told(config)}")


@app.command()
def run(
    config: Config = FILE,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Watch the repositories, and retrain and deploy where the rules and the gates say so.

    Until Ctrl-C or SIGTERM; what was under way goes on the next time. Without a guard.yaml this
    folder is guarded, by the defaults. Example: forge guard run
    """
    output = Output(json_lines=json_lines, quiet=quiet)
    from forge_cli.core.config import parse_duration
    from forge_cli.guard.cycle import look
    from forge_cli.guard.guardian import guard
    from forge_cli.guard.state import Guarded
    from forge_cli.guard.watch import Watcher

    found, file, folders = read(config, needed=config != FILE)
    watcher = Watcher(
        folders, debounce=parse_duration(found.watch.debounce),
        every=parse_duration(found.watch.every), files=found.watch.files, reporter=output,
    )  # fmt: skip
    with ExitStack() as guarding:
        for folder, repository in folders.items():
            guarding.enter_context(Guarded(folder, repository.name).guarding())
        output.note(f"guards {', '.join(map(str, folders))}")
        try:
            guard(watcher, lambda folder: look(found, file, folders[folder], output), output)
        except KeyboardInterrupt:
            output.note("ended; the models are served as they are")
    output.next(f"forge guard status{_told(config)}")


@app.command()
def install(
    config: Config = FILE,
    schedule: Kinds = None,
    load: Load = False,
    dry_run: DryRun = False,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Install git hooks that tell the guardian of commits, and a service that runs it.

    Prints the commands that start it. Example: forge guard install --dry-run
    """
    from forge_cli.guard.install import plan_install

    _, file, folders = read(config, needed=True)
    kinds = _kinds(schedule, dry_run=dry_run)
    output = Output(json_lines=json_lines, quiet=quiet)
    plan = plan_install(file, folders, kinds)
    _carry_out(plan, output, load=load, dry_run=dry_run)
    output.next(f"forge guard status{_told(config)}")


@app.command()
def uninstall(
    config: Config = FILE,
    schedule: Kinds = None,
    load: Load = False,
    dry_run: DryRun = False,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Remove what install put there, and nothing else; what the guardian knows stays.

    Prints the commands that end the service. Example: forge guard uninstall
    """
    from forge_cli.guard.config import read_config
    from forge_cli.guard.install import plan_uninstall

    # Also where the file or a repository is gone already.
    file = config.absolute()
    paths = [Path(one.path).expanduser() for one in read_config(config).repositories]
    folders = [(file.parent / path).resolve() for path in paths]
    kinds = _kinds(schedule, dry_run=dry_run)
    output = Output(json_lines=json_lines, quiet=quiet)
    plan = plan_uninstall(file, folders, kinds)
    _carry_out(plan, output, load=load, dry_run=dry_run)
    output.next(f"forge guard install{_told(config)}")


def _carry_out(plan: Plan, output: Output, *, load: bool, dry_run: bool) -> None:
    from forge_cli.guard.install import apply, run_commands

    for reason in plan.left_out:
        output.warn(reason)
    if not dry_run:
        apply(plan)
    for change in plan.changes:
        action = change.action
        done = {"write": "wrote", "change": "changed", "remove": "removed"}.get(action, action)
        output.note(f"{f'would {action}' if dry_run else done} {change.file}")
        if dry_run and change.after is not None and action != "unchanged":
            output.note(change.after.decode("utf-8", "replace"))
    if load and not dry_run:
        run_commands(plan)
    if output.json_lines:
        changes = [{"file": str(one.file), "action": one.action} for one in plan.changes]
        commands = [list(command) for command in plan.may_fail + plan.commands]
        print(json.dumps({"changes": changes, "commands": commands, "ran": load and not dry_run}))
    elif not load:
        import shlex

        if plan.commands:
            output.note("not run yet (--load does):")
        for command in plan.may_fail + plan.commands:
            print(shlex.join(command))


def _kinds(chosen: list[str] | None, *, dry_run: bool) -> list[Kind]:
    """What to install; another system's service can only be shown."""
    import sys
    from typing import get_args

    from forge_cli.core.errors import UsageError
    from forge_cli.guard.install import Kind, kinds_of_this_machine

    own = kinds_of_this_machine()
    may = get_args(Kind) if dry_run else own
    for kind in chosen or []:
        if kind not in may:
            why = f"not of {sys.platform}" if kind in get_args(Kind) else "no such thing"
            raise UsageError(f"--schedule {kind}: {why}", f"here there is {', '.join(may)}")
    return [kind for kind in may if kind in chosen] if chosen else own


def _told(config: Path) -> str:
    return "" if config == FILE else f" -c {config}"
