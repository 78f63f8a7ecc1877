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
        list[str] | None, typer.Option(help="gguf, mlx, safetensors, adapter or peft; repeatable.")
    ] = None,
    quant: Annotated[
        list[str] | None,
        typer.Option(help="q4_k_m, q8_0, f16 … or auto (the smallest that is enough); repeatable."),
    ] = None,
    mlx_bits: Annotated[
        int | None, typer.Option(help="Bits of --to mlx: 4, 6, 8 (default) or 16: as it is.")
    ] = None,
    mlx_group_size: Annotated[
        int | None, typer.Option(help="Weights per scale of --to mlx: 32, 64 (default) or 128.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="auto (the base's own), bfloat16, float16 or float32; not of GGUF."),
    ] = None,
    parity: Annotated[
        bool | None, typer.Option("--parity/--no-parity", help="Check the file in llama.cpp.")
    ] = None,
    retention_rows: Annotated[
        int | None, typer.Option(help="Test rows to show what a file keeps of the gain; 0: none.")
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Upload it to this model of the Hugging Face hub."),
    ] = None,
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Who may see what is pushed (private)."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --push: say what would be sent, send nothing.")
    ] = False,
    importance_rows: Annotated[
        int | None, typer.Option(help="Training rows for an importance matrix of GGUF; 0: none.")
    ] = None,
    no_end: NoEnd = False,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write the tuned model and check that it answers as the trained one.

    Of each GGUF, and of mlx, it says how much of the gain over the base it keeps. --quant auto:
    the smallest that keeps 95 %. --to gguf: for Ollama and llama.cpp; mlx: merged and quantised,
    for mlx-lm; safetensors: merged, for transformers and others; adapter: the quantised residual
    and its adapter; peft: an adapter for the original base.
    --push sends what was written, with a model card, only when it is said; nothing else does.
    Example: forge export .forge/runs/repo --quant q4_k_m --to gguf --to peft
    """
    output = Output(json_lines=json_lines, quiet=quiet)
    flags = {
        "to": to, "quant": quant, "parity": parity, "retention_rows": retention_rows,
        "mlx_bits": mlx_bits, "mlx_group_size": mlx_group_size, "dtype": dtype,
        "importance_rows": importance_rows,
    }  # fmt: skip
    s = settings(flags).settings
    from forge_cli import pipeline
    from forge_cli.core.errors import UsageError

    if push is None and (dry_run or private is not None):
        raise UsageError("--private, --public and --dry-run belong to --push", "add OWNER/NAME")
    found = open_run(run, need_end=not no_end)
    if push is not None:
        pipeline.check_push(push, dry_run=dry_run)
    written = pipeline.export(found, s, output)
    if push is not None:
        pipeline.publish(
            found, written, output, repo=push, private=private is not False, dry_run=dry_run,
            bars=output.console.is_terminal and not (quiet or json_lines),
        )  # fmt: skip
    folder = found.path / "export" / f"{found.path.name}-{s.to[-1]}"
    output.next(
        {
            "gguf": f"forge deploy {found.path} --name NAME",
            "mlx": f"mlx_lm.chat --model {folder}",
            "safetensors": f"transformers.AutoModelForCausalLM.from_pretrained('{folder}')",
            "adapter": f"mlx_lm.chat --model {folder}/base --adapter-path {folder}/adapter",
            "peft": f"peft.PeftModel.from_pretrained(base, '{folder}')",
        }["gguf" if "gguf" in s.to else s.to[-1]]
    )
    emit(found, output, end=not no_end)
