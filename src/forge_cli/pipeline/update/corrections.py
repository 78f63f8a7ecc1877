"""Answers that users corrected (`forge ask --teach`), learned after everything else by DPO."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from forge_cli.core.accelerator import accelerator
from forge_cli.core.config import Settings
from forge_cli.core.events import Reporter
from forge_cli.core.jsonl import atomic_file, read_records, write_records
from forge_cli.core.records import Example, Preference, Split
from forge_cli.core.run_dir import RunDir

# Of the learning rate of a full training: preferences move a model that already answers.
RATE = 0.1
EPOCHS = 4


def learn_corrections(run: RunDir, source: Path, s: Settings, reporter: Reporter) -> int:
    """Train a run's adapters on with the repository's corrections, once; how many there are.

    Of several answers to one question the last counts. One pair alone waits for a second: each
    fifth validates (see `ask.correction`). The pairs are kept in the run, and what training left
    before is in `corrections/`.

    Raises:
        ForgeError: a pair is longer than max_tokens, or the file cannot be read.
    """
    if run.is_done("corrections"):
        return int(run.state["stages"]["corrections"]["pairs"])
    own = run.file("data", "corrections.jsonl")
    if not own.exists():
        file = source / ".forge" / "corrections.jsonl"
        write_records(latest(read_records(file, Preference)) if file.exists() else [], own)
    pairs = list(read_records(own, Preference))
    splits = {pair.split for pair in pairs}
    with run.locked(), accelerator(reporter):
        if {"train", "valid"} <= splits:
            _prefer(run, pairs, s, reporter)
        elif pairs:
            reporter.note(f"{len(pairs)} correction: learned when there is another")
        run.finish("corrections", pairs=len(pairs))
    return len(pairs)


def latest(pairs: Iterable[Preference]) -> list[Preference]:
    """Those that say what the last correction of their question says; others are taken back."""
    given = list(pairs)
    last = {_question(pair): pair.chosen for pair in given}
    kept = [pair for pair in given if last[_question(pair)] == pair.chosen]
    if len(kept) < len(given) and len(kept) > 1 and len({pair.split for pair in kept}) == 1:
        # Both splits are needed.
        other: Split = "train" if kept[-1].split == "valid" else "valid"
        kept[-1] = kept[-1].model_copy(update={"split": other})
    return kept


def _question(pair: Preference) -> str:
    """What was asked, without the documents that were shown, which differ from day to day."""
    return pair.messages[-1].content.rpartition("\n\nQuestion: ")[2]


def unshown(run: RunDir, rows: Sequence[Example]) -> list[Example]:
    """The rows that no correction, which the run learned, showed the answers of."""
    from forge_cli.validate.near import shingles
    from forge_cli.validate.split import NEAR

    file = run.path / "data" / "corrections.jsonl"
    vocabulary: dict[str, int] = {}
    seen: set[int] = set()
    for pair in read_records(file, Preference) if file.exists() else ():
        for message in pair.messages:
            seen |= shingles(message.content, vocabulary)
    kept = []
    for row in rows:
        telling = [d.text for d in row.documents if d.oracle or d.id == row.origin.chunk]
        sets = [shingles(text, vocabulary) for text in telling]
        if not any(len(own & seen) >= NEAR * len(own) for own in sets):
            kept.append(row)
    return kept


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
