"""The memory that `forge train` foresees, against what training takes.

python benchmarks/train_memory.py

SmolLM2-135M, RAFT rows of the standard library's `email` package, two steps on the two contexts
that need most, each setting in a process of its own. `foreseen` is what `--dry-run` prints, without
a measured step to correct it; `corrected` uses the correction that the setting named `plain` left.
MLX counts what it allocates (`get_peak_memory`); what Python and the data take is not in it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODEL = "smollm2-135m"
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PLAIN: dict[str, Any] = {"targets": ALL, "layers": 16, "rank": 16, "max_chars": 900}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "longer documents": {"max_chars": 2400},
    "LoRA": {"init": "lora"},
    "rank 64": {"rank": 64},
    "all 30 layers": {"layers": 0},
    "4 layers": {"layers": 4},
    "q_proj and v_proj": {"targets": ["q_proj", "v_proj"]},
    "DoRA": {"init": "dora"},
    "Lion": {"optimiser": "lion"},
    "checkpointing": {"gradient_checkpointing": True},
    "checkpointing, longer": {"gradient_checkpointing": True, "max_chars": 2400},
}


def largest_contexts(max_chars: int, bytes_of: Callable[[list[Any]], int]) -> list[Any]:
    """The rows of the two contexts that need most, to train on, and one row to validate."""
    from forge_cli import mine, raft, validate

    tree = Path(sysconfig.get_paths()["stdlib"]) / "email"
    rows = validate.run(raft.run(mine.run(tree, max_chars=max_chars)), model=MODEL)
    contexts: dict[str, list[Any]] = {}
    for row in rows:
        contexts.setdefault(row.context_id, []).append(row)
    ordered = sorted((c for c in contexts.values() if len(c) <= 8), key=bytes_of)
    chosen = [(row, "train") for context in ordered[-2:] for row in context]
    chosen.append((ordered[0][0], "valid"))
    return [row.model_copy(update={"split": split}) for row, split in chosen]


def run_one(changes: dict[str, Any], scale: float, cache: Path) -> None:
    """Print foreseen, corrected and measured bytes of one setting, and its scale, as JSON."""
    from forge_cli import train
    from forge_cli.core.config import Settings
    from forge_cli.models.load import load_tokenizer
    from forge_cli.models.resolve import resolve
    from forge_cli.models.shapes import read_shapes
    from forge_cli.train.batches import make_groups
    from forge_cli.train.callbacks.metrics import read_rows
    from forge_cli.train.fitting import largest, read_scale, scale_file
    from forge_cli.train.memory_plan import Plan, load_of
    from forge_cli.train.preview import training_of

    settings = PLAIN | changes
    max_chars = settings.pop("max_chars")
    folder = resolve(MODEL)
    tokenizer, shapes = load_tokenizer(folder), read_shapes(folder)
    how = training_of(Settings().model_dump() | settings)
    assert shapes is not None

    def planned(rows: list[Any], scale: float = 1.0) -> Plan:
        groups = make_groups(rows, tokenizer, max_tokens=4096)
        return largest(shapes, how, [load_of(group) for group in groups], scale)

    rows = largest_contexts(max_chars, lambda context: planned(context).step)
    with tempfile.TemporaryDirectory() as out:
        given = {"steps": 2, "cache": cache, "model": MODEL, "learning_rate": 1e-5, **settings}
        train.run(rows, out=Path(out), max_tokens=4096, **given)
        steps = [row for row in read_rows(Path(out)) if "step_bytes" in row]
    found = {
        "foreseen": planned(rows).step,
        "corrected": planned(rows, scale).step,
        "measured": max(row["step_bytes"] for row in steps),
        "scale": read_scale(scale_file(cache / "memory", MODEL)),
    }
    print(json.dumps(found))


def main() -> None:
    """Print the table."""
    if sys.argv[1:2] == ["--one"]:
        run_one(json.loads(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
        return
    print(f"{'':24}{'measured GB':>13}{'foreseen':>10}{'ratio':>8}{'corrected':>11}{'ratio':>8}")
    worst, scale = [0.0, 0.0], 1.0
    for name, changes in SETTINGS.items():
        with tempfile.TemporaryDirectory() as cache:
            command = [sys.executable, __file__, "--one", json.dumps(changes), str(scale), cache]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{name}: {done.stderr.strip()}")
        found = json.loads(done.stdout.splitlines()[-1])
        ratios = [found[kind] / found["measured"] for kind in ("foreseen", "corrected")]
        worst = [max(w, abs(r - 1)) for w, r in zip(worst, ratios, strict=True)]
        print(
            f"{name:24}{found['measured'] / 1e9:13.2f}{found['foreseen'] / 1e9:10.2f}"
            f"{ratios[0]:8.2f}{found['corrected'] / 1e9:11.2f}{ratios[1]:8.2f}",
            flush=True,
        )
        if name == "plain":
            scale = found["scale"]
    print(f"furthest off: {worst[0]:.0%} foreseen, {worst[1]:.0%} corrected")


if __name__ == "__main__":
    main()
