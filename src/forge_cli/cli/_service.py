"""Options that `forge serve` and `forge worker` share, and what they mean."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forge_cli.core.errors import ForgeError, UsageError

if TYPE_CHECKING:
    from forge_cli.serve.jobs.sources import Allowed

Queue = Annotated[
    str | None,
    typer.Option(
        help="sqlite:///FILE, redis://… or postgresql://…; with a password better as FORGE_QUEUE "
        "(default: a file in --home)."
    ),
]
Home = Annotated[
    Path | None,
    typer.Option(help="Folder of the jobs' folders (default: ~/.local/share/forge/serve)."),
]
Allow = Annotated[
    list[Path] | None, typer.Option(help="Folder whose repositories and models jobs may read.")
]
AllowGit = Annotated[
    list[str] | None, typer.Option(help="Host that jobs may clone from, such as github.com.")
]
AllowExecute = Annotated[
    bool, typer.Option("--allow-execute", help="Let jobs run generated code and tests.")
]
Slots = Annotated[
    int, typer.Option(min=1, max=64, help="Jobs at once; one has the accelerator at a time.")
]
KeepDays = Annotated[
    float, typer.Option(min=0, help="Days after which jobs that are over are removed (0: never).")
]

Unload = Annotated[
    bool,
    typer.Option(
        "--unload/--no-unload",
        help="Take models out of this machine's Ollama while a job trains, and load them again.",
    ),
]


def place(home: Path | None, queue: str | None) -> tuple[Path, str]:
    """The home, which is made, and the queue's URL; that is no longer in the environment then."""
    from forge_cli.core.places import data_dir

    found = (home or data_dir() / "serve").expanduser().absolute()
    try:
        found.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ForgeError(f"{found}: {error.strerror}", "choose another --home") from None
    told = os.environ.pop("FORGE_QUEUE", "")
    return found, queue or told or f"sqlite:///{found / 'jobs.db'}"


def allowed(folders: list[Path] | None, hosts: list[str] | None, *, execute: bool) -> Allowed:
    """What jobs may read.

    Raises:
        UsageError: a folder is none.
    """
    from forge_cli.serve.jobs.sources import Allowed

    found = [folder.expanduser().absolute() for folder in folders or []]
    for folder in found:
        if not folder.is_dir():
            raise UsageError(f"--allow {folder}: no such folder", "name one that is there")
    return Allowed(found, [host.lower() for host in hosts or []], execute)


def need_extra() -> None:
    """Raise ForgeError unless what the service needs is installed."""
    from importlib.util import find_spec

    missing = [name for name in ("fastapi", "huey", "uvicorn") if find_spec(name) is None]
    if missing:
        raise ForgeError(
            f"{', '.join(missing)}: not installed", "pip install '.[serve]' in a checkout of Forge"
        )


def stop_at_eof(stop: object) -> None:
    """Call `stop` when the process that started this one is gone, whose pipe is stdin."""
    import threading

    def watch() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock would be held when the process ends
            pass
        stop()  # type: ignore[operator]

    threading.Thread(target=watch, daemon=True).start()
