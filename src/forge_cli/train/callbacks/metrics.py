"""metrics.jsonl: one row a step, with the validation loss where one was taken."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from forge_cli.core.jsonl import atomic_file
from forge_cli.train.callbacks.protocol import Callback, Run, Validation
from forge_cli.train.step import Step

FILE = "metrics.jsonl"
_NOT_METRICS = {"largest_tokens", "largest_rows"}


class Metrics(Callback):
    """Appends a row after each step; rows of steps that are done again are dropped first."""

    def on_start(self, run: Run) -> None:
        """Drop the rows beyond the checkpoint."""
        at = run.progress
        if at.validated < 0 and at.step == 0:
            (run.out / FILE).unlink(missing_ok=True)
            return
        rows = [row for row in read_rows(run.out) if row["step"] <= at.step]
        if rows and rows[-1]["step"] > at.validated:
            rows[-1] = {k: v for k, v in rows[-1].items() if not k.startswith("valid_")}
        _write(run.out, rows)

    def on_step(self, run: Run, step: Step) -> None:
        """Append the step's row."""
        row = {name: value for name, value in vars(step).items() if name not in _NOT_METRICS}
        with open(run.out / FILE, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")

    def on_validation(self, run: Run, validation: Validation) -> None:
        """Put the validation loss into the last row."""
        rows, step = read_rows(run.out), validation.step
        row = rows.pop() if rows and rows[-1]["step"] == step else {"step": step}
        row |= {
            "valid_loss": validation.loss,
            "valid_seconds": validation.seconds,
            "peak_bytes": validation.peak_bytes,
        }
        _write(run.out, [*rows, row])

    def on_checkpoint(self, run: Run, path: Path) -> None:
        """Have the rows on disk before training relies on the checkpoint."""
        if (run.out / FILE).exists():
            with open(run.out / FILE, "rb") as stream:
                os.fsync(stream.fileno())


def read_rows(out: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl in `out`, without one that a crash cut short."""
    path, rows = out / FILE, []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in rows if isinstance(row, dict)]


def _write(out: Path, rows: list[dict[str, Any]]) -> None:
    with atomic_file(out / FILE) as stream:
        stream.writelines(json.dumps(row).encode() + b"\n" for row in rows)
