"""`forge validate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forge_cli.cli._options import Json, Model, NoEnd, Out, Quiet, Rejects, Seed, Verbose, settings
from forge_cli.cli._output import Output

if TYPE_CHECKING:
    from forge_cli.validate import Report


def validate(
    examples: Annotated[str, typer.Argument(help="examples.jsonl, or - for stdin.")] = "-",
    out: Out = "-",
    rejects: Rejects = None,
    report: Annotated[
        Path | None, typer.Option(help="File for the report: .html is a page, else JSON.")
    ] = None,
    model: Model = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest row.")] = None,
    min_examples: Annotated[
        int | None, typer.Option(help="Gate: fewer sound examples exit 3.")
    ] = None,
    max_rejects: Annotated[
        float | None, typer.Option(help="Gate: a larger rejected share exits 3.")
    ] = None,
    min_quality: Annotated[
        float | None, typer.Option(help="Gate: a lower quality (0 to 1) exits 3.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="file: drawn by seed; time: what changed last is test.")
    ] = None,
    held_kind: Annotated[
        list[str] | None, typer.Option(help="Kind of question to test on alone; repeatable.")
    ] = None,
    fix: Annotated[
        bool | None, typer.Option("--fix/--no-fix", help="Mend what leaves no doubt.")
    ] = None,
    base_loss: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Keep rows whose answer's loss under the base lies between."),
    ] = None,
    seed: Seed = None,
    no_end: NoEnd = False,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Prove that examples are sound and split them by file; rejects come with reasons.

    Example: forge validate examples.jsonl -o sound.jsonl --rejects rejects.jsonl
    """
    output = Output(json_lines=json_lines, quiet=quiet)
    flags = {
        "model": model,
        "max_tokens": max_tokens,
        "min_examples": min_examples,
        "max_rejects": max_rejects,
        "min_quality": min_quality,
        "split": split,
        "held_kinds": held_kind,
        "fix": fix,
        "base_loss": list(base_loss) if base_loss else None,
        "seed": seed,
    }
    s = settings(flags).settings
    from forge_cli import pipeline
    from forge_cli.core.jsonl import read_records, write_records
    from forge_cli.core.records import Example, Verdict
    from forge_cli.validate.page import write_report

    verdicts: list[Verdict] = []

    def keep(found: Report) -> None:
        for line in found.lines()[1:]:
            output.note(line)
        if report:
            write_report(found, report)

    given = read_records(examples, Example, need_end=not no_end)
    try:
        sound = pipeline.validated(given, s, output, verdicts.append, keep)
    finally:
        if rejects:
            write_records(verdicts, rejects)
    write_records(sound, out, end=not no_end)
    output.next(f"forge train {out}" if out != "-" else "… | forge train -")
