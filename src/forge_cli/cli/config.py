"""`forge config`: every setting and where its value comes from."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from forge_cli.cli._options import Json, Recipe, settings

app = typer.Typer(no_args_is_help=True, help="The settings in force.\n\nExample: forge config show")


@app.callback()
def root() -> None:
    """Keep `show` a subcommand."""


@app.command("show")
def show(
    recipe: Recipe = None,
    json_lines: Json = False,
    origins: Annotated[bool, typer.Option(help="Show where each comes from.")] = True,
) -> None:
    """Print each setting, its value and its origin. Example: forge config show"""
    resolved = settings({}, recipe)
    values = resolved.settings.model_dump()
    if json_lines:
        rows = {k: {"value": v, "origin": resolved.origins[k]} for k, v in values.items()}
        print(json.dumps(rows, indent=2))
        return
    for key, value in values.items():
        print(f"{key}: {json.dumps(value)}" + (f"\t# {resolved.origins[key]}" if origins else ""))
