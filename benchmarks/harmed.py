"""A tuned model, harmed on purpose in three ways: which suite catches what.

python benchmarks/harmed.py RUN          a run that forge train made of a repository

overdone: what was learned, three times over, as too high a learning rate leaves it. noise: the
adapters with noise of half their spread. refusals: 12 more steps on rows that all abstain. Each is
compared with the tuned model it was made of, by the rules of the suites raft and completion; so is
the tuned model with itself. 24 questions as given and 24 with distractors alone, 40 texts and 24
definitions of held-out files.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from forge_cli import evaluate, train
from forge_cli.core.answer_form import ABSTAIN, render
from forge_cli.core.jsonl import read_records
from forge_cli.core.records import Answer, Chunk, Example
from forge_cli.evaluate.statistics.verdict import decide
from forge_cli.evaluate.suites import read_suite
from forge_cli.models.adapters import read_adapters, save_arrays
from forge_cli.models.backend import mx

OVERDONE, NOISE, REFUSAL_STEPS, ROWS = 3.0, 0.5, 12, 24
SUITES = ("raft", "completion")
CONDITIONS = ["given", "distractors", "completion", "perplexity"]
Arrays = dict[str, mx.array]


def overdone(tuned: Arrays, initial: Arrays) -> Arrays:
    """A + 3(A − A0), and the same for B."""
    return {name: initial[name] + OVERDONE * (tuned[name] - initial[name]) for name in tuned}


def noisy(tuned: Arrays, _: Arrays) -> Arrays:
    """Normal noise on every number, of half its matrix's standard deviation."""
    mx.random.seed(0)
    return {
        name: value + NOISE * mx.std(value) * mx.random.normal(value.shape)
        for name, value in tuned.items()
    }


def changed(source: Path, target: Path, change: Callable[[Arrays, Arrays], Arrays]) -> None:
    """A run directory with other adapters."""
    shutil.copytree(source / "adapters", target / "adapters")
    found = read_adapters(source / "adapters")
    initial = {
        name: found.initial.get(name, mx.zeros_like(value)) for name, value in found.arrays.items()
    }
    save_arrays(target / "adapters" / "adapters.safetensors", change(found.arrays, initial))


def refusing(source: Path, target: Path, rows: list[Example], model: str) -> None:
    """Trained on, on rows whose answer is always to abstain."""
    refusal = Answer(reason="No document holds the answer.", final=ABSTAIN)
    wrong = [
        row.model_copy(
            update={"answer": refusal, "messages": render(row.documents, row.question, refusal)}
        )
        for row in rows
    ]
    train.run(
        wrong, out=target, model=model, adapters=source / "adapters", steps=REFUSAL_STEPS,
        valid_rows=8,
    )  # fmt: skip


def main() -> None:
    """Make them, judge them, print the verdict of each suite and what decided it."""
    run = Path(sys.argv[1])
    rows = list(read_records(run / "data" / "examples.jsonl", Example))
    chunks = list(read_records(run / "data" / "chunks.jsonl", Chunk))
    with tempfile.TemporaryDirectory() as name:
        made = {kind: Path(name) / kind for kind in ("overdone", "noise", "refusals")}
        changed(run, made["overdone"], overdone)
        changed(run, made["noise"], noisy)
        refusing(run, made["refusals"], rows, read_adapters(run / "adapters").config.model)
        sides = ["tuned", str(run), *map(str, made.values())]
        pairs = evaluate.run(
            rows, adapters=run / "adapters", out=Path(name) / "eval", sides=sides, chunks=chunks,
            conditions=CONDITIONS, rows=40, answer_rows=ROWS, condition_rows=ROWS,
            decisive={metric for suite in SUITES for metric in read_suite(suite).rules.named},
        )  # fmt: skip
    for side in sides[1:]:
        found = {
            f"{p.condition}.{p.metric}": p.found
            for p in pairs
            if (p.reference, p.side) == ("tuned", side)
        }
        print("itself" if side == str(run) else Path(side).name)
        for suite in SUITES:
            verdict = decide(found, read_suite(suite).rules)
            print(f"  {suite}: {verdict.outcome}")
            for reason in verdict.reasons:
                print(f"    {reason}")


if __name__ == "__main__":
    main()
