"""What a run's files tell of its training."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forge_cli.core.jsonl import read_records
from forge_cli.core.records import Example
from forge_cli.core.run_dir import RunDir
from forge_cli.guard.reports.fields import Suspect, Tally, Training
from forge_cli.train.callbacks.metrics import read_rows

FILES, BARS = 12, 24
_BLOCKS = "▁▂▃▄▅▆▇█"


def read_training(run: Path, before: Path | None) -> Training | None:
    """What training read and how it went; None where the run never came to a step.

    Args:
        before: the run of the deployed model.
    """
    steps = read_rows(run)
    if not steps or not (run / "run.json").exists():
        return None
    state = RunDir.load(run).state
    rows = _examples(run)
    trained = [row for row in rows if row.split == "train"]
    kinds = Counter(row.origin.kind for row in trained)
    read = Counter(row.origin.path for row in trained)
    told = state["metrics"].get("train", {})
    curve = losses(steps)
    return Training(
        base=Path(str(state["settings"].get("model", ""))).name,
        begun_from=before.name if before and state["settings"].get("adapters") else "",
        train_rows=len(trained),
        valid_rows=sum(row.split == "valid" for row in rows),
        test_rows=sum(row.split == "test" for row in rows),
        replayed=state.get("update", {}).get("counts", {}).get("replayed"),
        kinds=[Tally(name=name, number=number) for name, number in kinds.most_common()],
        read=[Tally(name=name, number=number) for name, number in read.most_common(FILES)],
        more_read=max(0, len(read) - FILES),
        suspects=[
            Suspect(path=one["path"], reason=one["reason"])
            for one in state["stages"].get("raft", {}).get("suspects", ())
        ],
        steps=int(told.get("steps", max(row["step"] for row in steps))),
        seconds=sum(row.get("seconds", 0.0) for row in steps),
        tokens=sum(row.get("tokens", 0) for row in steps),
        peak_bytes=max(row.get("peak_bytes", 0) for row in steps),
        first_loss=curve[0] if curve else None,
        last_loss=curve[-1] if curve else None,
        best_valid_loss=told.get("best_valid_loss"),
        sparkline=sparkline(curve),
    )


def losses(steps: Sequence[dict[str, Any]]) -> list[float]:
    """Validation losses by step where two were taken, else training losses."""
    checked = [row["valid_loss"] for row in steps if "valid_loss" in row]
    return checked if len(checked) > 1 else [row["loss"] for row in steps if "loss" in row]


def sparkline(values: Sequence[float]) -> str:
    """The values, of many every so manyth, as block characters from the least to the most."""
    values = [value for value in values if math.isfinite(value)]  # a training that ran away
    if len(values) < 2:
        return ""
    if len(values) > BARS:
        values = [values[round(at * (len(values) - 1) / (BARS - 1))] for at in range(BARS)]
    low, reach = min(values), max(values) - min(values)
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round(top * (one - low) / reach) if reach else 0] for one in values)


def _examples(run: Path) -> list[Example]:
    file = run / "data" / "examples.jsonl"
    return list(read_records(file, Example)) if file.exists() else []
