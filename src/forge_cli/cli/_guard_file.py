"""The guard.yaml that the commands of `forge guard` read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from forge_cli.guard.config import GuardConfig, Repository

FILE = Path("guard.yaml")
Config = Annotated[Path, typer.Option("-c", "--config", help="The file that says what is guarded.")]


def read(config: Path, *, needed: bool) -> tuple[GuardConfig, Path, dict[Path, Repository]]:
    """What the file says, its absolute path, and each repository by its folder.

    Without a file, and if none is needed, its folder is guarded by the defaults.

    Raises:
        UsageError: there is no such file, or something in it is wrong.
    """
    from forge_cli.core.errors import UsageError
    from forge_cli.guard.config import folders_of, read_config

    if needed and not config.exists():
        raise UsageError(f"{config}: no such file", "write one with: forge guard init")
    found, file = read_config(config), config.absolute()
    return found, file, folders_of(found, file)
