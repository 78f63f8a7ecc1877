"""`forge ask`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forge_cli.cli._options import Json, Quiet, Verbose, settings
from forge_cli.cli._output import Output

if TYPE_CHECKING:
    from forge_cli.ask import Reply
    from forge_cli.pipeline.asking import Asked


_TURNS = re.compile(r"[\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def ask(
    question: Annotated[str, typer.Argument(help="About the repository.")],
    repo: Annotated[
        Path | None, typer.Option(help="Repository (default: the run's, or where you are).")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", help="Run that answers (default: the deployed or newest one)."),
    ] = None,
    via: Annotated[
        str, typer.Option(help="Who answers: mlx, mlx:MODEL, ollama:NAME or openai:NAME.")
    ] = "mlx",
    url: Annotated[str | None, typer.Option(help="Of that server, with /v1.")] = None,
    documents: Annotated[
        int | None, typer.Option(min=1, max=32, help="Documents to show (default: as in training).")
    ] = None,
    teach: Annotated[
        str | None,
        typer.Option(metavar="ANSWER", help="The right answer, kept to train on; - for stdin."),
    ] = None,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Answer a question about a repository, with quotes that stand there word for word.

    Example: forge ask "What does parse_config return?"
    """
    output = Output(json_lines=json_lines, quiet=quiet)
    s = settings({}).settings
    right = teach
    if teach is not None:
        from forge_cli.ask.correction import check_right

        right = sys.stdin.buffer.read().decode(errors="surrogateescape") if teach == "-" else teach
        check_right(right)
    from forge_cli.pipeline.asking import ask as put

    asked = put(question, s, repo=repo, run=run, via=via, url=url, count=documents, reporter=output)
    if json_lines:
        print(json.dumps(asked.reply.as_dict(), ensure_ascii=False))
    else:
        print(_visible(_as_text(asked.reply)))
    if asked.reply.checked.abstained:
        shown = ", ".join(f"{c.path}:{c.start_line}" for c in asked.reply.documents)
        output.note(f"looked at {shown}; --documents shows more")
    if right is not None:
        _teach(asked, right, output)
    else:
        output.next("forge ask … --teach 'the right answer', where this one is wrong")


def _as_text(reply: Reply) -> str:
    """The answer, then each quote with where it stands, then what was struck."""
    from forge_cli.ask.quotes import strike

    found = reply.checked
    blocks = [found.final or "(no answer)"]
    for quote in found.quotes:
        lines = "\n".join(f"    {line}".rstrip() for line in quote.text.strip("\n").split("\n"))
        blocks.append(f"{quote}\n{lines}")
    blocks += [strike(text) for text in found.struck if strike(text) not in found.final]
    return "\n\n".join(blocks)


def _visible(text: str) -> str:
    """Without what a terminal would obey: control characters, and turns of the direction."""
    return "".join(
        chr(0x2400 + ord(c)) if ord(c) < 32 and c not in "\n\t" else c
        for c in _TURNS.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))
        if not 0x7F <= ord(c) < 0xA0
    )


def _teach(asked: Asked, right: str, output: Output) -> None:
    from forge_cli.ask.correction import correct, keep

    pair, borne_out = correct(asked.reply, right)
    if not borne_out:
        output.warn(
            "no line of the documents shown bears that answer out: the pair teaches an answer "
            "without a quote; show more with --documents, or write the quote in the answer form"
        )
    added = keep(pair, asked.corrections)
    output.note(f"{'kept in' if added else 'already in'} {asked.corrections}")
    output.next(f"forge train {asked.corrections} --loss dpo --adapters RUN, once there are some")
