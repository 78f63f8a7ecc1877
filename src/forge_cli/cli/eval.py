"""`forge eval`."""

from __future__ import annotations

from typing import Annotated

import typer

from forge_cli.cli._options import Json, NoEnd, Quiet, Verbose
from forge_cli.cli._output import Output
from forge_cli.cli._run import emit, open_run, show_comparison


def evaluate(
    run: Annotated[str, typer.Argument(help="Run directory, or - for a run record.")] = "-",
    answer_rows: Annotated[int | None, typer.Option(help="Test rows to answer.")] = None,
    no_end: NoEnd = False,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Judge the tuned model against its base on held-out rows, with intervals.

    Example: forge eval .forge/runs/repo
    """
    output = Output(json_lines=json_lines, quiet=quiet)
    from forge_cli import pipeline

    found = open_run(run, need_end=not no_end)
    pipeline.evaluate(found, output, answer_rows=answer_rows)
    show_comparison(found, output)
    output.next(f"forge export {found.path}")
    emit(found, output, end=not no_end)
