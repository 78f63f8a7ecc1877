"""Answers that users corrected (`forge ask --teach`), learned after everything else by DPO."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from forge_cli.core.accelerator import accelerator
from forge_cli.core.config import Settings
from forge_cli.core.events import Reporter
from forge_cli.core.jsonl import atomic_file, read_records, write_records
from forge_cli.core.records import Preference
from forge_cli.core.run_dir import RunDir

# Of the learning rate of a full training: preferences move a model that already answers.
RATE = 0.1
EPOCHS = 4


def learn_corrections(run: RunDir, source: Path, s: Settings, reporter: Reporter) -> int:
    """Train a run's adapters on with the repository's corrections, once; how many there are.

    One alone waits for a second: each fifth validates (see `ask.corrections`). The pairs are kept
    in the run, and what training left before is in `corrections/`.

    Raises:
        ForgeError: a pair is longer than max_tokens, or the file cannot be read.
    """
    if run.is_done("corrections"):
        return int(run.state["stages"]["corrections"]["pairs"])
    own = run.file("data", "corrections.jsonl")
    if not own.exists():
        file = source / ".forge" / "corrections.jsonl"
        write_records(list(read_records(file, Preference)) if file.exists() else [], own)
    pairs = list(read_records(own, Preference))
    splits = {pair.split for pair in pairs}
    with run.locked(), accelerator(reporter):
        if {"train", "valid"} <= splits:
            _prefer(run, pairs, s, reporter)
        elif pairs:
            reporter.note(f"{len(pairs)} correction: learned when there is another")
        run.finish("corrections", pairs=len(pairs))
    return len(pairs)


def _prefer(run: RunDir, pairs: list[Preference], s: Settings, reporter: Reporter) -> None:
    from forge_cli import train as stage
    from forge_cli.pipeline import train_settings

    out = run.path / "corrections"
    if not run.state.get("preferred"):
        settings: dict[str, Any] = train_settings(s) | {
            "loss": "dpo", "adapters": str(run.path), "steps": None, "budget": None,
            "epochs": EPOCHS, "learning_rate": _rate(run, s) * RATE, "valid_every": 1,
        }  # fmt: skip
        reporter.note(f"{len(pairs)} corrected answers are learned")
        stage.run(pairs, out=out, reporter=reporter, **settings)
        run.state["preferred"] = True
        run.save()
    # Each file in one step: whoever is killed here does the same again.
    for file in sorted((out / "adapters").iterdir()):
        with open(file, "rb") as source, atomic_file(run.path / "adapters" / file.name) as stream:
            shutil.copyfileobj(source, stream)


def _rate(run: RunDir, s: Settings) -> float:
    """The peak learning rate that the run was trained at."""
    from forge_cli.train.callbacks.metrics import read_rows

    own = [row["learning_rate"] for row in read_rows(run.path) if "learning_rate" in row]
    return s.learning_rate or max(own, default=1e-4)
