"""`forge eval`."""

from __future__ import annotations

from typing import Annotated

import typer

from forge_cli.cli._options import Json, NoEnd, Quiet, Verbose
from forge_cli.cli._output import Output
from forge_cli.cli._run import emit, open_run, show_comparison


def evaluate(
    run: Annotated[str, typer.Argument(help="Run directory, or - for a run record.")] = "-",
    side: Annotated[
        list[str] | None,
        typer.Option("--side", help="base, tuned, checkpoint:N, x.gguf, RUN, ollama:N …"),
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(help="Only given, reworded, unseen, oracle, distractors …; repeatable."),
    ] = None,
    answer_rows: Annotated[int | None, typer.Option(help="Test rows to answer.")] = None,
    condition_rows: Annotated[
        int | None, typer.Option(help="Rows under each condition but `given`.")
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(help="What counts: raft, completion, humaneval, repo-tests, time …, x.yaml."),
    ] = None,
    execute: Annotated[
        bool | None,
        typer.Option("--execute", help="Run generated code, contained (humaneval, repo-tests)."),
    ] = None,
    test_command: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND", help="Runs the repository's tests, {tests}, for repo-tests."
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Answers to each HumanEval problem: more than 1 for pass@k.")
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(help="'raft.answer_f1.low > 0', 'verdict is better', x.yaml; repeatable."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(metavar="TEACHER", help="Compares answers too."),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Of the server that a side or the judge names.")
    ] = None,
    no_end: NoEnd = False,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Judge the tuned model against its base on held-out rows, with intervals.

    A gate that does not hold ends in exit 3.
    Example: forge eval .forge/runs/repo --gate 'verdict is better'
    """
    output = Output(json_lines=json_lines, quiet=quiet)
    from forge_cli import pipeline
    from forge_cli.evaluate.gates import read_gates

    gates = read_gates(gate or [])
    found = open_run(run, need_end=not no_end)
    given = {
        "sides": side, "conditions": condition, "answer_rows": answer_rows, "suites": suite,
        "condition_rows": condition_rows, "execute": execute, "samples": samples, "judge": judge,
        "test_command": test_command,
    }  # fmt: skip
    changes = {name: value for name, value in given.items() if value is not None}
    pipeline.evaluate(found, output, changes=changes, url=url)
    show_comparison(found, output)
    pipeline.hold_gates(found, gates)
    output.next(f"forge export {found.path}")
    emit(found, output, end=not no_end)
