"""Commands that take a run directory: by path, or as a `run` record from the pipe before."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from forge_cli.cli._output import COMPARISON_COLUMNS, Output, comparison_rows
from forge_cli.core.errors import BadRecord

if TYPE_CHECKING:
    from forge_cli.core.run_dir import RunDir


def open_run(source: str, *, need_end: bool = True) -> RunDir:
    """The run directory named by a path or by the `run` record on stdin ("-")."""
    from forge_cli.core.jsonl import read_records
    from forge_cli.core.records import Run
    from forge_cli.core.run_dir import RunDir

    if source != "-":
        return RunDir.load(Path(source))
    runs = list(read_records("-", Run, need_end=need_end))
    if len(runs) != 1:
        raise BadRecord(f"<stdin>: {len(runs)} run records, expected one", "see the stage before")
    return RunDir.load(Path(runs[0].path))


def emit(run: RunDir, output: Output, *, end: bool = True) -> None:
    """Send the `run` record on, unless a person is looking."""
    from forge_cli.core.jsonl import write_records

    if output.json_lines or not sys.stdout.isatty():
        write_records([run.as_record()], "-", end=end)


def show_comparison(run: RunDir, output: Output) -> None:
    """The table of base against tuned."""
    metrics = run.state["metrics"].get("eval")
    if metrics:
        rows = comparison_rows(metrics)
        output.table(COMPARISON_COLUMNS, rows, "Base against tuned, held-out files")
    if verdict := run.state["metrics"].get("verdict"):
        output.note(f"verdict: {verdict['outcome']}")
        for reason in verdict["reasons"]:
            output.note(f"  {reason}")
