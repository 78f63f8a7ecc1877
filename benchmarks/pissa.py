"""What PiSSA is worth: LoRA, LoftQ, PiSSA and QPiSSA with the learning rate that suits each.

python benchmarks/pissa.py            reads pissa_runs.jsonl, which benchmarks/pissa_runs.py made

Prints, for each init: the error of its quantised start by type of matrix (nuclear norm of what the
start loses of W, over that of plain quantisation, as in arXiv 2404.02948, table 3), the seconds of
the init, the loss before the first step, the steps to a loss that all reach, and held-out losses
with intervals over seeds and rows. Draws docs/pissa.svg: validation loss by step and by rate.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pissa_runs import ALTERNATIONS, INITS, LAYERS, MODEL, RANK, best_rate, read_runs

from forge_cli.models.adapters import get_module
from forge_cli.models.backend import mx
from forge_cli.models.load import load_dense
from forge_cli.models.lora import without_start
from forge_cli.models.quantise import round_trip
from forge_cli.train.inits.loftq import loftq_start
from forge_cli.train.inits.pissa import pissa_start, qpissa_start

NAMES = {
    "lora": "LoRA",
    "loftq": "LoftQ, T = 5",
    "pissa": "QPiSSA, T = 1",
    "qpissa": "QPiSSA, T = 5",
}
TYPES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FOUR: dict[str, Any] = {"bits": 4, "group_size": 64, "mode": "affine"}
PICTURE = Path(__file__).parents[1] / "docs" / "pissa.svg"


def started(init: str, weight: mx.array) -> tuple[np.ndarray, float]:
    """deq(Q) + s·BA at the start of training, float32 [out, in], and the seconds of the init."""

    def quantise(W: mx.array) -> mx.array:
        return round_trip(W, **FOUR)

    begun = time.perf_counter()
    how: dict[str, Any] = {"rank": RANK, "scale": 1.0, "iterations": 4, "seed": 0}
    against = {"quantise": quantise, "alternations": ALTERNATIONS}
    if init == "lora":
        return np.array(quantise(weight)), time.perf_counter() - begun
    if init == "pissa":
        start = pissa_start(weight, **how)
    else:
        start = {"loftq": loftq_start, "qpissa": qpissa_start}[init](weight, **against, **how)
    mx.eval(start.A, start.B)
    seconds = time.perf_counter() - begun
    Q = quantise(without_start(weight, start.A0, start.B0, 1.0))
    return np.array(Q + start.B @ start.A), seconds


def print_errors() -> None:
    """How much less of W the start loses than plain quantisation, and how long it takes."""
    model = load_dense(MODEL).model
    blocks = [len(model.layers) - LAYERS, len(model.layers) - LAYERS // 2, len(model.layers) - 1]
    print("\nNuclear norm of the error of the start, less than LoRA's by (mean of three blocks):")
    print(f"{'':16}" + "".join(f"{kind:>11}" for kind in TYPES) + f"{'s a block':>11}")
    lost: dict[str, list[float]] = {}
    for init in INITS:
        seconds, cells = 0.0, []
        for kind in TYPES:
            part = "self_attn" if kind[0] in "qkvo" and kind != "down_proj" else "mlp"
            shares = []
            for block in blocks:
                weight = get_module(model, f"model.layers.{block}.{part}.{kind}").weight
                found, took = started(init, weight)
                error = float(np.linalg.norm(np.array(weight) - found, "nuc"))
                lost.setdefault(f"{kind}{block}", []).append(error)
                shares.append(1 - error / lost[f"{kind}{block}"][0])
                seconds += took / len(blocks)
            cells.append(f"{statistics.mean(shares):10.1%} ")
        print(f"{NAMES[init]:16}" + "".join(cells) + f"{seconds:10.2f}")


def first_step(run: dict[str, Any], target: float) -> float:
    """The step at which the validation loss came to `target`, between validations by a line."""
    curve = run["valid"]
    for (before, high), (step, loss) in pairwise(curve):
        if loss <= target:
            return float(before + (step - before) * (high - target) / (high - loss))
    return float("inf")


def interval(rows: np.ndarray) -> tuple[float, float, float]:
    """Mean of [seeds, rows] and its 95 % interval: seeds and rows drawn again, 10,000 times."""
    random = np.random.default_rng(0)
    seeds, count = rows.shape
    means = [
        rows[random.integers(0, seeds, seeds)][:, random.integers(0, count, count)].mean()
        for _ in range(10_000)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(rows.mean()), float(low), float(high)


def print_runs(runs: Sequence[dict[str, Any]]) -> None:
    """What training came to, each init at its own best rate."""
    whole = {init: best_runs(runs, init) for init in INITS}
    ready = {init: found for init, found in whole.items() if found}
    print("\nAt the learning rate with the least validation loss (seed 0):")
    for init in INITS:
        tried = sorted((r["rate"], r["best_valid"]) for r in of_seed_0(runs, init))
        told = ", ".join(f"{rate:g} {loss:.3f}" for rate, loss in tried) or "no run"
        print(f"{NAMES[init]:16}{told}")
    if not ready:
        return
    target = max(statistics.median(r["best_valid"] for r in found) for found in ready.values())
    print(f"\n{'':16}{'rate':>8}{'seeds':>6}{'step 0':>8}{f'steps to {target:.3f}':>16}"
          f"{'seen kinds':>24}{'unseen kinds':>24}{'F1':>7}{'exported':>10}")  # fmt: skip
    for init, found in ready.items():
        steps = statistics.median(first_step(run, target) for run in found)
        losses = [interval(np.array([run[kind] for run in found])) for kind in ("seen", "unseen")]
        told = "".join(f"{mean:10.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in losses)
        f1 = statistics.mean(np.mean(run["f1_seen"] + run["f1_unseen"]) for run in found)
        exported = statistics.mean(np.mean(run["exported_seen"]) for run in found)
        first = statistics.median(run["valid"][0][1] for run in found)
        print(f"{NAMES[init]:16}{found[0]['rate']:8g}{len(found):6}{first:8.3f}{steps:16.1f}"
              f"{told}{f1:7.3f}{exported:10.3f}")  # fmt: skip
    print_differences(ready)


def print_differences(ready: dict[str, list[dict[str, Any]]]) -> None:
    """Held-out loss less that of LoRA, paired by seed and row."""
    if "lora" not in ready:
        return
    print("\nHeld-out loss, less LoRA's (paired by seed and row; 95 % interval):")
    for init, found in ready.items():
        pairs = list(zip(found, ready["lora"], strict=False))
        if init == "lora" or not pairs:
            continue
        told = []
        for kind in ("seen", "unseen"):
            apart = np.array([np.array(a[kind]) - np.array(b[kind]) for a, b in pairs])
            mean, low, high = interval(apart)
            verdict = "no difference shown" if low <= 0 <= high else ""
            told.append(f"{kind} {mean:+.3f} [{low:+.3f}, {high:+.3f}] {verdict}")
        print(f"{NAMES[init]:16}" + "   ".join(told))


def of_seed_0(runs: Sequence[dict[str, Any]], init: str) -> list[dict[str, Any]]:
    """The sweep over learning rates."""
    found = {run["rate"]: run for run in runs if run["init"] == init and run["seed"] == 0}
    return [found[rate] for rate in sorted(found)]


def best_runs(runs: Sequence[dict[str, Any]], init: str) -> list[dict[str, Any]]:
    """The whole runs at the best rate, by seed."""
    if not of_seed_0(runs, init):
        return []
    rate = best_rate(runs, init)
    found = [r for r in runs if r["init"] == init and r["rate"] == rate and r["whole"]]
    return sorted(found, key=lambda run: run["seed"])


def draw(runs: Sequence[dict[str, Any]]) -> None:
    """Validation loss by step at the best rate, and the best of it by rate."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 10, "svg.hashsalt": "forge", "svg.fonttype": "none"})
    figure, (by_step, by_rate) = plt.subplots(2, 1, figsize=(6, 7), layout="constrained")
    for init, mark in zip(INITS, "osD^", strict=True):
        swept = of_seed_0(runs, init)
        if not swept:
            continue
        rates = [run["rate"] for run in swept]
        by_rate.loglog(rates, [run["best_valid"] for run in swept], mark + "-", label=NAMES[init])
        best = min(swept, key=lambda run: run["best_valid"])
        label = f"{NAMES[init]}, {best['rate']:g}"
        by_step.semilogy(*zip(*best["valid"], strict=True), mark + "-", label=label)
    by_step.set(xlabel="step", ylabel="validation loss, nats a token")
    by_rate.set(xlabel="learning rate", ylabel="least validation loss")
    for axes in (by_step, by_rate):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(PICTURE, metadata={"Date": None})


def main() -> None:
    """Print the tables and draw."""
    runs = read_runs()
    print(f"{len(runs)} runs of {MODEL}, rank {RANK}, the last {LAYERS} blocks, 4 bits")
    print_runs(runs)
    print_errors()
    draw(runs)


if __name__ == "__main__":
    main()
