"""`forge train`: the whole pipeline over a directory, or training alone over examples."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from forge_cli.cli._options import (
    Json,
    Model,
    NoEnd,
    Quiet,
    Recipe,
    RunPath,
    Seed,
    Verbose,
    settings,
)
from forge_cli.cli._output import Output
from forge_cli.cli._run import emit, show_comparison
from forge_cli.core.ranks import find_place


def train(
    source: Annotated[str, typer.Argument(help="Repository, examples.jsonl, or - for stdin.")],
    model: Model = None,
    recipe: Recipe = None,
    init: Annotated[
        str | None,
        typer.Option(help="qpissa, pissa, lora, loftq or dora; compared in the README."),
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Rank r of the adapters.")] = None,
    bits: Annotated[int | None, typer.Option(help="2, 3, 4, 6, 8, or 16: not quantised.")] = None,
    adapters: Annotated[
        str | None, typer.Option(metavar="DIR", help="Go on from those of a run, or PEFT's.")
    ] = None,
    loss: Annotated[str | None, typer.Option(help="sft, raft or dpo.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the rows.")] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="45m, 2h: train what fits into it.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    optimiser: Annotated[str | None, typer.Option(help="adamw, adafactor, lion or muon.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Batches that make one step.")] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps between checkpoints.")] = None,
    track: Annotated[
        list[str] | None, typer.Option(help="Also log to tensorboard, wandb, mlflow; repeatable.")
    ] = None,
    hosts: Annotated[
        str | None, typer.Option(metavar="H1,H2", help="Train together: this machine, others.")
    ] = None,
    max_chars: Annotated[int | None, typer.Option(help="Largest chunk, in bytes.")] = None,
    distractors: Annotated[int | None, typer.Option(help="Beside each oracle document.")] = None,
    answer_rows: Annotated[int | None, typer.Option(help="Test rows to answer.")] = None,
    seed: Seed = None,
    run: RunPath = None,
    deploy: Annotated[
        str | None, typer.Option(metavar="NAME", help="Go on: export, deploy under NAME.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, train nothing.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start the run over.")] = False,
    no_end: NoEnd = False,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train on a repository (mine, raft, validate, train, eval) or on examples alone.

    Run again, it resumes. Example: forge train repo/ --steps 200
    """
    output = Output(json_lines=json_lines, quiet=quiet)
    flags = {
        "model": model,
        "init": init,
        "rank": rank,
        "bits": bits,
        "adapters": adapters,
        "loss": loss,
        "steps": steps,
        "epochs": epochs,
        "budget": budget,
        "learning_rate": learning_rate,
        "optimiser": optimiser,
        "accumulate": accumulate,
        "save_every": save_every,
        "track": track,
        "hosts": hosts.split(",") if hosts is not None else None,
        "max_chars": max_chars,
        "distractors": distractors,
        "answer_rows": answer_rows,
        "seed": seed,
    }
    resolved = settings(flags, recipe)
    if resolved.chosen:
        output.note(resolved.chosen)
    from forge_cli import pipeline
    from forge_cli.pipeline.hosts import started

    place = find_place()
    if place and place.rank:
        pipeline.follow(resolved)
        return

    if dry_run:
        from forge_cli.pipeline.dry_run import plan

        parts = plan(source, resolved, output, need_end=not no_end)
        rows = [[name, f"{size / 1e9:.2f}"] for name, size in parts.items()]
        if rows:
            rows.append(["at the peak of a step", f"{sum(parts.values()) / 1e9:.2f}"])
            output.table(["memory", "GB"], rows, "What training would hold")
        if json_lines:
            print(json.dumps({"memory_bytes": parts, "peak_bytes": sum(parts.values())}))
        return
    with started(resolved.settings.hosts, sys.argv[1:]) as watch:
        done = pipeline.train(
            source, resolved, run=run, fresh=fresh, need_end=not no_end, reporter=output,
            watch=watch,
        )  # fmt: skip
    show_comparison(done, output)
    if deploy:
        pipeline.export(done, resolved.settings, output)
        pipeline.deploy(done, resolved.settings, name=deploy, dry_run=False, reporter=output)
        output.next(f"ollama run {deploy}")
    elif Path(source).is_dir() or resolved.settings.loss == "dpo":
        output.next(f"forge export {done.path}")
    else:
        output.next(f"forge eval {done.path}")
    emit(done, output, end=not no_end)
