"""Recipes: YAML files with settings for a model and a machine, shipped with Forge."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from forge_cli.core.config import read_yaml
from forge_cli.core.errors import UsageError


def recipes_dir() -> Path:
    """Where the shipped recipes are: in the wheel, or at the top of a checkout."""
    package = Path(__file__).parent
    inside = package / "shipped_recipes"
    return inside if inside.is_dir() else package.parents[1] / "recipes"


def list_recipes() -> dict[str, Path]:
    """Name → file of every shipped recipe."""
    return {file.stem: file for file in sorted(recipes_dir().glob("*.yaml"))}


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
