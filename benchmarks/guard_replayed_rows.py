"""How many old rows a small update must replay, so as not to be worse than what it began from.

    python benchmarks/guard_replayed_rows.py RUN SOURCE [SHARE ...]

RUN is a trained run, SOURCE its repository as it is now, after a change of which little can be
asked. For each SHARE (default: 0, which replays one old row for each new one, and what
`update` does by itself) an update of RUN is trained with at least that share of a full training's
rows, and the models are asked the same held-out rows: about new code, of which nothing alike was
trained on, and about old. Losses as in `guard_incremental.py`; one seed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from guard_incremental import Aloud

from forge_cli import evaluate
from forge_cli.core.jsonl import read_records
from forge_cli.core.records import Example
from forge_cli.core.run_dir import RunDir
from forge_cli.pipeline.update import update
from forge_cli.pipeline.update.updating import LEAST


def main() -> None:
    """Update with each share, and judge all of them at once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("source", type=Path)
    parser.add_argument("shares", nargs="*", type=float, default=[0.0, LEAST])
    asked = parser.parse_args()
    base = RunDir.load(asked.run)
    with tempfile.TemporaryDirectory() as temporary:
        runs = {share: Path(temporary) / f"update-{share}" for share in asked.shares}
        for share, run in runs.items():
            update(base, asked.source, run, least_share=share, reporter=Aloud())
        judge(asked.run, runs, Path(temporary))


def judge(base: Path, runs: dict[float, Path], folder: Path) -> None:
    """The same rows to each model; prints a table."""
    last = list(runs.values())[-1]
    about_new = set(json.loads((last / "data" / "update.json").read_text())["new"])
    rows = list(read_records(last / "data" / "examples.jsonl", Example))
    test = [row for row in rows if row.split == "test"]
    pairs = evaluate.run(
        [row for row in test if row.id not in about_new],
        later=[row for row in test if row.id in about_new],
        adapters=last / "adapters", out=folder / "eval",
        sides=[str(base), *map(str, list(runs.values())[:-1]), "tuned"],
        conditions=["given", "later"], rows=64, answer_rows=0, condition_rows=0, reporter=Aloud(),
    )  # fmt: skip
    for condition, about in (("later", "new code"), ("given", "old code")):
        found = {
            pair.side: pair.found for pair in pairs
            if (pair.condition, pair.metric) == (condition, "answer_loss")
            and pair.reference == str(base)
        }  # fmt: skip
        some = next(iter(found.values()))
        print(f"{about}, answer_loss: {some.n} rows of {some.clusters} files")
        print(f"  before           {some.base:.4f}")
        for share, run in runs.items():
            one = found["tuned" if run == last else str(run)]
            done = RunDir.load(run).state
            counts, steps = done["update"]["counts"], done["metrics"]["train"]["steps"]
            print(
                f"  at least {share:<5}{one.tuned:9.4f}  {one.difference:+.4f} "
                f"[{one.low:+.4f}, {one.high:+.4f}] {one.verdict}: {counts['fresh']} new and "
                f"{counts['replayed']} old rows, {steps} steps"
            )


if __name__ == "__main__":
    main()
