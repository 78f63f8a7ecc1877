"""`forge raft`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forge_cli.cli._options import Json, NoEnd, Out, Quiet, Rejects, Seed, Verbose, settings
from forge_cli.cli._output import Output
from forge_cli.core.errors import UsageError


def raft(
    chunks: Annotated[str, typer.Argument(help="chunks.jsonl, or - for stdin.")] = "-",
    out: Out = "-",
    teacher: Annotated[
        str | None, typer.Option(help="Writes more questions: mlx:, ollama: or openai:MODEL.")
    ] = None,
    teacher_url: Annotated[str | None, typer.Option(help="The teacher's server, with /v1.")] = None,
    teacher_jobs: Annotated[int | None, typer.Option(help="Requests to it at once.")] = None,
    teacher_timeout: Annotated[float | None, typer.Option(help="Seconds for one try.")] = None,
    teacher_price: Annotated[
        str | None, typer.Option(metavar="IN,OUT", help="Price of a million tokens, to tell costs.")
    ] = None,
    rejects: Rejects = None,
    preferences: Annotated[
        Path | None, typer.Option(help="File for pairs of a right and a wrong answer (DPO).")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="messages, completion, or reference (raft.py's).")
    ] = "messages",
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
        "teacher_url": teacher_url,
        "teacher_jobs": teacher_jobs,
        "teacher_timeout": teacher_timeout,
        "teacher_price": _prices(teacher_price),
        "distractors": distractors,
        "oracle_p": oracle_p,
        "questions": questions,
        "seed": seed,
    }
    s = settings(flags).settings
    from forge_cli import pipeline
    from forge_cli.core.jsonl import read_records, write_records
    from forge_cli.core.records import Chunk, Verdict
    from forge_cli.raft.formats import FORMATS, to_line
    from forge_cli.raft.preferences import make_preferences

    if form != "messages" and form not in FORMATS:
        known = ", ".join(["messages", *FORMATS])
        raise UsageError(f"--format {form}: no such format", f"give one of: {known}")
    given = read_records(chunks, Chunk, need_end=not no_end)
    verdicts: list[Verdict] = []
    examples = pipeline.make_examples(given, s, output, verdicts.append)
    try:
        if preferences:
            examples = list(examples)
            count = write_records(make_preferences(examples, seed=s.seed), preferences)
            output.note(f"{count} preference pairs in {preferences}")
        if form == "messages":
            write_records(examples, out, end=not no_end)
        else:
            write_records((to_line(example, form) for example in examples), out, end=False)
    finally:
        if rejects:
            write_records(verdicts, rejects)
    if form == "messages":
        output.next(f"forge validate {out} -o sound.jsonl" if out != "-" else "… | forge validate")
    else:
        output.next("these rows are for other tools: forge validate reads --format messages")


def _prices(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        prices = [float(part) for part in text.split(",")]
    except ValueError:
        prices = []
    if len(prices) != 2 or min(prices) < 0:
        raise UsageError(f"--teacher-price {text}: not two prices", "give for example 0.15,0.60")
    return prices
