"""Recipes: YAML files with settings for a model and a machine, shipped with Forge."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from forge_cli.core.errors import UsageError
from forge_cli.core.yaml_file import read_yaml


def recipes_dir() -> Path:
    """Where the shipped recipes are: in the wheel, or at the top of a checkout."""
    package = Path(__file__).parent
    inside = package / "shipped_recipes"
    return inside if inside.is_dir() else package.parents[1] / "recipes"


def list_recipes() -> dict[str, Path]:
    """Name → file of every shipped recipe, those for small machines first."""
    return {file.stem: file for file in sorted(recipes_dir().glob("*.yaml"), key=_order)}


def _order(file: Path) -> tuple[int, int, str]:
    kind, *rest = file.stem.split("-")
    if kind != "mac":
        return (0, 0, file.stem)
    sizes = ("small", "medium", "large")
    return (int(rest[0]), sizes.index(rest[1]) if rest[1] in sizes else len(sizes), file.stem)


def recipe_for(memory: int) -> str:
    """The recipe for a Mac with so many bytes of memory: the medium one of its size."""
    sizes = sorted({int(name.split("-")[1]) for name in list_recipes() if name.startswith("mac-")})
    # Memory is sold in powers of two: 16 GB are 17.2e9 bytes.
    fitting = [size for size in sizes if size <= memory / 2**30 + 0.5]
    return f"mac-{fitting[-1] if fitting else sizes[0]}-medium"


def find_recipe(name: str) -> Path:
    """The file of a shipped recipe, or the user's own.

    Raises:
        UsageError: neither, with the nearest name.
    """
    known = list_recipes()
    if name in known:
        return known[name]
    if Path(name).is_file():
        return Path(name)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    raise UsageError(f"{name}: no such recipe", hint)


def load_recipe(name: str) -> dict[str, Any]:
    """The settings of a recipe."""
    return {key: value for key, (value, _) in read_yaml(find_recipe(name)).items()}
