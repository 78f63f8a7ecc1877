"""`forge guard templates`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forge_cli.cli._options import Json, Quiet, Verbose
from forge_cli.cli._output import Output

FILE = Path("guard.yaml")


def templates(
    copy: Annotated[
        Path | None, typer.Option("--copy", help="Folder to write templates into, to change them.")
    ] = None,
    config: Annotated[
        Path, typer.Option("-c", "--config", help="The file that says what is guarded.")
    ] = FILE,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List the templates of reports, one a line: name, where it is from, what it tells.

    Those copied by --copy extend the builtin ones; what is not changed stays as they are.
    Example: forge guard templates --copy report-templates
    """
    import json

    from forge_cli.guard.config import read_config
    from forge_cli.guard.reports.copying import copy_templates, list_templates, templates_folder

    output = Output(json_lines=json_lines, quiet=quiet)
    if copy is not None:
        for file in copy_templates(copy):
            print(file)
        output.next(f"change them, and write templates: {copy} into {config}")
        return
    folder = templates_folder(read_config(config), config) if config.exists() else None
    for name, origin, text in list_templates(folder):
        row = {"template": name, "from": origin, "tells": text}
        print(json.dumps(row) if json_lines else "\t".join(row.values()))
    output.next("forge guard templates --copy DIR")
