"""`forge raft`."""

from __future__ import annotations

from typing import Annotated

import typer

from forge_cli.cli._options import Json, NoEnd, Out, Quiet, Seed, Verbose, settings
from forge_cli.cli._output import Output


def raft(
    chunks: Annotated[str, typer.Argument(help="chunks.jsonl, or - for stdin.")] = "-",
    out: Out = "-",
    teacher: Annotated[str | None, typer.Option(help="Who writes the questions: none.")] = None,
    distractors: Annotated[int | None, typer.Option(help="Beside each oracle document.")] = None,
    oracle_p: Annotated[float | None, typer.Option(help="Share of rows with the oracle.")] = None,
    questions: Annotated[int | None, typer.Option(help="Most questions per definition.")] = None,
    seed: Seed = None,
    no_end: NoEnd = False,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make RAFT examples from chunks: documents, a question, an answer that quotes them.

    Example: forge raft chunks.jsonl -o examples.jsonl
    """
    output = Output(json_lines=json_lines, quiet=quiet)
    flags = {
        "teacher": teacher,
        "distractors": distractors,
        "oracle_p": oracle_p,
        "questions": questions,
        "seed": seed,
    }
    s = settings(flags).settings
    from forge_cli import pipeline
    from forge_cli.core.jsonl import read_records, write_records
    from forge_cli.core.records import Chunk

    given = read_records(chunks, Chunk, need_end=not no_end)
    write_records(pipeline.make_examples(given, s, output), out, end=not no_end)
    output.next(f"forge validate {out} -o sound.jsonl" if out != "-" else "… | forge validate")
