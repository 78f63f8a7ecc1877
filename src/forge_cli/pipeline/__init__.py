"""The stages chained over a run directory. The only place that knows their order."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge_cli.core.accelerator import accelerator
from forge_cli.core.config import Resolved, Settings, parse_duration
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.jsonl import read_records, write_records
from forge_cli.core.places import cache_dir
from forge_cli.core.records import Example, Preference
from forge_cli.core.run_dir import RunDir
from forge_cli.pipeline.continued import with_adapters
from forge_cli.pipeline.data import make_examples, mine_chunks, validated, with_data
from forge_cli.pipeline.deploying import deploy, deploy_file, registry_file, write_directory
from forge_cli.pipeline.distributed import follow, leading, send_rows
from forge_cli.pipeline.exporting import export
from forge_cli.pipeline.judging import evaluate, hold_gates, judge, test_rows
from forge_cli.pipeline.publishing import check_push, publish

if TYPE_CHECKING:
    from forge_cli.train.distributed import World

RUNS = Path(".forge") / "runs"


def train(
    source: str,
    resolved: Resolved,
    *,
    run: Path | None = None,
    fresh: bool = False,
    need_end: bool = True,
    reporter: Reporter = SILENT,
    watch: Callable[[], None] = lambda: None,
    fit: Callable[[RunDir], None] | None = None,
) -> RunDir:
    """From a repository to a judged model, or from examples to a trained one; resumes.

    Args:
        source: a directory (mine, raft, validate, train, eval), or examples.jsonl or "-"
            (training alone); with loss dpo a file of preferences.
        run: the run directory (None: .forge/runs/ and the source's name).
        watch: called while other processes that train along are waited for, may raise.
        fit: trains the run in place of this process.
    """
    with leading(reporter, watch) as world:  # first, so that the others hear what is wrong
        resolved = with_adapters(resolved)
        _check_budget(resolved.settings)
        return _train(source, resolved, run, fresh, need_end, reporter, world, fit)


def _train(
    source: str, resolved: Resolved, run: Path | None, fresh: bool, need_end: bool,
    reporter: Reporter, world: World | None, other: Callable[[RunDir], None] | None,
) -> RunDir:  # fmt: skip
    if source != "-" and Path(source).is_dir():
        if resolved.settings.loss == "dpo":
            raise UsageError(
                "loss dpo: a repository has no preferences",
                "write them with forge raft --preferences FILE, then: forge train FILE --loss dpo",
            )
        path = Path(source).resolve()
        # Before the work that comes first: a mistyped name should not cost a mining.
        resolve_model(resolved.settings, reporter)
        directory = _open(path.name or "root", str(path), resolved, run, fresh)
        with directory.locked():
            with_data(directory, path, resolved.settings, reporter)
            if other:
                other(directory)
            with accelerator(reporter):
                if not other:
                    fit(directory, resolved.settings, reporter, world)
                judge(directory, reporter)
        return directory
    if source != "-" and not Path(source).exists():
        raise UsageError(
            f"{source}: no such file or directory", "give a repository or examples.jsonl"
        )
    examples = read_rows(source, resolved.settings, need_end)
    names = (
        e.id + str(e.split) if isinstance(e, Example) else e.model_dump_json() for e in examples
    )
    digest = hashlib.sha256("".join(names).encode()).hexdigest()
    name = Path(source).stem if source != "-" else f"stdin-{digest[:8]}"
    directory = _open(name, f"sha256:{digest}", resolved, run, fresh)
    with directory.locked():
        if not directory.is_done("data"):
            check_splits(examples, source)
            write_records(examples, directory.file("data", _file_of(resolved.settings)))
            directory.finish("data", examples=len(examples))
        with accelerator(reporter):
            fit(directory, resolved.settings, reporter, world)
    return directory


def _check_budget(s: Settings) -> None:
    """Refuse a budget that means nothing, before the work that comes first."""
    if s.budget and s.steps:
        raise UsageError(
            f"budget {s.budget} and steps {s.steps}: a budget chooses the steps",
            "give one of them; epochs limits what a budget may take",
        )
    if s.budget:
        parse_duration(s.budget)


def resolve_model(s: Settings, reporter: Reporter) -> Path:
    """The directory of the model; UsageError or ForgeError where there is none."""
    from forge_cli.models.resolve import resolve

    return resolve(s.model, reporter=reporter)


def _open(name: str, source: str, resolved: Resolved, run: Path | None, fresh: bool) -> RunDir:
    path = run or RUNS / name
    if run is None:
        # Runs must not be mined, nor committed, when they stand in the repository.
        RUNS.mkdir(parents=True, exist_ok=True)
        (RUNS.parent / ".gitignore").write_text("*\n")
    identity = resolved.identity()
    return RunDir.open(path, identity, resolved.origins, source=source, fresh=fresh)


def _file_of(s: Settings) -> str:
    """What is trained on, in a run's data/."""
    return "preferences.jsonl" if s.loss == "dpo" else "examples.jsonl"


def read_rows(source: str, s: Settings, need_end: bool = True) -> Sequence[Example | Preference]:
    """What is trained on: examples, or with loss dpo preferences."""
    if s.loss == "dpo":
        return list(read_records(source, Preference, need_end=need_end))
    return list(read_records(source, Example, need_end=need_end))


def check_splits(examples: Sequence[Example | Preference], source: str) -> None:
    """Refuse no examples, and those that `forge validate` did not split."""
    if not examples:
        raise ForgeError(f"{source}: no examples", "run forge validate first")
    if isinstance(examples[0], Preference):
        return  # train splits those that have none
    if missing := sum(example.split is None for example in examples):
        raise ForgeError(
            f"{source}: {missing} of {len(examples)} examples have no split",
            "run forge validate first: it checks them and splits them by file",
        )


def fit(run: RunDir, s: Settings, reporter: Reporter, world: World | None = None) -> None:
    """The train stage over data/examples.jsonl, once; an interrupted one resumes."""
    if run.is_done("train"):
        reporter.note(f"{run.path}: already trained; --fresh starts over")
        return
    from forge_cli import train as stage
    from forge_cli.models.load import fingerprint

    run.state["model_files"] = fingerprint(resolve_model(s, reporter))
    run.save()
    started = time.monotonic()
    from forge_cli.train.distributed import ALONE

    rows = read_rows(str(run.file("data", _file_of(s))), s)
    if world:
        send_rows(world, rows)
    result = stage.run(
        rows,
        out=run.path,
        world=world or ALONE,
        reporter=reporter,
        **train_settings(s),
    )
    run.record(
        train={
            "steps": result.steps,
            "epochs": round(result.epochs, 4),
            "best_step": result.best_step,
            "best_valid_loss": result.best_valid_loss,
            "rows": result.rows,
            "left_out_rows": result.left_out,
        }
    )
    run.finish("train", seconds=round(time.monotonic() - started, 1))
    reporter.note(
        f"trained {result.steps} steps; the best adapters (step {result.best_step}, "
        f"valid loss {result.best_valid_loss:.4f}) are in {result.adapters}"
    )


def train_settings(s: Settings) -> dict[str, Any]:
    """The keyword arguments of the train stage."""
    names = (
        "model", "init", "rank", "rank_pattern", "alpha", "rslora", "dora", "svd_iterations",
        "alternations", "bits", "quant_mode", "group_size", "targets", "layers", "adapters",
        "steps", "epochs", "learning_rate", "warmup", "weight_decay", "clip", "valid_every",
        "valid_rows", "max_tokens", "seed", "optimiser", "schedule", "decay", "accumulate",
        "step_tokens", "packing", "neftune", "gradient_checkpointing", "compile_step",
        "memory_limit", "save_every", "keep_last", "keep_start", "patience", "min_delta",
        "sample_every", "sample_rows", "track", "loss", "span_weights", "label_smoothing",
        "z_loss", "beta", "valid_share",
    )  # fmt: skip
    cache = cache_dir() if s.cache else None
    budget = parse_duration(s.budget) if s.budget else None
    return {"cache": cache, "budget": budget, **{name: getattr(s, name) for name in names}}


__all__ = [
    "RUNS", "check_push", "check_splits", "deploy", "deploy_file", "evaluate", "export", "fit",
    "follow", "hold_gates", "judge", "make_examples", "mine_chunks", "publish", "read_rows",
    "registry_file", "resolve_model", "test_rows", "train", "train_settings", "validated",
    "with_data", "write_directory",
]  # fmt: skip
