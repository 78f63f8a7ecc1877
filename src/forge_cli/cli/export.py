"""`forge export`."""

from __future__ import annotations

from typing import Annotated

import typer

from forge_cli.cli._options import Json, NoEnd, Quiet, Verbose, settings
from forge_cli.cli._output import Output
from forge_cli.cli._run import emit, open_run


def export(
    run: Annotated[str, typer.Argument(help="Run directory, or - for a run record.")] = "-",
    quant: Annotated[
        list[str] | None, typer.Option(help="f16, q8_0 or q4_k_m; repeatable.")
    ] = None,
    parity: Annotated[
        bool | None, typer.Option("--parity/--no-parity", help="Check the file in llama.cpp.")
    ] = None,
    no_end: NoEnd = False,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write the tuned model as GGUF and check it against the trained model in llama.cpp.

    Example: forge export .forge/runs/repo --quant q4_k_m --quant f16
    """
    output = Output(json_lines=json_lines, quiet=quiet)
    s = settings({"quant": quant, "parity": parity}).settings
    from forge_cli import pipeline

    found = open_run(run, need_end=not no_end)
    pipeline.export(found, s, output)
    output.next(f"forge deploy {found.path} --name NAME")
    emit(found, output, end=not no_end)
