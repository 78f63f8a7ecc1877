"""`forge export`."""

from __future__ import annotations

from typing import Annotated

import typer

from forge_cli.cli._options import Json, NoEnd, Quiet, Verbose, settings
from forge_cli.cli._output import Output
from forge_cli.cli._run import emit, open_run


def export(
    run: Annotated[str, typer.Argument(help="Run directory, or - for a run record.")] = "-",
    to: Annotated[
        list[str] | None, typer.Option(help="gguf, mlx, adapter or peft; repeatable.")
    ] = None,
    quant: Annotated[
        list[str] | None,
        typer.Option(help="q4_k_m, q8_0, f16 … or auto (the smallest that is enough); repeatable."),
    ] = None,
    parity: Annotated[
        bool | None, typer.Option("--parity/--no-parity", help="Check the file in llama.cpp.")
    ] = None,
    retention_rows: Annotated[
        int | None, typer.Option(help="Test rows to show what a file keeps of the gain; 0: none.")
    ] = None,
    no_end: NoEnd = False,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write the tuned model and check that it answers as the trained one.

    Of each GGUF it says how much of the gain over the base it keeps. --quant auto: the smallest
    that keeps 95 %. --to gguf: for Ollama and llama.cpp; mlx: merged in float32, for mlx-lm and
    transformers; adapter: the quantised residual and its adapter; peft: an adapter for the
    original base. Example: forge export .forge/runs/repo --quant q4_k_m --to gguf --to peft
    """
    output = Output(json_lines=json_lines, quiet=quiet)
    flags = {"to": to, "quant": quant, "parity": parity, "retention_rows": retention_rows}
    s = settings(flags).settings
    from forge_cli import pipeline

    found = open_run(run, need_end=not no_end)
    pipeline.export(found, s, output)
    folder = found.path / "export" / f"{found.path.name}-{s.to[-1]}"
    output.next(
        {
            "gguf": f"forge deploy {found.path} --name NAME",
            "mlx": f"mlx_lm.chat --model {folder}",
            "adapter": f"mlx_lm.chat --model {folder}/base --adapter-path {folder}/adapter",
            "peft": f"peft.PeftModel.from_pretrained(base, '{folder}')",
        }["gguf" if "gguf" in s.to else s.to[-1]]
    )
    emit(found, output, end=not no_end)
