"""What an update costs and keeps, against the deployed model and a full retraining.

python benchmarks/guard_incremental.py [--repo REPOSITORY] [OLD NEW]

A model is trained on a repository as it was at commit OLD, and the repository moves on to NEW. An
update trains on from the deployed adapters, over what changed and a replay of old rows. A full
retraining begins from the base model and goes over everything, with the same splits. Then the
models are asked the same held-out rows: about new code, of which none was trained on anything
alike, and about code that did not change, which shows what was forgotten. Losses are means over the
tokens of the right answers, in nats, with the 95 % interval of the difference from the deployed
model and, where it says so, from the full retraining.

Cost is from the repository to the trained adapters: mining, questions, validation, training; in
seconds of the processor, which other work on the machine does not change much. REPOSITORY is
a path or an address that git clones (without --repo: the environment's GUARD_REPO, or datasette on
GitHub). SmolLM2-135M, which the package brings along; an hour of one core. The start of fresh
adapters is taken from the cache, where an earlier run left it; else both full trainings pay for it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forge_cli import evaluate, pipeline
from forge_cli.core.config import resolve
from forge_cli.core.events import Silent
from forge_cli.core.jsonl import read_records
from forge_cli.core.records import Example
from forge_cli.core.run_dir import RunDir
from forge_cli.pipeline.update import update

DATASETTE, OLD, NEW = "https://github.com/simonw/datasette", "1.0a20", "1.0a24"
SETTINGS: dict[str, Any] = {
    "rank": 8, "layers": 8, "distractors": 1, "questions": 2, "max_tokens": 1024, "epochs": 1.0,
    "valid_every": 30, "valid_rows": 12,
}  # fmt: skip
# Half of the new code is held out, so that there are files enough to judge on.
HOLD, ROWS, ANSWERS = 0.5, 64, 0
Cost = dict[str, float]


class Aloud(Silent):
    """Tells stderr what goes on."""

    def note(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    warn = note


def main() -> None:
    """Train, update, retrain, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repo", default=os.environ.get("GUARD_REPO", DATASETTE))
    parser.add_argument("--folder", type=Path, help="keeps the runs (none: a temporary one)")
    parser.add_argument("commits", nargs="*", default=[OLD, NEW])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        measure(given.repo, *given.commits, given.folder or Path(temporary))


def measure(repo: str, old: str, new: str, folder: Path) -> None:
    """All of it, in `folder`, where what was trained is kept."""
    source, tell = folder / "repository", Aloud()
    if not source.exists():
        subprocess.run(["git", "clone", "-q", repo, source], check=True)
    subprocess.run(["git", "checkout", "-q", old], cwd=source, check=True)
    resolved = resolve(SETTINGS, project=folder, environ={})
    runs = {name: folder / name for name in ("deployed", "update", "full")}
    costs = {"deployed": clock(runs["deployed"], lambda: train(source, resolved, runs["deployed"]))}
    deployed = RunDir.load(runs["deployed"])
    subprocess.run(["git", "checkout", "-q", new], cwd=source, check=True)
    for name in ("update", "full"):
        costs[name] = clock(
            runs[name],
            lambda name=name: update(  # type: ignore[misc]
                deployed,
                source,
                runs[name],
                hold_share=HOLD,
                afresh=name == "full",
                reporter=tell,
            ),
        )
    report(repo, old, new, runs, costs)


def train(source: Path, resolved: Any, run: Path) -> None:
    """As `forge train` does, but for the judging."""
    directory = RunDir.open(run, resolved.identity(), resolved.origins, source=str(source))
    with directory.locked():
        pipeline.with_data(directory, source, resolved.settings, Aloud())
        pipeline.fit(directory, resolved.settings, Aloud())


def clock(run: Path, work: Callable[[], Any]) -> Cost:
    """What a run took; kept beside it, as one that is taken up again takes nothing."""
    kept = run.with_suffix(".json")
    if not kept.exists():
        began, processor = time.monotonic(), time.process_time()
        work()
        cost = {"clock": time.monotonic() - began, "processor": time.process_time() - processor}
        kept.write_text(json.dumps(cost))
    found: Cost = json.loads(kept.read_text())
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    steps = [line for line in lines if "learning_rate" in line]
    rows = RunDir.load(run).state["metrics"]["train"]["rows"]
    return found | {
        "steps": len(steps), "tokens": sum(step["tokens"] for step in steps), "rows": rows,
    }  # fmt: skip


def report(repo: str, old: str, new: str, runs: dict[str, Path], costs: dict[str, Cost]) -> None:
    """Judge the models and print the tables."""
    state = RunDir.load(runs["update"]).state
    counts, changes = state["update"]["counts"], state["stages"]["raft"]["changes"]
    print(f"{Path(repo).name}, {old} to {new[:12]}: {changes['share']:.1%} changed")
    print(
        f"{counts['fresh']} new and {counts['replayed']} old rows to train on, "
        f"{counts['tested_new']} new and {counts['tested_old']} old rows held out\n"
    )
    print("           steps    rows   tokens   processor, s   by the clock, s")
    for name, cost in costs.items():
        print(
            f"{name:<9}{cost['steps']:7.0f}{cost['rows']:8.0f}{cost['tokens']:9.0f}"
            f"{cost['processor']:15.0f}{cost['clock']:18.0f}"
        )
    one, all_of = costs["update"], costs["full"]
    shares = [one[key] / all_of[key] for key in ("steps", "tokens", "processor", "clock")]
    print(
        "update of full: {:.2f} steps, {:.2f} tokens, {:.2f} processor, {:.2f} clock".format(
            *shares
        )
    )
    print()
    judge(runs)


def held_out(update: Path, others: list[str]) -> list[evaluate.Pair]:
    """What an update, `tuned`, and other runs make of its rows about new code and about old."""
    rows = list(read_records(update / "data" / "examples.jsonl", Example))
    about_new = set(json.loads((update / "data" / "update.json").read_text())["new"])
    test = [row for row in rows if row.split == "test"]
    return evaluate.run(
        [row for row in test if row.id not in about_new],
        later=[row for row in test if row.id in about_new],
        adapters=update / "adapters", out=update.parent / "eval", sides=[*others, "tuned"],
        conditions=["given", "later"], rows=ROWS, answer_rows=ANSWERS, condition_rows=ANSWERS,
        reporter=Aloud(),
    )  # fmt: skip


def judge(runs: dict[str, Path]) -> None:
    """The same rows to each model."""
    sides = {"deployed": str(runs["deployed"]), "full": str(runs["full"])}
    pairs = held_out(runs["update"], list(sides.values()))
    names = {text: name for name, text in sides.items()} | {"tuned": "update"}
    for condition, about in (("later", "new code"), ("given", "old code")):
        for metric in ("answer_loss", "answer_f1", "quote_correct"):
            read = [p for p in pairs if p.condition == condition and p.metric == metric]
            if not read:
                continue
            found = {(names[p.reference], names[p.side]): p.found for p in read}
            some = found["deployed", "update"]
            print(f"{about}, {metric}: {some.n} rows of {some.clusters} files")
            print(f"  deployed   {some.base:.3f}")
            for side, reference in (
                ("full", "deployed"), ("update", "deployed"), ("update", "full"),
            ):  # fmt: skip
                one = found[reference, side]
                print(
                    f"  {side:<9}{one.tuned:7.3f}   {one.difference:+.3f} "
                    f"[{one.low:+.3f}, {one.high:+.3f}] from {reference}: {one.verdict}"
                )


if __name__ == "__main__":
    main()
