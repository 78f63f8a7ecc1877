"""`forge`: one file per command; this one wires them and is the only place that prints errors."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Annotated, Any

import typer

from forge_cli import __version__
from forge_cli.cli import (
    ask,
    config,
    deploy,
    doctor,
    export,
    guard,
    jobs,
    mcp,
    mine,
    raft,
    recipes,
    runs,
    serve,
    skills,
    train,
    validate,
    worker,
)
from forge_cli.cli import eval as evaluate
from forge_cli.core.errors import ForgeError

app = typer.Typer(
    name="forge",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune a local model on a private repository, and know whether it got better.\n\n"
    "Example: forge train repo/",
)


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def root(
    # Eager: it is asked for without a command.
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Options of `forge` itself."""


def _quiet_pipe(function: Callable[..., Any]) -> Callable[..., Any]:
    """`forge mine . | head` ends well: a reader that has had enough is no error."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            result = function(*args, **kwargs)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None

    return wrapped


for name, function in (
    ("mine", mine.mine),
    ("raft", raft.raft),
    ("validate", validate.validate),
    ("train", train.train),
    ("eval", evaluate.evaluate),
    ("export", export.export),
    ("deploy", deploy.deploy),
    ("ask", ask.ask),
    ("serve", serve.serve),
    ("worker", worker.worker),
    ("doctor", doctor.doctor),
    ("mcp", mcp.mcp),
):
    app.command(name)(_quiet_pipe(function))
app.add_typer(jobs.app, name="jobs")
app.add_typer(guard.app, name="guard")
app.add_typer(runs.app, name="runs")
app.add_typer(skills.app, name="skills")
app.add_typer(recipes.app, name="recipes")
app.add_typer(config.app, name="config")


def main() -> None:
    """Run the command line; a known failure is two lines and its exit code, never a traceback."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except ForgeError as error:
        if {"-v", "--verbose"} & set(sys.argv):
            raise
        _show(error)
        sys.exit(error.exit_code)
    except MemoryError:
        _show(ForgeError("out of memory", "close other programs or choose a smaller --model"))
        sys.exit(1)


def _terminate(_: int, __: FrameType | None) -> None:
    # As Ctrl-C: the stages save their work on the way out.
    raise KeyboardInterrupt


def _show(error: ForgeError) -> None:
    if "--json" in sys.argv:
        told = {"error": error.message, "hint": error.hint, "transient": error.transient}
        print(json.dumps(told), file=sys.stderr)
        return
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
