"""`forge mine`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forge_cli.cli._options import Json, NoEnd, Out, Quiet, Rejects, Verbose, settings
from forge_cli.cli._output import Output


def mine(
    path: Annotated[Path, typer.Argument(help="Repository, folder or file.")],
    out: Out = "-",
    rejects: Rejects = None,
    lang: Annotated[list[str] | None, typer.Option(help="Only this language; repeatable.")] = None,
    max_chars: Annotated[int | None, typer.Option(help="Largest chunk, in bytes.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes (0: one per core).")] = None,
    links: Annotated[
        bool | None, typer.Option("--links/--no-links", help="Find out who calls whom.")
    ] = None,
    cache: Annotated[
        bool | None, typer.Option("--cache/--no-cache", help="Parse only what changed.")
    ] = None,
    no_end: NoEnd = False,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Cut a repository into chunks: definitions whole, every byte in one chunk.

    Example: forge mine repo/ -o chunks.jsonl
    """
    output = Output(json_lines=json_lines, quiet=quiet)
    flags = {
        "lang": lang, "max_chars": max_chars, "jobs": jobs, "links": links, "cache": cache,
    }  # fmt: skip
    s = settings(flags).settings
    from forge_cli import pipeline
    from forge_cli.core.jsonl import write_records
    from forge_cli.core.records import Verdict

    verdicts: list[Verdict] = []
    chunks = pipeline.mine_chunks(path, s, output, verdicts.append)
    try:
        write_records(chunks.lines(), out, end=not no_end)
    finally:
        # Above all where nothing is left to mine: they say why.
        if rejects:
            write_records(verdicts, rejects)
    output.next(f"forge raft {out}" if out != "-" else "… | forge raft")
