"""`forge recipes`: discover, read, copy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from forge_cli.cli._options import Json
from forge_cli.core.errors import UsageError

app = typer.Typer(
    no_args_is_help=True, help="Settings for a model and a machine.\n\nExample: forge recipes ls"
)


@app.command("ls")
def ls(json_lines: Json = False) -> None:
    """List the recipes, one a line: name, model, memory at the peak, for whom.

    With --json all of them in one array.

    Example: forge recipes ls
    """
    from forge_cli.pipeline.foresee import recipe_peak
    from forge_cli.recipes import list_recipes, load_recipe

    rows: list[dict[str, Any]] = []
    for name, file in list_recipes().items():
        values = load_recipe(name)
        peak = recipe_peak(name, values)
        first = file.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        rows.append(
            {"name": name, "model": values.get("model"), "peak_bytes": peak or None, "for": first}
        )
    if json_lines:
        print(json.dumps(rows))
    for row in rows if not json_lines else ():
        memory = f"{row['peak_bytes'] / 1e9:.1f} GB" if row["peak_bytes"] else "-"
        print(f"{row['name']}\t{row['model'] or '-'}\t{memory}\t{row['for']}")


@app.command("show")
def show(name: Annotated[str, typer.Argument(help="Recipe.")]) -> None:
    """Print a recipe. Example: forge recipes show smollm2-135m"""
    from forge_cli.recipes import find_recipe

    print(find_recipe(name).read_text(encoding="utf-8"), end="")


@app.command("cp")
def cp(
    name: Annotated[str, typer.Argument(help="Recipe.")],
    target: Annotated[Path, typer.Argument(help="File to write.")],
) -> None:
    """Copy a recipe to edit it. Example: forge recipes cp smollm2-135m mine.yaml"""
    from forge_cli.recipes import find_recipe

    if target.exists():
        raise UsageError(f"{target}: is there already", "choose another name")
    shutil.copyfile(find_recipe(name), target)
