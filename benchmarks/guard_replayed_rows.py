"""How many old rows a small update must replay, so as not to be worse than what it began from.

    python benchmarks/guard_replayed_rows.py REPOSITORY OLD NEW [--shares 0 0.2] [--folder DIR]

A model is trained on REPOSITORY, a path or an address, at commit OLD. At NEW, where little is new
that can be asked about, updates of it are trained, each with at least a share of a full training's
rows (0: no more than a quarter of an old row for each new one). All are asked the same held-out
rows: about new code, of which nothing alike was trained on, and about old. Settings and losses as
in `guard_incremental.py`; one seed.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

from guard_incremental import SETTINGS, Aloud, held_out, train

from forge_cli.core.config import resolve
from forge_cli.core.run_dir import RunDir
from forge_cli.pipeline.update import update
from forge_cli.pipeline.update.updating import LEAST


def main() -> None:
    """Train, update with each share, and judge all of them at once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository")
    parser.add_argument("commits", nargs=2, metavar=("OLD", "NEW"))
    parser.add_argument("--shares", nargs="+", type=float, default=[0.0, LEAST])
    parser.add_argument("--folder", type=Path, help="keeps the runs (none: a temporary one)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        source, base = folder / "repository", folder / "base"
        if not source.exists():
            subprocess.run(["git", "clone", "-q", asked.repository, source], check=True)
        old, new = asked.commits
        subprocess.run(["git", "checkout", "-q", old], cwd=source, check=True)
        train(source, resolve(SETTINGS, project=folder, environ={}), base)
        subprocess.run(["git", "checkout", "-q", new], cwd=source, check=True)
        runs = {share: folder / f"update-{share}" for share in asked.shares}
        for share, run in runs.items():
            update(RunDir.load(base), source, run, least_share=share, reporter=Aloud())
        judge(base, runs)


def judge(base: Path, runs: dict[float, Path]) -> None:
    """The same rows to each model; prints a table."""
    *others, last = runs.values()
    pairs = held_out(last, [str(base), *map(str, others)])
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
