"""`forge runs`: what was trained here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from forge_cli.cli._options import Json, Quiet, Verbose
from forge_cli.cli._output import Output

app = typer.Typer(
    no_args_is_help=True,
    help="What was trained here, and how good it is.\n\nExample: forge runs ls",
)

RunArgument = Annotated[Path, typer.Argument(help="Run directory.")]


@app.command("ls")
def ls(
    folder: Annotated[Path, typer.Argument(help="Folder of runs, or a repository.")] = Path(),
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List runs, one a line: name, verdict, stages done, model; with --json all in one array.

    Example: forge runs ls
    """
    from forge_cli.runs import FOLDER, find_runs, summary

    inside = folder / FOLDER
    found = [summary(run) for run in find_runs(inside if inside.is_dir() else folder)]
    if json_lines:
        print(json.dumps(found, ensure_ascii=False))
    for run in found if not json_lines else ():
        stages = ",".join(run["stages"]) or "-"
        print(f"{run['name']}\t{run['verdict'] or '-'}\t{stages}\t{run['model']}")
    output = Output(json_lines=json_lines, quiet=quiet)
    output.next(f"forge runs show {found[-1]['path']}" if found else "forge train REPO")


@app.command("show")
def show(
    run: RunArgument, json_lines: Json = False, quiet: Quiet = False, verbose: Verbose = False
) -> None:
    """Show a run in short, as JSON: what it was made from, what was measured, what is served.

    Example: forge runs show .forge/runs/repo
    """
    from forge_cli.core.run_dir import RunDir
    from forge_cli.runs import summary

    found = summary(RunDir.load(run))
    print(json.dumps(found, indent=None if json_lines else 2, ensure_ascii=False))
    Output(json_lines=json_lines, quiet=quiet).next(f"forge eval {run}")


@app.command("compare")
def compare(
    first: RunArgument,
    second: RunArgument,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Put two runs side by side, as JSON: settings that differ, and the tuned model's metrics.

    Example: forge runs compare .forge/runs/old .forge/runs/new
    """
    from forge_cli.core.run_dir import RunDir
    from forge_cli.runs import compare as side_by_side

    found = side_by_side(RunDir.load(first), RunDir.load(second))
    print(json.dumps(found, indent=None if json_lines else 2, ensure_ascii=False))
    output = Output(json_lines=json_lines, quiet=quiet)
    output.next(f"forge eval {first} --side base --side tuned --side {second}")
