"""`forge deploy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forge_cli.cli._options import Json, NoEnd, Quiet, Verbose, settings
from forge_cli.cli._output import Output
from forge_cli.cli._run import emit, open_run


def deploy(
    run: Annotated[str, typer.Argument(help="Run directory, .gguf file, or - (run record).")] = "-",
    name: Annotated[str, typer.Option(help="Name to serve under.")] = ...,  # type: ignore[assignment]
    host: Annotated[str | None, typer.Option(help="URL of the Ollama server.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the Modelfile, contact no server.")
    ] = False,
    no_end: NoEnd = False,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Hand an exported GGUF to Ollama and ask it a question from the test rows.

    Example: forge deploy .forge/runs/repo --name my-repo
    """
    output = Output(json_lines=json_lines, quiet=quiet)
    s = settings({"host": host}).settings
    from forge_cli import pipeline

    if run.endswith(".gguf"):
        pipeline.deploy_file(Path(run), s, name=name, dry_run=dry_run, reporter=output)
    else:
        found = open_run(run, need_end=not no_end)
        pipeline.deploy(found, s, name=name, dry_run=dry_run, reporter=output)
        emit(found, output, end=not no_end)
    output.next(f"ollama run {name}" if not dry_run else "the same command without --dry-run")
