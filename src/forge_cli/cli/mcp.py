"""`forge mcp`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from forge_cli.cli._options import Verbose
from forge_cli.core.errors import ForgeError, UsageError


def mcp(
    root: Annotated[
        list[Path] | None,
        typer.Option(help="Folder that tools may touch, repeatable (default: this one)."),
    ] = None,
    allow_write: Annotated[
        bool,
        typer.Option("--allow-write", help="Also tools that train, write and deploy."),
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Serve Forge's skills to an agent as MCP tools, over stdin and stdout.

    It only reads unless --allow-write; training and deploying then need a second call with a
    token. Example: forge mcp --root ~/code/repo
    """
    missing = [name for name in ("mcp", "jsonschema") if find_spec(name) is None]
    if missing:
        raise ForgeError(
            f"{', '.join(missing)}: not installed", "pip install '.[mcp]' in a checkout of Forge"
        )
    folders = root or [Path()]
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"--root {folder}: no such folder", "name one that is there")
    from forge_cli.guard.mcp.server import serve

    serve(folders, allow_write=allow_write)
