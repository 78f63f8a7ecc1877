"""Options that several commands share, and the settings that they make."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from forge_cli.core.config import Resolved

Json = Annotated[
    bool, typer.Option("--json", help="Notes as JSON lines on stderr; results as JSON on stdout.")
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Only warnings and errors.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Tracebacks of errors.")]
Out = Annotated[str, typer.Option("-o", "--out", help="Output file, or - for stdout.")]
NoEnd = Annotated[
    bool, typer.Option("--no-end", help="No end record in pipes, for use with other tools.")
]
Rejects = Annotated[
    Path | None, typer.Option(help="File for one verdict per record or file left out.")
]
Model = Annotated[
    str | None,
    typer.Option(help="Built-in name (smollm2-135m), Hugging Face id, directory or .gguf."),
]
Recipe = Annotated[str | None, typer.Option(help="A recipe's name or file; see: forge recipes ls.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]
RunPath = Annotated[
    Path | None, typer.Option("--run", help="Run directory (default: .forge/runs/NAME).")
]


def settings(flags: dict[str, Any], recipe: str | None = None) -> Resolved:
    """Flags over environment, files, recipe and defaults; the recipe may come from FORGE_RECIPE.

    On a Mac, where nothing names a model, its memory chooses the recipe.
    """
    # Imported here: pydantic and yaml are half of what `forge --help` may cost.
    import os
    from dataclasses import replace

    from forge_cli.core.config import resolve
    from forge_cli.recipes import load_recipe, recipe_for

    recipe = recipe or os.environ.get("FORGE_RECIPE")
    values = load_recipe(recipe) if recipe else None
    found = resolve(flags, recipe=values, recipe_name=recipe or "")
    memory = mac_memory()
    if recipe or not memory or found.origins["model"] != "default" or flags.get("adapters"):
        return found
    name = recipe_for(memory)
    why = f"recipe {name}, for the {memory / 2**30:.0f} GB of this Mac; --model or --recipe choose"
    return replace(resolve(flags, recipe=load_recipe(name), recipe_name=name), chosen=why)


def mac_memory() -> int:
    """Bytes of memory of a Mac; 0 elsewhere. Not run on a Mac."""
    import os
    import sys

    if sys.platform != "darwin":
        return 0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
