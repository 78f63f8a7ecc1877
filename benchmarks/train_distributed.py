"""Two processes on this machine that train together (ring), beside one.

SmolLM2-135M on 4 bits, PiSSA of rank 16 on 16 layers, shared contexts with four questions, four
contexts a step; one thread for each process. They take turns: each round trains once alone and
once together, and the figures are medians over the steps of all rounds but each run's first step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

CONTEXTS, QUESTIONS, A_STEP = 12, 4, 4


def train(out: Path, model: str, steps: int) -> None:
    """One rank, or the only process; rank 0 prints the bytes that it sent a step."""
    from forge_cli import train as stage
    from forge_cli.core.ranks import find_place
    from forge_cli.train.distributed import ALONE, join
    from tiny_train import example

    rows = [example(c, q, size=16 + c) for c in range(CONTEXTS) for q in range(QUESTIONS)]
    rows += [example(50, q, "valid") for q in range(2)]
    place = find_place()
    world = join(place) if place else ALONE
    with world.session():
        stage.run(
            rows, out=out if world.rank == 0 else out / "rank-1", model=model, steps=steps,
            accumulate=A_STEP, valid_every=steps, world=world,
        )  # fmt: skip
    if world.rank == 0:
        print(world.sent / steps)


def measure(folder: Path, name: str, model: str, steps: int) -> dict[str, Any]:
    """Train with --hosts' own way of starting; what the run wrote."""
    from forge_cli.pipeline.hosts import find_addresses

    out = folder / name
    out.mkdir()
    size = 2 if name.startswith("two") else 1
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    if size == 2:
        hosts = folder / f"{name}.json"
        hosts.write_text(json.dumps([[a] for a in find_addresses(["localhost", "localhost"])]))
        env["MLX_HOSTFILE"] = str(hosts)
    command = [sys.executable, __file__, "--rank-of", str(out), "--model", model]
    command += ["--steps", str(steps)]
    ranks = [
        subprocess.Popen(
            command, env=env | ({"MLX_RANK": str(rank)} if size == 2 else {}),
            stdout=subprocess.PIPE, text=True,
        )
        for rank in range(size)
    ]  # fmt: skip
    said = [rank.communicate()[0] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        sys.exit(f"{name} failed")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {"rows": rows, "sent": float(said[0]), "adapters": out / "adapters"}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rank-of", type=Path)
    options = parser.parse_args()
    if options.rank_of:
        train(options.rank_of, options.model, options.steps)
        return
    import numpy as np
    from safetensors.numpy import load_file

    runs: dict[str, list[dict[str, Any]]] = {"one": [], "two": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            for name, found in runs.items():
                one = measure(Path(folder), f"{name}-{number}", options.model, options.steps)
                one["final"] = load_file(str(one["adapters"] / "adapters.safetensors"))
                found.append(one)
    pace = {
        name: statistics.median(
            row["seconds"] for run in found for row in run["rows"] if row["step"] > 1
        )
        for name, found in runs.items()
    }
    print(f"{'processes':<11}{'s a step':>9}{'MB sent a step':>16}{'peak GB of a process':>22}")
    for name, found in runs.items():
        peak = max(row["peak_bytes"] for row in found[0]["rows"])
        print(f"{name:<11}{pace[name]:>9.2f}{found[0]['sent'] / 1e6:>16.2f}{peak / 1e9:>22.2f}")
    print(f"two are faster by {pace['one'] / pace['two']:.2f}")
    losses = [[r["loss"] for r in runs[n][0]["rows"] if "loss" in r] for n in ("one", "two")]
    print(
        f"largest difference of a loss: {max(abs(a - b) for a, b in zip(*losses, strict=True)):.1e}"
    )
    a, b = (runs[name][0]["final"] for name in ("one", "two"))
    worst = max(np.abs(a[k] - b[k]).max() / np.abs(a[k]).max() for k in a)
    print(f"largest difference of the adapters, relative: {worst:.1e}")


if __name__ == "__main__":
    main()
