"""How often few examples should be passed over: one to many passes over the same rows.

    python benchmarks/few_rows.py REPOSITORY [--passes 1 2 4] [--seeds 0] [--folder DIR]

Examples are made of REPOSITORY, a path; each seed splits its files in its own way. With the
embedded model a run is trained for each number of passes, on the same rows for one seed, and the
test rows are asked: the loss of the whole answer, and what the model answers by itself. A run
that is in DIR already is not trained again.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from guard_incremental import Aloud

from forge_cli.core.config import resolve
from forge_cli.core.run_dir import RunDir
from forge_cli.pipeline import evaluate, fit, with_data

METRICS = ("answer_loss", "answer_f1", "exact_match", "quote_correct")


def main() -> None:
    """Train and ask; prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", type=Path)
    parser.add_argument("--passes", nargs="+", type=float, default=[1.0, 2.0, 4.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--folder", type=Path, help="keeps the runs (none: a temporary one)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        for passes in asked.passes:
            found = [
                trained(asked.repository, folder / f"{seed}-{passes:g}", passes, seed)
                for seed in asked.seeds
            ]
            steps = ", ".join(str(one["train"]["steps"]) for one in found)
            raft = [one["eval"]["raft"] for one in found]
            own = {m: statistics.median(one[m]["tuned"] for one in raft) for m in METRICS}
            rows = ", ".join(str(one["answer_loss"]["n"]) for one in raft)
            told = "  ".join(f"{name} {value:.3f}" for name, value in own.items())
            print(f"{passes:g} passes, {steps} steps: {told} ({rows} test rows)", flush=True)


def trained(repository: Path, folder: Path, passes: float, seed: int) -> dict[str, Any]:
    """The metrics of a run."""
    asked = {
        "epochs": passes, "seed": seed, "sides": ["base", "tuned"], "conditions": ["given"],
    }  # fmt: skip
    resolved = resolve(asked, project=folder.parent, environ={})
    settings = resolved.settings
    run = RunDir.open(folder, resolved.identity(), resolved.origins, source=str(repository))
    with_data(run, repository, settings, Aloud())
    fit(run, settings, Aloud())
    evaluate(run, Aloud())
    return dict(RunDir.load(folder).state["metrics"])


if __name__ == "__main__":
    main()
