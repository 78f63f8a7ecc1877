"""The train stage of an update: on from the deployed adapters, in smaller and fewer steps."""

from __future__ import annotations

import json
import math
from typing import Any

from forge_cli.core.config import Settings
from forge_cli.core.events import Reporter
from forge_cli.core.jsonl import read_records
from forge_cli.core.records import Example
from forge_cli.core.run_dir import RunDir

# Of the peak learning rate of a full training (`benchmarks/guard_incremental.py`).
RATE = 0.5


def prepared(run: RunDir, base: RunDir, s: Settings) -> Settings:
    """The settings to train the update with; what differs stands in run.json under `update`."""
    how = run.state["update"]
    if how["mode"] == "afresh":
        return s
    how["full_rate"] = s.learning_rate or _full_rate(base)
    how["full_rows"] = full_rows(base)
    # Whether it is better than the deployed model is judged by more rows than those that pick the
    # best step, which leave the start as it is for a difference that they cannot show.
    changed: dict[str, Any] = {"learning_rate": how["full_rate"] * how["rate"], "keep_start": False}
    if s.steps:
        # As many passes as the full training made over its own rows.
        rows = how["counts"]["fresh"] + how["counts"]["replayed"]
        steps = math.ceil(s.steps * rows / max(1, how["full_rows"]))
        changed["steps"] = min(s.steps, steps)
    else:
        changed["epochs"] = how["full_epochs"] = s.epochs or _full_epochs(base)
    how["settings"] = changed
    run.save()
    return s.model_copy(update=changed)


def train_on(run: RunDir, s: Settings, reporter: Reporter) -> None:
    """Train over the update's rows, once; an interrupted training resumes."""
    from forge_cli.pipeline import fit

    fit(run, s, reporter)


def _full_rate(base: RunDir) -> float:
    """The peak learning rate of the full training that a run comes from."""
    if known := base.state.get("update", {}).get("full_rate"):
        return float(known)
    lines = (base.path / "metrics.jsonl").read_text("utf-8").splitlines()
    return max(row["learning_rate"] for row in map(json.loads, lines) if "learning_rate" in row)


def _full_epochs(base: RunDir) -> float:
    """The passes of the full training that a run comes from."""
    known = base.state.get("update", {}).get("full_epochs")
    return float(known or base.state["metrics"].get("train", {}).get("epochs") or 1.0)


def full_rows(base: RunDir) -> int:
    """The training rows of the full training that a run comes from."""
    if known := base.state.get("update", {}).get("full_rows"):
        return int(known)
    rows = read_records(base.path / "data" / "examples.jsonl", Example)
    return sum(row.split == "train" for row in rows)
