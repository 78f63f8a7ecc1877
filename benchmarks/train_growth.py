"""How a training step's time and memory grow, in Forge and in mlx-lm.

python benchmarks/train_growth.py

With the length of the context, the questions asked of it, the rank of the adapters, and the
vocabulary: SmolLM2-135M's shapes in float32, LoRA on all linear layers of the last 16 blocks, rows
of random tokens (a question of 20 tokens, an answer of 40). Each point in a process of its own; the
second of two steps is timed, its peak is MLX's. mlx-lm runs the same rows padded, as its trainer
does, where that takes less than `LIMIT` tokens a step. Draws docs/train-growth.svg.

What was measured is kept in train_growth.jsonl, and not measured again: delete it to begin anew.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PLAIN = {"context": 512, "questions": 4, "rank": 8, "vocabulary": 49152}
POINTS = {
    "context": [128, 512, 1024, 2048],
    "questions": [1, 2, 4, 8],
    "rank": [4, 16, 64],
    "vocabulary": [8192, 131072, 262144],
}
SIDES, LIMIT = ["Forge", "Forge, checkpointed", "mlx-lm"], 3000
KEPT = Path(__file__).with_suffix(".jsonl")
PICTURE = Path(__file__).parents[1] / "docs" / "train-growth.svg"


def random_model(vocabulary: int) -> Any:
    """SmolLM2-135M's shapes with random weights and another vocabulary."""
    from mlx_lm.models import llama

    from forge_cli.models.backend import mx
    from forge_cli.models.resolve import resolve

    config = json.loads((resolve("smollm2-135m") / "config.json").read_text())
    mx.random.seed(0)
    model = llama.Model(llama.ModelArgs.from_dict(config | {"vocab_size": vocabulary}))
    mx.eval(model.parameters())
    return model


def run_side(side: str, point: dict[str, int]) -> tuple[float, float]:
    """Seconds and peak GB of a step."""
    import random

    from forge_cli.models import attention
    from forge_cli.models.backend import mx

    draw = random.Random(0)
    shared = [draw.randrange(5, 8000) for _ in range(point["context"])]
    rows = [
        [*shared, 5 + n, *(draw.randrange(5, 8000) for _ in range(59))]
        for n in range(point["questions"])
    ]
    if side != "mlx-lm":
        attention.install()  # before mlx-lm's model files are imported, as `load_dense` does
    start, model = point["context"] + 20, random_model(point["vocabulary"])
    if side == "mlx-lm":
        work, batch = _mlx_lm(model, rows, start, point["rank"])
    else:
        work, batch = _forge(model, rows, start, point["rank"], "checkpointed" in side)
    mx.eval(work(model, *batch))
    mx.clear_cache()
    mx.reset_peak_memory()
    begun = time.perf_counter()
    mx.eval(work(model, *batch))
    return time.perf_counter() - begun, mx.get_peak_memory() / 1e9


def _forge(model: Any, rows: list[list[int]], start: int, rank: int, checkpointed: bool) -> Any:
    from forge_cli.models.adapters import AdapterConfig
    from forge_cli.models.backend import nn
    from forge_cli.models.shared_context import Row, group_rows, token_losses
    from forge_cli.train.gradient_checkpointing import checkpoint_blocks
    from forge_cli.train.initial import start_adapters

    config = AdapterConfig("random", "lora", rank, float(rank), 16, 64, [])
    start_adapters(model, config, targets=TARGETS, layers=16, seed=0)
    if checkpointed:
        checkpoint_blocks(model)
    model.train()
    work = nn.value_and_grad(model, lambda model, group: token_losses(model, group).sum())
    return work, (group_rows([Row(ids, start) for ids in rows]),)


def _mlx_lm(model: Any, rows: list[list[int]], start: int, rank: int) -> Any:
    from mlx_lm.tuner.trainer import default_loss
    from mlx_lm.tuner.utils import linear_to_lora_layers

    from forge_cli.models.backend import mx, nn

    model.freeze()
    keys = [f"self_attn.{t}" for t in TARGETS[:4]] + [f"mlp.{t}" for t in TARGETS[4:]]
    settings = {"rank": rank, "scale": 1.0, "dropout": 0.0, "keys": keys}
    linear_to_lora_layers(model, 16, settings)
    width = 1 + 32 * ((len(rows[0]) + 31) // 32)
    ids = mx.array([row + [0] * (width - len(row)) for row in rows])
    lengths = mx.array([[start, len(row)] for row in rows])
    return nn.value_and_grad(model, default_loss), (ids, lengths)


def measure(side: str, point: dict[str, int]) -> list[float] | None:
    """One point in a process of its own; None where it would take too long."""
    if side == "mlx-lm" and (point["context"] + 60) * point["questions"] > LIMIT:
        return None
    command = [sys.executable, __file__, "--one", side, json.dumps(point)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side}, {point}: {done.stderr.strip()[-500:]}")
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def draw(found: dict[str, dict[str, list[tuple[int, float, float]]]]) -> None:
    """Time on the left, memory on the right, a line of both for each of the four."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 10, "svg.hashsalt": "forge", "svg.fonttype": "none"})
    figure, grid = plt.subplots(4, 2, figsize=(7, 10), layout="constrained")
    for axes, (what, sides) in zip(grid, found.items(), strict=True):
        for side, mark in zip(SIDES, "osD", strict=True):
            points = sides.get(side, [])
            for ax, column in zip(axes, (1, 2), strict=True):
                ax.plot([p[0] for p in points], [p[column] for p in points], mark + "-", label=side)
                ax.set_xscale("log", base=2)
                ax.set_xticks(sorted({p[0] for one in sides.values() for p in one}))
                ax.xaxis.set_major_formatter("{x:.0f}")
                ax.set_yscale("log")
                ax.yaxis.set_major_formatter("{x:g}")
                ax.yaxis.set_minor_formatter("")
                ax.set_xlabel(what)
                ax.grid(alpha=0.3)
        axes[0].set_ylabel("seconds a step")
        axes[1].set_ylabel("peak GB")
    names = grid[0][0].get_legend_handles_labels()
    figure.legend(*names, loc="outside upper center", ncols=len(SIDES), frameon=False)
    figure.savefig(PICTURE, metadata={"Date": None})


def main() -> None:
    """Print the table and draw."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(run_side(sys.argv[2], json.loads(sys.argv[3]))))
        return
    lines = KEPT.read_text().splitlines() if KEPT.exists() else []
    known: dict[str, list[float] | None] = dict(map(json.loads, lines))
    found: dict[str, dict[str, list[tuple[int, float, float]]]] = {}
    print(f"{'':12}{'':>8}" + "".join(f"{side:>24}" for side in SIDES) + "   (s, peak GB)")
    for what, values in POINTS.items():
        for value in values:
            point, cells = PLAIN | {what: value}, []
            for side in SIDES:
                key = f"{side}{point}"
                if key not in known:
                    known[key] = measure(side, point)
                    with open(KEPT, "a", encoding="utf-8") as stream:
                        stream.write(json.dumps([key, known[key]]) + "\n")
                result = known[key]
                cells.append(f"{result[0]:10.2f}{result[1]:8.2f}" if result else "-")
                if result:
                    points = found.setdefault(what, {}).setdefault(side, [])
                    points.append((value, result[0], result[1]))
            print(f"{what:12}{value:8}" + "".join(f"{cell:>24}" for cell in cells), flush=True)
    draw(found)


if __name__ == "__main__":
    main()
