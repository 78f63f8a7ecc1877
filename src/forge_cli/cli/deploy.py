"""`forge deploy`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from forge_cli.cli._options import Json, NoEnd, Quiet, Verbose, settings
from forge_cli.cli._output import Output
from forge_cli.cli._run import emit, open_run


def deploy(
    run: Annotated[str, typer.Argument(help="Run directory, .gguf file, or - (run record).")] = "-",
    name: Annotated[str, typer.Option(help="Name to serve under.")] = ...,  # type: ignore[assignment]
    host: Annotated[str | None, typer.Option(help="URL of the Ollama server.")] = None,
    to: Annotated[
        Literal["ollama", "llama-server", "lm-studio", "mlx"],
        typer.Option(help="Who serves it; all but ollama: a directory."),
    ] = "ollama",
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Where that directory goes (default: .).")
    ] = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Serve the version before; reads no run.")
    ] = False,
    versions: Annotated[
        bool, typer.Option("--versions", help="List the versions on the server; reads no run.")
    ] = False,
    smoke: Annotated[
        int | None, typer.Option("--smoke", help="Questions that it must answer before it serves.")
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Also a run that was judged worse than its base.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the Modelfile, contact no server.")
    ] = False,
    no_end: NoEnd = False,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Serve an exported GGUF with Ollama: as a version, checked and asked, then under NAME.

    NAME stays what it was until the new version has answered questions of the test rows, and
    whatever fails leaves it so. Example: forge deploy .forge/runs/repo --name my-repo
    """
    output = Output(json_lines=json_lines, quiet=quiet)
    s = settings({"host": host, "smoke_questions": smoke}).settings
    from forge_cli import pipeline

    if versions or rollback:
        from forge_cli import deploy as stage

        registry = pipeline.registry_file()
        if rollback:
            back = stage.roll_back(name, host=s.host, registry=registry, reporter=output)
            output.next(f"ollama run {name}   (it is {back})")
        else:
            _show(stage.versions(name, host=s.host, registry=registry), name, output)
        return
    source = Path(run) if run.endswith(".gguf") else open_run(run, need_end=not no_end)
    if to != "ollama":
        made = pipeline.write_directory(
            source, to, s, name=name, folder=folder or Path(), reporter=output
        )
        from forge_cli.deploy.directory import next_command

        output.next(next_command(to, made))
    elif isinstance(source, Path):
        pipeline.deploy_file(source, s, name=name, dry_run=dry_run, reporter=output)
    else:
        pipeline.deploy(source, s, name=name, dry_run=dry_run, anyway=anyway, reporter=output)
    if to == "ollama":
        output.next(f"ollama run {name}" if not dry_run else "the same command without --dry-run")
    if not isinstance(source, Path):
        emit(source, output, end=not no_end)


def _show(found: list, name: str, output: Output) -> None:  # type: ignore[type-arg]
    if output.json_lines:
        for one in found:
            told = {
                "name": one.name, "served": one.served, "bytes": one.size,
                "since": one.entry.time if one.entry else one.modified,
                "source": one.entry.source if one.entry else None,
            }  # fmt: skip
            print(json.dumps(told))
    rows = [
        [
            one.name + " (served)" * one.served,
            one.entry.time if one.entry else one.modified[:19],
            f"{one.size / 1e6:.0f} MB",
            # The name alone, which fits; the whole path is in the registry.
            Path(one.entry.source).name if one.entry else "not deployed from here",
        ]
        for one in found
    ]
    output.table(["version", "since", "size", "from"], rows, f"Versions of {name}")
    output.next(f"forge deploy --rollback --name {name}")
